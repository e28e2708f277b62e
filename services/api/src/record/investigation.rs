//! `Investigation`: the journal of the last investigation of a host, so that another instance can go on with it.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    client::{Entry, Journalled},
    investigator::InvestigateParams,
    model::{Field, Kept, Model, Rule},
    record::{FAILED, FINISHED, HostFailure, Record},
};

/// The row of [`Investigation`].
pub static INVESTIGATION: Model = Model {
    name: "Investigation",
    list: Some("Investigations"),
    key: Some("address"),
    fields: &[
        Field::text("address"),
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

/// The journal of the last investigation of a host.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Investigation {
    /// The host's address: the key of the record.
    pub address: String,
    /// Which run this is.
    #[serde(default)]
    pub run: String,
    /// How far it is: `requested`, `in_process`, `finished`, `failed`.
    #[serde(default = "super::requested")]
    pub status: String,
    /// The instance that works on it, or did.
    #[serde(default)]
    pub holder: String,
    /// What was asked for: [`InvestigateParams`](crate::investigator::InvestigateParams).
    #[serde(default)]
    pub wanted: Map<String, Value>,
    /// What was done: [`Progress`].
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

/// What was done of an investigation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Progress {
    /// How often it was begun, or taken up after its instance had died.
    pub attempts: u32,
    /// Which kind of operating system it is treated as: a row of the OS table.
    pub os: String,
    /// The steps in their order.
    pub steps: Vec<Step>,
    /// Whether anything on the host was changed, or would be.
    pub changed: bool,
    /// The steps whose service is to be started anew, because something on which it rests was changed or may have been. Kept
    /// from run to run, until that is done.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub due: Vec<String>,
    /// Why it failed, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<HostFailure>,
}

/// One step of bringing a host in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Its name.
    pub name: String,
    /// How far it is.
    pub state: StepState,
}

/// How far a step is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepState {
    /// Not begun.
    Pending,
    /// Begun.
    Running,
    /// Nothing was to be done.
    Unchanged,
    /// Done.
    Changed,
    /// It would change something; this was a dry run.
    WouldChange,
    /// It failed.
    Failed,
}

impl Investigation {
    /// Whether it is over.
    pub fn is_over(&self) -> bool {
        [FINISHED, FAILED].contains(&self.status.as_str())
    }

    /// What was done.
    pub fn progress(&self) -> Progress {
        serde_json::from_value(Value::Object(self.progress.clone())).unwrap_or_default()
    }
}

impl StepState {
    /// Whether the step need not be run again.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Unchanged | Self::Changed | Self::WouldChange)
    }
}

impl Journalled for Investigation {
    type Wanted = InvestigateParams;
    type Progress = Progress;

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

    fn begun(progress: &mut Progress) {
        progress.attempts += 1;
    }
}

impl Record for Investigation {
    const MODEL: &'static Model = &INVESTIGATION;

    fn key(&self) -> &str {
        &self.address
    }
}
