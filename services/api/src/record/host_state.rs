//! `HostState`: what is known of a host beyond its record: facts, and how it fares.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    model::{Field, Kept, Model},
    record::Record,
    watcher::Watched,
};

/// The row of [`HostState`].
pub static HOST_STATE: Model = Model {
    name: "HostState",
    list: Some("HostStates"),
    key: Some("address"),
    fields: &[
        Field::text("address"),
        Field::texts("host_keys"),
        Field::text("machine_id").or(""),
        Field::text("boot_id").or(""),
        Field::object("facts", &[]),
        Field::object("failure", &[]),
        Field::texts("warnings"),
        Field::object("watch", &[]),
    ],
    rules: &[],
    kept: Kept::Plain,
};

/// What is known of a host beyond its record.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct HostState {
    /// The host's address: the key of the record.
    pub address: String,
    /// The host keys that were pinned, as lines of OpenSSH's.
    #[serde(default)]
    pub host_keys: Vec<String>,
    /// Its `/etc/machine-id`.
    #[serde(default)]
    pub machine_id: String,
    /// Which boot it was in when it was last looked at.
    #[serde(default)]
    pub boot_id: String,
    /// What it is, as the investigator found it.
    #[serde(default)]
    pub facts: Map<String, Value>,
    /// Why the last investigation failed, as [`HostFailure`]; empty when it did not.
    #[serde(default)]
    pub failure: Map<String, Value>,
    /// What somebody should look at, although nothing failed.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// How it fares, as the watcher found it: [`Watched`].
    #[serde(default)]
    pub watch: Map<String, Value>,
}

/// Why something on a host failed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostFailure {
    /// Its kind: `refused`, `host_key`, `command` …, see `FailureKind` of the SSH engine; `commissaire` for what is not the
    /// host's fault.
    pub kind: String,
    /// In which step.
    pub step: String,
    /// What was run there, if anything.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub command: String,
    /// How that ended: `exit 1`, `signal KILL`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub exit: String,
    /// The end of what it said.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub tail: String,
    /// In words.
    pub text: String,
    /// When: UTC, ISO 8601.
    pub at: String,
}

impl HostState {
    /// Why the last investigation failed, if it did.
    pub fn failure(&self) -> Option<HostFailure> {
        serde_json::from_value(Value::Object(self.failure.clone())).ok()
    }

    /// How it fares, as the watcher found it.
    pub fn watched(&self) -> Watched {
        serde_json::from_value(Value::Object(self.watch.clone())).unwrap_or_default()
    }
}

impl Record for HostState {
    const MODEL: &'static Model = &HOST_STATE;

    fn key(&self) -> &str {
        &self.address
    }
}
