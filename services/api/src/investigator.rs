//! The contract of the investigator.
//!
//! Beside the codes of JSON-RPC its errors are:
//!
//! | code | when | `data` |
//! |---|---|---|
//! | 404 | there is no such host | `address` |
//! | [−20003](INVESTIGATION_FAILED) | the investigation failed | [`HostFailure`](crate::record::HostFailure) |

use commissaire::{Event, Key};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::record::Host;

/// The code of "the investigation failed".
pub const INVESTIGATION_FAILED: i64 = -20003;

commissaire::method! {
    /// Looks a host over and brings it in order; answers its record when that is done. Whoever stops waiting does not stop
    /// the work. One that is under way already is joined.
    pub Investigate = "jobs.investigate": InvestigateParams => Host
}
commissaire::job! {
    /// The same, with nobody waiting.
    pub InvestigateJob = "jobs.investigate": InvestigateParams
}

/// What to look over, and how far to go.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InvestigateParams {
    /// The host's address.
    pub address: String,
    /// The record of its cluster; without, the cluster that lists it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_data: Option<Map<String, Value>>,
    /// Gather facts only, and change nothing on the host.
    #[serde(default)]
    pub facts_only: bool,
    /// Tell which steps would change something, and change nothing, neither on the host nor of its status.
    #[serde(default)]
    pub dry_run: bool,
    /// Take whatever key the host shows, and pin that.
    #[serde(default)]
    pub trust_new_key: bool,
}

/// Announced as `notify.investigator.{state}` while a host is investigated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InvestigatorEvent {
    /// How far it is.
    pub state: InvestigatorState,
    /// The host.
    pub address: String,
    /// The run.
    pub run: String,
    /// Counts the events of one attempt of a run, from 1.
    pub seq: u64,
    /// Of a step: its name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub step: String,
    /// What there is to say.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub text: String,
}

/// How far an investigation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InvestigatorState {
    /// It was begun, or taken up.
    Started,
    /// The facts are known.
    Facts,
    /// A step is over: `text` is `changed`, `unchanged` or `would_change`.
    Step,
    /// It is over.
    Finished,
    /// It failed.
    Failed,
}

impl InvestigatorState {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Facts => "facts",
            Self::Step => "step",
            Self::Finished => "finished",
            Self::Failed => "failed",
        }
    }
}

impl Event for InvestigatorEvent {
    const PATTERN: &'static str = "notify.investigator.*";

    fn key(&self) -> commissaire::Result<Key> {
        Key::new(format!("notify.investigator.{}", self.state.as_str()))
    }
}
