//! What handlers are to write.

use std::fmt;

use commissaire_api::{
    model::{Kept, Model},
    storage::{Data, Fence},
};
use serde_json::{Map, Value, value::RawValue};
use zeroize::Zeroizing;

/// Writes that are done all or none.
#[derive(Debug)]
pub struct Transaction {
    /// What to write; a record stands once.
    pub writes: Vec<Write>,
    /// The lease that must be ours.
    pub fence: Option<Fence>,
    /// Whether saving what is stored just so already does nothing.
    pub quiet_if_unchanged: bool,
    /// Who wants it.
    pub author: Author,
}

/// Who wants something written, for the log of changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Author {
    /// Who asked, if he said so.
    pub actor: Option<String>,
    /// Whether that was proved.
    pub verified: bool,
    /// The caller's name for what he does.
    pub operation: Option<String>,
}

/// One record to write.
#[derive(Debug)]
pub struct Write {
    /// Its model.
    pub model: &'static Model,
    /// Its key.
    pub key: String,
    /// The revision that it must have; 0: it must not be there.
    pub expected: Option<u64>,
    /// What it shall be.
    pub content: Content,
}

/// What a record shall be. `Debug` does not show it.
pub enum Content {
    /// This JSON, which the caller has checked against the model.
    Record(Zeroizing<Vec<u8>>),
    /// Deleted.
    Nothing,
}

impl Transaction {
    /// These writes, whatever there was before.
    pub fn of(writes: Vec<Write>) -> Self {
        Self { writes, fence: None, quiet_if_unchanged: false, author: Author::default() }
    }
}

/// The record `json` without what is hidden; nothing at all of a secret one. Fails when it is no JSON object.
pub(super) fn shown(model: &Model, json: &[u8]) -> Result<Option<Data>, serde_json::Error> {
    if model.kept == Kept::Sealed {
        return Ok(None);
    }
    let raw = if model.hides_nothing() {
        serde_json::from_slice::<Box<RawValue>>(json)?
    } else {
        let mut record: Map<String, Value> = serde_json::from_slice(json)?;
        model.hide(&mut record);
        serde_json::value::to_raw_value(&record)?
    };
    Ok(Some(Data(raw)))
}

/// Whether both are the same record, however they are written.
pub(crate) fn is_same(one: &[u8], other: &[u8]) -> bool {
    let read = |json: &[u8]| serde_json::from_slice::<Value>(json).ok();
    one == other || read(one).is_some_and(|one| Some(one) == read(other))
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Record(json) => write!(f, "{} bytes", json.len()),
            Self::Nothing => f.write_str("nothing"),
        }
    }
}
