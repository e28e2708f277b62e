//! The contract of the watcher.
//!
//! Beside the codes of JSON-RPC its errors are 404 with `data.address`: there is no such host.

use commissaire::{Event, Key};
use serde::{Deserialize, Serialize};

use crate::{record::WatchShard, storage::NoParams};

commissaire::method! {
    /// Looks at a host now, in full.
    pub Check = "watcher.check": CheckParams => Checked
}
commissaire::method! {
    /// What the watcher knows: of all, or of one host.
    pub Status = "watcher.status": NoParams => StatusOutput, idempotent
}

/// Which host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckParams {
    /// Its address.
    pub address: String,
}

/// What came of looking at a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checked {
    /// The host.
    pub address: String,
    /// Whether it is well.
    pub well: bool,
    /// Why not: `refused`, `timed_out`, `host_key` …
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cause: String,
    /// In words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub text: String,
    /// How long it took to answer, in milliseconds.
    pub latency_ms: u64,
    /// Which boot it is in.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub boot_id: String,
    /// What somebody should look at.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// When: UTC, ISO 8601.
    pub at: String,
}

/// How a host fares: in [`HostState::watch`](crate::record::HostState::watch).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Watched {
    /// Whether it is down.
    pub down: bool,
    /// Since when it is as it is.
    pub since: String,
    /// Why it is down.
    pub cause: String,
    /// In words.
    pub text: String,
    /// Its status before it was down: it gets that back.
    pub was: String,
    /// Whether it goes up and down too often to say which.
    pub flapping: bool,
    /// The last changes, the latest first: `2026-11-22T12:00:00.000000 down refused`.
    pub history: Vec<String>,
}

/// How the watcher fares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusOutput {
    /// The instance that answers.
    pub instance: String,
    /// Whether so many hosts turned bad at once that this is more likely our fault than theirs: then no status is written.
    pub braked: bool,
    /// How each share of the hosts fares, at its last heartbeat.
    pub shards: Vec<WatchShard>,
    /// The hosts of the answering instance that are not well.
    pub unwell: Vec<Unwell>,
}

/// A host that is not well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unwell {
    /// The host.
    pub address: String,
    /// Whether it is certain: it failed often enough.
    pub hard: bool,
    /// Why.
    pub cause: String,
}

/// Announced as `notify.watcher.{state}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatcherEvent {
    /// What happened.
    pub state: WatcherState,
    /// The host; empty where it is of many.
    pub address: String,
    /// Why, as [`Checked::cause`].
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cause: String,
    /// In words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub text: String,
    /// When: UTC, ISO 8601.
    pub at: String,
}

/// What the watcher tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WatcherState {
    /// A host is down.
    Down,
    /// It is up again.
    Up,
    /// It goes up and down too often.
    Flapping,
    /// It does so no longer.
    Steady,
    /// It has rebooted, and nobody had planned that.
    Rebooted,
    /// So many turned bad at once that no status is written.
    Braked,
    /// That is over.
    Released,
}

impl WatcherState {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Up => "up",
            Self::Flapping => "flapping",
            Self::Steady => "steady",
            Self::Rebooted => "rebooted",
            Self::Braked => "braked",
            Self::Released => "released",
        }
    }
}

impl Event for WatcherEvent {
    const PATTERN: &'static str = "notify.watcher.*";

    fn key(&self) -> commissaire::Result<Key> {
        Key::new(format!("notify.watcher.{}", self.state.as_str()))
    }
}
