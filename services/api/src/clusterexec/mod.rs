//! The contract of clusterexec: operations over all hosts of a cluster.
//!
//! Beside the codes of JSON-RPC its errors are:
//!
//! | code | when | `data` |
//! |---|---|---|
//! | 404 | there is no such cluster, or it has had no operation | `cluster_name` |
//! | 409 | another operation of the cluster is under way | `cluster_name`, `operation`, `kind` |

mod options;

use commissaire::{Event, Key};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::record::{ClusterDeploy, ClusterRestart, ClusterUpgrade, Operation, OperationHost};
pub use options::{Amount, DrainOptions, Gates, OnFailure, Options, Order};

commissaire::method! {
    /// Brings all hosts of a cluster up to date, and reboots those that need it. Answers at once; the work goes on.
    pub Upgrade = "jobs.clusterexec.upgrade": ClusterParams => ClusterUpgrade
}
commissaire::job! {
    /// The same, with nobody waiting.
    pub UpgradeJob = "jobs.clusterexec.upgrade": ClusterParams
}
commissaire::method! {
    /// Reboots all hosts of a cluster. Answers at once; the work goes on.
    pub Restart = "jobs.clusterexec.restart": ClusterParams => ClusterRestart
}
commissaire::job! {
    /// The same, with nobody waiting.
    pub RestartJob = "jobs.clusterexec.restart": ClusterParams
}
commissaire::method! {
    /// Brings all hosts of a cluster to a version. Answers at once; the work goes on.
    pub Deploy = "jobs.clusterexec.deploy": DeployParams => ClusterDeploy
}
commissaire::job! {
    /// The same, with nobody waiting.
    pub DeployJob = "jobs.clusterexec.deploy": DeployParams
}
commissaire::method! {
    /// What an operation would do, host by host; nothing is done.
    pub Plan = "clusterexec.plan": PlanParams => Planned, idempotent
}
commissaire::method! {
    /// The last operation of a cluster, and what became of each host.
    pub GetOperation = "clusterexec.operation": NameParams => Told, idempotent
}
commissaire::method! {
    /// What happened in the last operation of a cluster, from a number on.
    pub Events = "clusterexec.events": EventsParams => EventsOutput, idempotent
}
commissaire::method! {
    /// Begins with no more hosts until somebody resumes; those that were begun are finished.
    pub Pause = "clusterexec.pause": NameParams => Operation, idempotent
}
commissaire::method! {
    /// Goes on.
    pub Resume = "clusterexec.resume": NameParams => Operation, idempotent
}
commissaire::method! {
    /// Ends the operation: with the hosts that were begun, or with `now` without waiting for them.
    pub Cancel = "clusterexec.cancel": CancelParams => Operation, idempotent
}

/// Over which cluster, and how.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterParams {
    /// The cluster.
    pub cluster_name: String,
    /// Members of [`Options`]; those that are not said are as the service is configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub options: Option<Map<String, Value>>,
}

/// Over which cluster, to which version, and how.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeployParams {
    /// The cluster.
    pub cluster_name: String,
    /// The version, or the image; not empty.
    pub version: String,
    /// Members of [`Options`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub options: Option<Map<String, Value>>,
}

/// What to plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanParams {
    /// The cluster.
    pub cluster_name: String,
    /// The operation.
    pub kind: OperationKind,
    /// Of a deployment: the version.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// Members of [`Options`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub options: Option<Map<String, Value>>,
}

/// Which cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NameParams {
    /// Its name.
    pub cluster_name: String,
}

/// Which operation to end, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CancelParams {
    /// The cluster.
    pub cluster_name: String,
    /// Whether not to wait for the hosts that were begun. A command that runs on one goes on there to its end.
    #[serde(default)]
    pub now: bool,
}

/// Which events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventsParams {
    /// The cluster.
    pub cluster_name: String,
    /// Those with a greater number.
    #[serde(default)]
    pub since: u64,
}

/// What happened.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct EventsOutput {
    /// The operation.
    pub operation: String,
    /// In their order.
    pub events: Vec<ClusterexecEvent>,
    /// Whether the operation is over: nothing more will happen.
    pub over: bool,
}

/// The last operation of a cluster.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Told {
    /// Its journal.
    pub operation: Operation,
    /// Its hosts, in their order.
    pub hosts: Vec<OperationHost>,
}

/// What an operation would do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Planned {
    /// How, with all defaults.
    pub options: Options,
    /// To which hosts, in their order.
    pub hosts: Vec<PlannedHost>,
}

/// What an operation would do to a host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedHost {
    /// Its address.
    pub address: String,
    /// The row of the OS table that it is treated by, as far as it was investigated.
    pub os: String,
    /// What is run there, in its order.
    pub steps: Vec<String>,
    /// Why nothing can be done to it; empty: something can.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub impossible: String,
}

/// What is done to each host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperationKind {
    /// It is brought up to date.
    Upgrade,
    /// It is rebooted.
    Restart,
    /// It is brought to a version.
    Deploy,
}

/// What somebody wants of an operation that is under way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Control {
    /// That it goes on.
    #[default]
    Run,
    /// That it begins with no more hosts for now.
    Pause,
    /// That it ends with the hosts that were begun.
    Cancel,
    /// That it ends.
    CancelNow,
}

/// Announced as `notify.clusterexec.{kind}.{state}` while an operation is under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterexecEvent {
    /// The operation.
    pub kind: OperationKind,
    /// What is now: of a host one of [`HostStage`](crate::record::HostStage), of the operation `started`, `paused`,
    /// `resumed`, `waiting`, `finished`, `failed`, `cancelled`.
    pub state: String,
    /// The cluster.
    pub cluster: String,
    /// The operation's run.
    pub operation: String,
    /// Counts the events of one operation, from 1.
    pub seq: u64,
    /// The host; empty: the operation as a whole.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub address: String,
    /// What there is to say.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub text: String,
    /// When: UTC, ISO 8601.
    pub at: String,
}

impl OperationKind {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Upgrade => "upgrade",
            Self::Restart => "restart",
            Self::Deploy => "deploy",
        }
    }
}

impl Event for ClusterexecEvent {
    const PATTERN: &'static str = "notify.clusterexec.*.*";

    fn key(&self) -> commissaire::Result<Key> {
        Key::new(format!("notify.clusterexec.{}.{}", self.kind.as_str(), self.state))
    }
}
