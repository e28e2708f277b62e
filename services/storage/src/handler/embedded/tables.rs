//! The tables of the file.

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, TableHandle};
use uuid::Uuid;

use super::file::Problem;

/// The version of the layout.
pub(super) const FORMAT: u64 = 1;

/// Records in the clear: model and key → revision and JSON.
pub(super) const RECORDS: TableDefinition<'_, (&str, &str), (u64, &[u8])> = TableDefinition::new("records");
/// Secret records: model and key → revision and sealed JSON.
pub(super) const SEALED: TableDefinition<'_, (&str, &str), (u64, &[u8])> = TableDefinition::new("sealed");
/// The log of changes: revision → a [`Change`](commissaire_api::storage::Change) as JSON.
pub(super) const CHANGES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("changes");
/// The changes that are still to be announced, by revision. Compaction of the log leaves them.
pub(super) const OUTBOX: TableDefinition<'_, u64, ()> = TableDefinition::new("outbox");
/// Leases: name → token, time to live in milliseconds, holder.
pub(super) const LEASES: TableDefinition<'_, &str, (u64, u64, &str)> = TableDefinition::new("leases");
/// Numbers by name.
pub(super) const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
/// The store's id.
pub(super) const IDENTITY: TableDefinition<'_, &str, u128> = TableDefinition::new("identity");

/// In [`META`]: the version of the layout.
pub(super) const FORMAT_VERSION: &str = "format";
/// In [`META`]: the revision of the latest change.
pub(super) const REVISION: &str = "revision";
/// In [`META`]: the oldest revision in the log.
pub(super) const OLDEST: &str = "oldest";
/// In [`META`]: the greatest token of any lease so far.
pub(super) const TOKEN: &str = "token";
/// The row of [`SEALED`] with the key that the others are sealed with, wrapped. No record has an empty model.
pub(super) const KEY: (&str, &str) = ("", "key");
/// In [`IDENTITY`].
const STORE: &str = "store";

/// The id of the store in `database`; an empty one is made a store.
pub(super) fn prepare(database: &Database) -> Result<Uuid, Problem> {
    match identity(database)? {
        Some(id) => Ok(id),
        None => Ok(make(database)?),
    }
}

fn identity(database: &Database) -> Result<Option<Uuid>, Problem> {
    let snapshot = database.begin_read().map_err(redb::Error::from)?;
    let tables: Vec<String> =
        snapshot.list_tables().map_err(redb::Error::from)?.map(|table| table.name().to_owned()).collect();
    if tables.is_empty() {
        return Ok(None);
    }
    if !tables.iter().any(|name| name == META.name()) || !tables.iter().any(|name| name == IDENTITY.name()) {
        return Err(Problem::Foreign);
    }
    let read = || -> Result<(Option<u64>, Option<u128>), redb::Error> {
        let format = snapshot.open_table(META)?.get(FORMAT_VERSION)?.map(|value| value.value());
        let id = snapshot.open_table(IDENTITY)?.get(STORE)?.map(|value| value.value());
        Ok((format, id))
    };
    match read()? {
        (Some(FORMAT), Some(id)) => Ok(Some(Uuid::from_u128(id))),
        (Some(other), _) if other != FORMAT => Err(Problem::Format(other)),
        _ => Err(Problem::Foreign),
    }
}

fn make(database: &Database) -> Result<Uuid, redb::Error> {
    let id = Uuid::new_v4();
    let transaction = database.begin_write()?;
    {
        transaction.open_table(RECORDS)?;
        transaction.open_table(SEALED)?;
        transaction.open_table(CHANGES)?;
        transaction.open_table(OUTBOX)?;
        transaction.open_table(LEASES)?;
        transaction.open_table(IDENTITY)?.insert(STORE, id.as_u128())?;
        let mut meta = transaction.open_table(META)?;
        meta.insert(FORMAT_VERSION, FORMAT)?;
        meta.insert(REVISION, 0)?;
        meta.insert(OLDEST, 1)?;
        meta.insert(TOKEN, 0)?;
    }
    transaction.commit()?;
    Ok(id)
}

/// The key that secrets are sealed with, wrapped.
pub(super) fn read_key(database: &Database) -> Result<Option<Vec<u8>>, redb::Error> {
    let sealed = database.begin_read()?.open_table(SEALED)?;
    Ok(sealed.get(KEY)?.map(|row| row.value().1.to_vec()))
}

/// Keeps the key that secrets are to be sealed with, wrapped.
pub(super) fn write_key(database: &Database, wrapped: &[u8]) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    transaction.open_table(SEALED)?.insert(KEY, (0, wrapped))?;
    Ok(transaction.commit()?)
}

/// A number of [`META`], 0 if it is not there.
pub(super) fn number(meta: &impl ReadableTable<&'static str, u64>, name: &str) -> Result<u64, redb::Error> {
    Ok(meta.get(name)?.map_or(0, |value| value.value()))
}
