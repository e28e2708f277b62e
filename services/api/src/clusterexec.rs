//! The contract of clusterexec: operations over all hosts of a cluster.
//!
//! Beside the codes of JSON-RPC its errors are:
//!
//! | code | when | `data` |
//! |---|---|---|
//! | 404 | there is no such cluster, or it has had no operation | `cluster_name` |
//! | 409 | another operation of the cluster is under way | `cluster_name`, `operation`, `kind` |

use commissaire::{Event, Key};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::record::{ClusterDeploy, ClusterRestart, ClusterUpgrade, Operation, OperationHost};

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

/// How an operation goes over the hosts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// How many hosts are at work at one time, 1 at least. A host that was told to reboot and is not back counts.
    pub max_concurrent: Amount,
    /// How many are at work at one time in the beginning: `[1, 5, "25%"]` is one host, then five, then a quarter of them
    /// all; each number holds until so many more hosts are done, then `max_concurrent` holds. Never more than that.
    pub ramp: Vec<Amount>,
    /// How many hosts may fail: with one more the operation stops.
    pub max_failed: Amount,
    /// How many hosts of the cluster must be available at all times, whatever the others are away for.
    pub min_available: Amount,
    /// In which order.
    pub order: Order,
    /// What happens to the hosts that were begun when the operation stops for its failures.
    pub on_failure: OnFailure,
    /// When hosts may be begun: `Mon-Fri 22:00-04:00`, in UTC; always, if there is none. One that was begun is finished.
    pub windows: Vec<String>,
    /// Only those hosts with which the last operation of the cluster was not done.
    pub failed_only: bool,
    /// Whether a host that is not well afterwards is taken back to what it was before, where its system can.
    pub rollback: bool,
    /// How long a host may take to be back from a reboot, in seconds.
    pub reboot_seconds: u32,
    /// How long its command may take, in seconds.
    pub step_seconds: u32,
    /// What must hold of a host afterwards.
    pub gates: Gates,
    /// How a node is drained before.
    pub drain: DrainOptions,
}

/// What must hold of a host before the next one is begun in its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Gates {
    /// How long it may take until all of them hold, in seconds.
    pub seconds: u32,
    /// Whether a system in which a unit has failed is good enough.
    pub degraded: bool,
    /// Units that must run.
    pub units: Vec<String>,
    /// A command of `sh` that must end with 0 there, as root.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// How long its node must have been ready without a break, in seconds.
    pub min_healthy_seconds: u32,
}

/// How a node is drained.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DrainOptions {
    /// How long it may take, in seconds.
    pub seconds: u32,
    /// Whether pods may lose what they keep in an `emptyDir`.
    pub delete_empty_dir: bool,
    /// Whether pods may go that nobody makes anew.
    pub force: bool,
    /// Whether pods that are still there in the end are deleted, whatever their disruption budget says.
    pub delete_at_deadline: bool,
}

/// A number of hosts, or a part of them: `3`, `"25%"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Amount {
    /// So many.
    Hosts(u32),
    /// So many of a hundred.
    #[serde(with = "percent")]
    Percent(u32),
}

/// In which order hosts are begun.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// As the cluster lists them.
    #[default]
    Listed,
    /// The last one first.
    Reverse,
}

/// What happens to the hosts that were begun when an operation stops for its failures.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// They are finished.
    #[default]
    FinishRunning,
    /// Those that were not told to reboot yet are left as they are.
    Stop,
    /// The operation does not stop.
    Continue,
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

impl Amount {
    /// How many of `all` that is, a part of a host left out.
    pub fn of(self, all: usize) -> usize {
        match self {
            Self::Hosts(hosts) => hosts as usize,
            Self::Percent(percent) => all * percent as usize / 100,
        }
    }

    /// How many of `all` that is, a part of a host counted as one.
    pub fn of_at_least(self, all: usize) -> usize {
        match self {
            Self::Hosts(hosts) => hosts as usize,
            Self::Percent(percent) => (all * percent as usize).div_ceil(100),
        }
    }
}

/// `25%`.
mod percent {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(percent: &u32, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&format!("{percent}%"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
        let text = String::deserialize(from)?;
        let number = text.strip_suffix('%').and_then(|number| number.trim().parse().ok());
        number.filter(|percent| *percent <= 100).ok_or_else(|| D::Error::custom("a part is 0% to 100%"))
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_concurrent: Amount::Hosts(1),
            ramp: Vec::new(),
            max_failed: Amount::Hosts(0),
            min_available: Amount::Hosts(0),
            order: Order::default(),
            on_failure: OnFailure::default(),
            windows: Vec::new(),
            failed_only: false,
            rollback: false,
            reboot_seconds: 600,
            step_seconds: 3600,
            gates: Gates::default(),
            drain: DrainOptions::default(),
        }
    }
}

impl Default for Gates {
    fn default() -> Self {
        Self { seconds: 300, degraded: true, units: Vec::new(), command: None, min_healthy_seconds: 10 }
    }
}

impl Default for DrainOptions {
    fn default() -> Self {
        Self { seconds: 600, delete_empty_dir: false, force: false, delete_at_deadline: false }
    }
}

impl Event for ClusterexecEvent {
    const PATTERN: &'static str = "notify.clusterexec.*.*";

    fn key(&self) -> commissaire::Result<Key> {
        Key::new(format!("notify.clusterexec.{}.{}", self.kind.as_str(), self.state))
    }
}
