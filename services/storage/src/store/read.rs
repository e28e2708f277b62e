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

/// What goes around a record in an answer, in bytes at most.
const AROUND: usize = 48;

/// A record as it is stored. `Debug` does not show it.
pub struct Stored {
    /// The revision of its last change.
    pub revision: u64,
    /// It, as JSON.
    pub json: Zeroizing<Vec<u8>>,
}

/// Records of a model, sorted by key.
#[derive(Debug)]
pub struct Rows {
    /// Keys and records.
    pub rows: Vec<(String, Stored)>,
    /// Whether there are more behind them.
    pub more: bool,
    /// The latest revision of the snapshot.
    pub latest: u64,
}

/// A part of the log.
#[derive(Debug)]
pub struct ChangeSet {
    /// The changes, by revision.
    pub changes: Vec<Change>,
    /// The latest revision of the snapshot.
    pub latest: u64,
    /// The oldest revision in the log.
    pub oldest: u64,
}

type Records = ReadOnlyTable<(&'static str, &'static str), (u64, &'static [u8])>;

impl Store {
    /// The records of these keys, in their order.
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

    /// The records of a model with keys after `after`: at most `most`, and of at most `bytes` together. A single record
    /// is given however large it is.
    pub fn list(
        &self,
        model: &Model,
        after: Option<&str>,
        most: usize,
        bytes: usize,
    ) -> Result<Rows, StoreError> {
        self.read(|snapshot| {
            let first = match after {
                Some(key) => Bound::Excluded((model.name, key)),
                None => Bound::Included((model.name, "")),
            };
            // No name of a model has another as its beginning and a NUL behind it.
            let end = format!("{}\0", model.name);
            let table = table(snapshot, model)?;
            let mut rows = Vec::new();
            let (mut size, mut more) = (0, false);
            for row in table.range::<(&str, &str)>((first, Bound::Excluded((end.as_str(), ""))))? {
                let (key, value) = row?;
                let (revision, json) = value.value();
                size += json.len() + AROUND;
                if rows.len() >= most || (size > bytes && !rows.is_empty()) {
                    more = true;
                    break;
                }
                let stored = Stored { revision, json: Zeroizing::new(json.to_vec()) };
                rows.push((key.value().1.to_owned(), stored));
            }
            Ok(Rows { rows, more, latest: latest(snapshot)? })
        })
    }

    /// The changes after the revision `since`: at most `most`, and of at most `bytes` together, but one at least.
    /// [`Compacted`](StoreError::Compacted) when the log does not hold all of them any more, or when the store has not
    /// come so far: it is another than the one that gave that revision, or was restored.
    pub fn changes(&self, since: u64, most: usize, bytes: usize) -> Result<ChangeSet, StoreError> {
        self.read(|snapshot| {
            let latest = latest(snapshot)?;
            let oldest = number(&snapshot.open_table(META)?, OLDEST)?;
            if since.saturating_add(1) < oldest || since > latest {
                return Ok(Err(StoreError::Compacted { oldest, latest }));
            }
            let mut changes = Vec::new();
            let mut size = 0;
            for row in snapshot.open_table(CHANGES)?.range((Bound::Excluded(since), Bound::Unbounded))? {
                let (_, json) = row?;
                size += json.value().len() + 1;
                if changes.len() >= most || (size > bytes && !changes.is_empty()) {
                    break;
                }
                changes.push(change(json.value())?);
            }
            Ok(Ok(ChangeSet { changes, latest, oldest }))
        })?
    }

    /// What is to be announced after the revision `after`: at most `most`, and of at most `bytes` together, but one at
    /// least.
    pub fn outbox(&self, after: u64, most: usize, bytes: usize) -> Result<Vec<Change>, StoreError> {
        self.read(|snapshot| {
            let changes = snapshot.open_table(CHANGES)?;
            let mut due = Vec::new();
            let mut size = 0;
            let unsent = snapshot.open_table(OUTBOX)?.range((Bound::Excluded(after), Bound::Unbounded))?;
            for row in unsent.take(most) {
                let revision = row?.0.value();
                let json = changes.get(revision)?.ok_or_else(|| missing(revision))?;
                size += json.value().len();
                if size > bytes && !due.is_empty() {
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
        match model.kept {
            Kept::Plain | Kept::Nowhere => Ok(Zeroizing::new(stored)),
            Kept::Sealed => self
                .shared
                .sealer
                .open(model.name, key, &stored)
                .ok_or_else(|| StoreError::Unsealable { key: key.to_owned() }),
        }
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

impl std::fmt::Debug for Stored {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "revision {}, {} bytes", self.revision, self.json.len())
    }
}
