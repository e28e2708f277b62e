//! `StorageEvent`: a record was created, updated or deleted.

use std::fmt;

use commissaire::{Event, Key};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{model::Model, storage::Data};

/// What happened to a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    /// It is new.
    Created,
    /// It was saved again.
    Updated,
    /// It is gone.
    Deleted,
    /// Changes up to this revision can be told no more: list anew. Of no class and no record.
    Compacted,
}

/// Announced as `notify.storage.{class}.{event}`, or as `notify.storage.compacted` where changes were lost, after the record is durably stored, never before; at least once, and
/// in order for each record. The records of secret models are never announced.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StorageEvent {
    /// What happened.
    pub event: Verb,
    /// The record's model, `Host`.
    pub class: String,
    /// The record without hidden fields: not fit to be saved back. After a deletion, what it was.
    pub model: Data,
    /// The revision of the change; from 1, ever greater. The old wire has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
}

impl Event for StorageEvent {
    const PATTERN: &'static str = "notify.storage.#";

    fn key(&self) -> commissaire::Result<Key> {
        Key::new(match self.event {
            Verb::Compacted => "notify.storage.compacted".to_owned(),
            event => format!("notify.storage.{}.{event}", self.class),
        })
    }
}

impl StorageEvent {
    /// Changes were lost.
    pub fn lost() -> Self {
        let nothing = Data(serde_json::value::RawValue::from_string("{}".to_owned()).unwrap_or_default());
        Self { event: Verb::Compacted, class: String::new(), model: nothing, revision: None }
    }

    /// The key of the record, if its model is known.
    pub fn record_key(&self) -> Option<String> {
        let record: Map<String, Value> = self.model.to().ok()?;
        Model::find(&self.class)?.key_of(&record).map(str::to_owned)
    }
}

impl Verb {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Updated => "updated",
            Self::Deleted => "deleted",
            Self::Compacted => "compacted",
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
