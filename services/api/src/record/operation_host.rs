//! `OperationHost`: what became of one host in the last operation of its cluster.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    model::{Field, Kept, Model},
    record::{HostFailure, Record},
};

/// The row of [`OperationHost`].
pub static OPERATION_HOST: Model = Model {
    name: "OperationHost",
    list: Some("OperationHosts"),
    key: Some("host"),
    fields: &[
        Field::text("host"),
        Field::text("cluster").or(""),
        Field::text("address").or(""),
        Field::text("run").or(""),
        Field::text("holder").or(""),
        Field::text("stage").or("pending"),
        Field::object("progress", &[]),
    ],
    rules: &[],
    kept: Kept::Plain,
};

/// What became of one host in the last operation of its cluster.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct OperationHost {
    /// The key: `ADDRESS@CLUSTER`. No address holds an `@`.
    pub host: String,
    /// The cluster.
    #[serde(default)]
    pub cluster: String,
    /// The host's address.
    #[serde(default)]
    pub address: String,
    /// Of which operation this tells.
    #[serde(default)]
    pub run: String,
    /// The instance that works on the operation, or did.
    #[serde(default)]
    pub holder: String,
    /// How far the host is.
    #[serde(default)]
    pub stage: HostStage,
    /// What was done there: [`HostProgress`].
    #[serde(default)]
    pub progress: Map<String, Value>,
}

/// How far a host is. Each stage is written down before what it is about is begun.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HostStage {
    /// Not begun.
    #[default]
    Pending,
    /// Nothing new comes to it.
    Cordoned,
    /// What is on it leaves.
    Draining,
    /// The command runs.
    Running,
    /// It reboots.
    Rebooting,
    /// It is looked whether it is well.
    Verifying,
    /// It is done.
    Done,
    /// Something failed.
    Failed,
    /// Nothing was done: the operation ended before.
    Skipped,
    /// It could not be reached, and nothing was done.
    Unreachable,
}

/// What was done to a host.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HostProgress {
    /// Its place in the order, from 0.
    pub place: usize,
    /// How often it was begun, or taken up after its instance had died.
    pub attempts: u32,
    /// Which boot it was in before.
    pub boot_before: String,
    /// Which boot it was in after.
    pub boot_after: String,
    /// Whether the operation has cordoned it, and not lifted that.
    pub cordoned: bool,
    /// Whether it was told to reboot and is not back: its place is not given to another host.
    pub away: bool,
    /// The commands that ran there.
    pub commands: Vec<Ran>,
    /// Why it failed, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<HostFailure>,
    /// What happened, in its order.
    pub history: Vec<Transition>,
}

/// A command that ran on a host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ran {
    /// The command.
    pub command: String,
    /// How it ended: `exit 0`.
    pub exit: String,
    /// The end of what it said.
    pub tail: String,
    /// When it had ended: UTC, ISO 8601.
    pub at: String,
}

/// Something that happened in an operation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transition {
    /// Counts what happened in one operation, from 1.
    pub seq: u64,
    /// What it is now: a stage of a host, or a state of the operation.
    pub state: String,
    /// What there is to say.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub text: String,
    /// When: UTC, ISO 8601.
    pub at: String,
}

impl HostStage {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Cordoned => "cordoned",
            Self::Draining => "draining",
            Self::Running => "running",
            Self::Rebooting => "rebooting",
            Self::Verifying => "verifying",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
            Self::Unreachable => "unreachable",
        }
    }

    /// Whether nothing more happens to the host.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Skipped | Self::Unreachable)
    }

    /// Whether it counts as failed.
    pub fn is_failure(self) -> bool {
        matches!(self, Self::Failed | Self::Unreachable)
    }
}

impl OperationHost {
    /// That of a host to which nothing has happened.
    pub fn of(cluster: &str, address: &str) -> Self {
        Self {
            host: format!("{address}@{cluster}"),
            cluster: cluster.to_owned(),
            address: address.to_owned(),
            ..Self::default()
        }
    }

    /// What was done.
    pub fn progress(&self) -> HostProgress {
        serde_json::from_value(Value::Object(self.progress.clone())).unwrap_or_default()
    }
}

impl Record for OperationHost {
    const MODEL: &'static Model = &OPERATION_HOST;

    fn key(&self) -> &str {
        &self.host
    }
}
