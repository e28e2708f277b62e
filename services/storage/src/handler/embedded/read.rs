//! Reading: records by key, records by model, changes, and what is to be announced. Each from one snapshot.

use std::ops::Bound;

use commissaire_api::{
    model::{Kept, Model},
    storage::Change,
};
use redb::{ReadOnlyTable, ReadTransaction, ReadableTableMetadata};
use zeroize::Zeroizing;

use super::{
    Store, StoreError, latest,
    tables::{CHANGES, LEASES, META, OLDEST, OUTBOX, RECORDS, SEALED, number},
};
use crate::handler::{ChangeSet, Query, Rows, Stored, found::Room};

type Records = ReadOnlyTable<(&'static str, &'static str), (u64, &'static [u8])>;

impl Store {
    /// See [`Handler::get`](crate::handler::Handler::get).
    pub fn get(&self, model: &Model, keys: &[String]) -> Result<Vec<Option<Stored>>, StoreError> {
        let found = self.read(|snapshot| {
            let table = table(snapshot, model)?;
            let get = |key: &String| -> Result<Option<(u64, Vec<u8>)>, redb::Error> {
                Ok(table.get((model.name, key.as_str()))?.map(|row| (row.value().0, row.value().1.to_vec())))
            };
            keys.iter().map(get).collect::<Result<Vec<_>, _>>()
        })?;
        let opened = found.into_iter().zip(keys).map(|(row, key)| match row {
            None => Ok(None),
            Some((revision, stored)) => Ok(Some(Stored { revision, json: self.opened(model, key, stored)? })),
        });
        opened.collect()
    }

    /// See [`Handler::list`](crate::handler::Handler::list).
    pub fn list(&self, model: &Model, query: &Query) -> Result<Rows, StoreError> {
        let found = self.read(|snapshot| {
            let prefix = query.prefix.as_str();
            let first = match query.after.as_deref() {
                Some(key) if key >= prefix => Bound::Excluded((model.name, key)),
                _ => Bound::Included((model.name, prefix)),
            };
            // No name of a model has another as its beginning and a NUL behind it.
            let end = format!("{}\0", model.name);
            let table = table(snapshot, model)?;
            let (mut rows, mut more) = (Vec::new(), false);
            let mut room = Room::new(query.most, query.bytes);
            for row in table.range::<(&str, &str)>((first, Bound::Excluded((end.as_str(), ""))))? {
                let (key, value) = row?;
                let (revision, stored) = value.value();
                let key = key.value().1;
                if !key.starts_with(prefix) {
                    break;
                }
                more = !room.take(stored.len());
                if more {
                    break;
                }
                rows.push((key.to_owned(), revision, stored.to_vec()));
            }
            Ok((rows, more, latest(snapshot)?))
        });
        let (found, more, latest) = found?;
        let rows = found.into_iter().map(|(key, revision, stored)| {
            let json = self.opened(model, &key, stored)?;
            Ok((key, Stored { revision, json }))
        });
        Ok(Rows { rows: rows.collect::<Result<_, StoreError>>()?, more, latest, unreadable: Vec::new() })
    }

    /// See [`Handler::changes`](crate::handler::Handler::changes).
    pub fn changes(&self, since: u64, most: usize, bytes: usize) -> Result<ChangeSet, StoreError> {
        self.read(|snapshot| {
            let latest = latest(snapshot)?;
            let oldest = number(&snapshot.open_table(META)?, OLDEST)?;
            if since.saturating_add(1) < oldest || since > latest {
                return Ok(Err(StoreError::Compacted { oldest, latest }));
            }
            let mut changes = Vec::new();
            let mut room = Room::new(most, bytes);
            for row in snapshot.open_table(CHANGES)?.range((Bound::Excluded(since), Bound::Unbounded))? {
                let (_, json) = row?;
                if !room.take(json.value().len()) {
                    break;
                }
                changes.push(change(json.value())?);
            }
            let next = changes.last().map_or(latest, |change: &Change| change.revision);
            Ok(Ok(ChangeSet { changes, next, latest, oldest }))
        })?
    }

    /// What is to be announced after the revision `after`: at most `most`, and of at most `bytes` together, but one at
    /// least.
    pub fn outbox(&self, after: u64, most: usize, bytes: usize) -> Result<Vec<Change>, StoreError> {
        self.read(|snapshot| {
            let changes = snapshot.open_table(CHANGES)?;
            let mut due = Vec::new();
            let mut room = Room::new(most, bytes);
            for row in snapshot.open_table(OUTBOX)?.range((Bound::Excluded(after), Bound::Unbounded))? {
                let revision = row?.0.value();
                let json = changes.get(revision)?.ok_or_else(|| missing(revision))?;
                if !room.take(json.value().len()) {
                    break;
                }
                due.push(change(json.value())?);
            }
            Ok(due)
        })
    }

    /// How many leases there are, expired ones included.
    pub fn leases(&self) -> Result<u64, StoreError> {
        self.read(|snapshot| Ok(snapshot.open_table(LEASES)?.len()?))
    }

    /// What the table of `model` holds for `key`, as JSON.
    fn opened(&self, model: &Model, key: &str, stored: Vec<u8>) -> Result<Zeroizing<Vec<u8>>, StoreError> {
        let opened = self.shared.sealer.of_kept(model, key, stored);
        opened.ok_or_else(|| StoreError::Unsealable { key: key.to_owned() })
    }
}

fn table(snapshot: &ReadTransaction, model: &Model) -> Result<Records, redb::Error> {
    Ok(match model.kept {
        Kept::Sealed => snapshot.open_table(SEALED)?,
        Kept::Plain | Kept::Nowhere => snapshot.open_table(RECORDS)?,
    })
}

fn change(json: &[u8]) -> Result<Change, redb::Error> {
    serde_json::from_slice(json).map_err(|_| redb::Error::Corrupted("a stored change is not JSON".into()))
}

fn missing(revision: u64) -> redb::Error {
    redb::Error::Corrupted(format!("change {revision} is missing from the log"))
}
