//! `Operation`: the journal of the last operation over the hosts of a cluster, so that another instance can go on with it.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    client::{Entry, Journalled},
    clusterexec::{Control, OperationKind, Options},
    model::{Field, Kept, Model, Rule},
    record::{FAILED, FINISHED, Record, Transition},
};

/// The row of [`Operation`].
pub static OPERATION: Model = Model {
    name: "Operation",
    list: Some("Operations"),
    key: Some("cluster"),
    fields: &[
        Field::text("cluster"),
        Field::text("run").or(""),
        Field::text("status").or("requested"),
        Field::text("control").or("run"),
        Field::text("holder").or(""),
        Field::object("wanted", &[]),
        Field::object("progress", &[]),
        Field::text("requested_at").or(""),
        Field::text("started_at").or(""),
        Field::text("finished_at").or(""),
    ],
    rules: &[
        Rule::OneOf("status", &["requested", "in_process", "finished", "failed", "cancelled"]),
        Rule::OneOf("control", &["run", "pause", "cancel", "cancel_now"]),
    ],
    kept: Kept::Plain,
};

/// The status of an operation that begins with no host until somebody lets it go on.
pub const PAUSED: &str = "paused";
/// The status of an operation that somebody has ended.
pub const CANCELLED: &str = "cancelled";

/// The journal of the last operation of a cluster: one at a time, by being one record. What becomes of each host is in
/// [`OperationHost`](crate::OperationHost).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Operation {
    /// The cluster's name: the key.
    pub cluster: String,
    /// Which operation this is.
    #[serde(default)]
    pub run: String,
    /// How far it is: `requested`, `in_process`, `finished`, `failed`, `cancelled`.
    #[serde(default = "super::requested")]
    pub status: String,
    /// What somebody wants of it meanwhile.
    #[serde(default)]
    pub control: Control,
    /// The instance that works on it, or did.
    #[serde(default)]
    pub holder: String,
    /// What was asked for: [`OperationWanted`].
    #[serde(default)]
    pub wanted: Map<String, Value>,
    /// What was done: [`OperationProgress`].
    #[serde(default)]
    pub progress: Map<String, Value>,
    /// When it was asked for.
    #[serde(default)]
    pub requested_at: String,
    /// When it was begun.
    #[serde(default)]
    pub started_at: String,
    /// When it was over.
    #[serde(default)]
    pub finished_at: String,
}

/// What was asked for, and by whom.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OperationWanted {
    /// What is done to each host.
    pub kind: OperationKind,
    /// Of a deployment: the version.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// How.
    pub options: Options,
    /// Who asked, as the bus knows him.
    pub actor: String,
}

/// What was done of an operation.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct OperationProgress {
    /// How often it was begun, or taken up after its instance had died.
    pub attempts: u32,
    /// How many hosts it is over; nothing until each has its record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hosts: Option<usize>,
    /// What happened to it as a whole. What happened to hosts is in their records.
    pub history: Vec<Transition>,
    /// Why it ended before all hosts were done, if it did.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub text: String,
}

impl Operation {
    /// Whether it is over.
    pub fn is_over(&self) -> bool {
        [FINISHED, FAILED, CANCELLED].contains(&self.status.as_str())
    }

    /// What was done.
    pub fn progress(&self) -> OperationProgress {
        serde_json::from_value(Value::Object(self.progress.clone())).unwrap_or_default()
    }

    /// What was asked for, if it can be read.
    pub fn wanted(&self) -> Option<OperationWanted> {
        serde_json::from_value(Value::Object(self.wanted.clone())).ok()
    }
}

impl Journalled for Operation {
    type Wanted = OperationWanted;
    type Progress = OperationProgress;

    fn entry(&mut self) -> Entry<'_> {
        Entry {
            run: &mut self.run,
            status: &mut self.status,
            holder: &mut self.holder,
            wanted: &mut self.wanted,
            progress: &mut self.progress,
            requested_at: &mut self.requested_at,
            started_at: &mut self.started_at,
            finished_at: &mut self.finished_at,
        }
    }

    fn begun(progress: &mut OperationProgress) {
        progress.attempts += 1;
    }
}

impl Record for Operation {
    const MODEL: &'static Model = &OPERATION;

    fn key(&self) -> &str {
        &self.cluster
    }
}
