//! What handlers find.

use std::fmt;

use commissaire_api::{model::Model, storage::Change};
use zeroize::Zeroizing;

use super::{Handler, StoreError};

/// What goes around a record in an answer, in bytes at most.
const AROUND: usize = 48;

/// Which records of a model.
#[derive(Debug, Clone)]
pub struct Query {
    /// Those whose keys begin so.
    pub prefix: String,
    /// Those whose keys come after this one.
    pub after: Option<String>,
    /// At most so many.
    pub most: usize,
    /// Of at most so many bytes together. A single record is given however large it is.
    pub bytes: usize,
}

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
    /// The latest revision when they were read.
    pub latest: u64,
    /// Keys of what is left out, because another program has stored something there that is no record, and why.
    pub unreadable: Vec<(String, StoreError)>,
}

/// A part of the log.
#[derive(Debug)]
pub struct ChangeSet {
    /// The changes, by revision.
    pub changes: Vec<Change>,
    /// The revision up to which these are all.
    pub next: u64,
    /// The latest revision when they were read.
    pub latest: u64,
    /// The oldest revision that is still known.
    pub oldest: u64,
}

/// How full an answer is.
#[derive(Debug)]
pub(super) struct Room {
    count: usize,
    size: usize,
    most: usize,
    bytes: usize,
}

impl Room {
    pub(super) fn new(most: usize, bytes: usize) -> Self {
        Self { count: 0, size: 0, most, bytes }
    }

    /// Whether something of `size` bytes goes into the answer as well; the first always does, unless nothing may.
    pub(super) fn take(&mut self, size: usize) -> bool {
        let size = self.size + size + AROUND;
        if self.count >= self.most || (size > self.bytes && self.count > 0) {
            return false;
        }
        self.size = size;
        self.count += 1;
        true
    }

    /// So many more went with what was taken last.
    pub(super) fn more(&mut self, count: usize) {
        self.count += count;
    }
}

/// Those of `keys`, sorted, that are wanted, each got by itself.
pub(super) async fn page(
    handler: &impl Handler,
    model: &'static Model,
    keys: Vec<String>,
    query: &Query,
) -> Result<Rows, StoreError> {
    let (mut rows, mut more) = (Vec::new(), false);
    let mut room = Room::new(query.most, query.bytes);
    let wanted =
        |key: &String| key.starts_with(&query.prefix) && query.after.as_ref().is_none_or(|after| key > after);
    for key in keys.into_iter().filter(wanted) {
        let found = handler.get(model, std::slice::from_ref(&key)).await?.pop().flatten();
        // It has gone in between.
        let Some(stored) = found else { continue };
        if !room.take(stored.json.len()) {
            more = true;
            break;
        }
        rows.push((key, stored));
    }
    Ok(Rows { rows, more, latest: 0, unreadable: Vec::new() })
}

impl fmt::Debug for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "revision {}, {} bytes", self.revision, self.json.len())
    }
}
