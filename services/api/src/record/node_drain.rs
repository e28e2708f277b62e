//! `NodeDrain`: the journal of the last drain of a node, so that another instance can go on with it.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    client::{Entry, Journalled},
    container::{DrainParams, ManagerFailure},
    model::{Field, Kept, Model, Rule},
    record::{FAILED, FINISHED, Record},
};

/// The row of [`NodeDrain`].
pub static NODE_DRAIN: Model = Model {
    name: "NodeDrain",
    list: Some("NodeDrains"),
    key: Some("node"),
    fields: &[
        Field::text("node"),
        Field::text("run").or(""),
        Field::text("status").or("requested"),
        Field::text("holder").or(""),
        Field::object("wanted", &[]),
        Field::object("progress", &[]),
        Field::text("requested_at").or(""),
        Field::text("started_at").or(""),
        Field::text("finished_at").or(""),
    ],
    rules: &[Rule::OneOf("status", &["requested", "in_process", "finished", "failed"])],
    kept: Kept::Plain,
};

/// The journal of the last drain of a node.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeDrain {
    /// The node: `ADDRESS@MANAGER`, the key of the record. No address holds an `@`.
    pub node: String,
    /// Which run this is.
    #[serde(default)]
    pub run: String,
    /// How far it is: `requested`, `in_process`, `finished`, `failed`.
    #[serde(default = "super::requested")]
    pub status: String,
    /// The instance that works on it, or did.
    #[serde(default)]
    pub holder: String,
    /// What was asked for: [`DrainParams`].
    #[serde(default)]
    pub wanted: Map<String, Value>,
    /// What was done: [`DrainProgress`].
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

/// What was done of a drain. What is left to do the container manager knows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DrainProgress {
    /// How often it was begun, or taken up after its instance had died.
    pub attempts: u32,
    /// When it must be over, in seconds since 1970.
    pub until: u64,
    /// Whose the cordon is: empty where a person's was there before.
    pub cordoned_by: String,
    /// The pods that were told to leave: `namespace/name`.
    pub evicted: Vec<String>,
    /// The pods that stay, and why that is well: of daemon sets, and of the node itself.
    pub kept: Vec<String>,
    /// Why it failed, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<ManagerFailure>,
}

impl Journalled for NodeDrain {
    type Wanted = DrainParams;
    type Progress = DrainProgress;

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

    fn begun(progress: &mut DrainProgress) {
        progress.attempts += 1;
    }
}

impl NodeDrain {
    /// The journal of a node that has none yet.
    pub fn of(manager: &str, address: &str) -> Self {
        Self { node: format!("{address}@{manager}"), ..Self::default() }
    }

    /// Whether it is over.
    pub fn is_over(&self) -> bool {
        [FINISHED, FAILED].contains(&self.status.as_str())
    }

    /// What was done.
    pub fn progress(&self) -> DrainProgress {
        serde_json::from_value(Value::Object(self.progress.clone())).unwrap_or_default()
    }
}

impl Record for NodeDrain {
    const MODEL: &'static Model = &NODE_DRAIN;

    fn key(&self) -> &str {
        &self.node
    }
}
