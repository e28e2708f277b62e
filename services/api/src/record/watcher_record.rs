//! `WatcherRecord`: one host's turn in the watcher's queue. Travels on the bus, is not stored.

use serde::{Deserialize, Serialize};

use crate::{
    model::{Field, Kept, Model},
    record::Record,
};

/// The row of [`WatcherRecord`].
pub static WATCHER_RECORD: Model = Model {
    name: "WatcherRecord",
    list: None,
    key: Some("address"),
    fields: &[Field::text("address").or(""), Field::text("last_check")],
    rules: &[],
    kept: Kept::Nowhere,
};

/// One host's turn in the watcher's queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatcherRecord {
    /// The host's address.
    #[serde(default)]
    pub address: String,
    /// When it was last looked at: UTC, ISO 8601.
    pub last_check: String,
}

impl Record for WatcherRecord {
    const MODEL: &'static Model = &WATCHER_RECORD;

    fn key(&self) -> &str {
        &self.address
    }
}
