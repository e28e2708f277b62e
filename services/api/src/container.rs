//! The contract of the container managers' service.
//!
//! Beside the codes of JSON-RPC its errors are:
//!
//! | code | when | `data` |
//! |---|---|---|
//! | −20001 | the container manager refuses, is away, has no such node, or is configured wrongly | [`ManagerFailure`] |
//! | 404 | there is no such container manager | `container_manager_name` |
//! | 409 | another drain of the node is under way; other nodes are registered than was said | `operation`; `registered` |
//!
//! The five calls of the first Commissaire answer what they answered there. With `extended` they tell more. All may be
//! made again: what is so already is well.

use commissaire::{Event, Key};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::record::DrainProgress;

commissaire::method! {
    /// Whether a node is registered; error −20001 when it is not.
    pub NodeRegistered = "container.node_registered": NodeParams => (), idempotent
}
commissaire::method! {
    /// Registers a node. One that is there already is left as it is, whoever has registered it.
    pub RegisterNode = "container.register_node": NodeParams => Option<Changed>, idempotent
}
commissaire::method! {
    /// Removes a node, whoever has registered it.
    pub RemoveNode = "container.remove_node": NodeParams => Option<Changed>, idempotent
}
commissaire::method! {
    /// Removes all nodes that this system has registered, and no other.
    pub RemoveAllNodes = "container.remove_all_nodes": RemoveAllParams => Option<Removed>, idempotent
}
commissaire::method! {
    /// What the container manager says of a node, as it says it; error −20001 when it is not registered.
    pub GetNodeStatus = "container.get_node_status": NodeParams => Value, idempotent
}
commissaire::method! {
    /// All nodes, sorted by name.
    pub Nodes = "container.nodes": ManagerParams => Vec<Node>, idempotent
}
commissaire::method! {
    /// Lets nothing new come to a node, in the name of an operation. What somebody else has cordoned stays his.
    pub Cordon = "container.cordon": CordonParams => Cordoned, idempotent
}
commissaire::method! {
    /// Lifts the cordon of an operation. That of another, or of a person, stays.
    pub Uncordon = "container.uncordon": CordonParams => Cordoned, idempotent
}
commissaire::method! {
    /// Cordons a node and has all leave that may; answers when that is done. Whoever stops waiting does not stop the work,
    /// and whoever asks for the same again joins it. When it fails the cordon stays: its operation lifts it.
    pub Drain = "container.drain": DrainParams => Drained, idempotent
}
commissaire::method! {
    /// Waits until a node is ready.
    pub WaitReady = "container.wait_ready": WaitReadyParams => Ready, idempotent
}

/// Which node, with which container manager.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeParams {
    /// The name of the container manager's configuration.
    pub container_manager_name: String,
    /// The host's address, which is the node's name.
    pub address: String,
    /// Whether to tell what was changed, where the first Commissaire answered nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub extended: bool,
}

/// Which container manager.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManagerParams {
    /// The name of its configuration.
    pub container_manager_name: String,
}

/// The nodes of which container manager to remove.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoveAllParams {
    /// The name of its configuration.
    pub container_manager_name: String,
    /// Whether to tell how many were removed and left.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub extended: bool,
    /// How many are ours: nothing is removed when these are others, error 409.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<usize>,
}

/// Whether something was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// `false`: it was so already.
    pub changed: bool,
}

/// How many nodes were removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    /// Whether there were any.
    pub changed: bool,
    /// How many were removed.
    pub removed: usize,
    /// How many others there are: this system has not registered them.
    pub left: usize,
}

/// A node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Whether this system has registered it.
    pub ours: bool,
    /// Whether it can be used.
    pub ready: bool,
    /// Since when that is so, as the container manager writes it.
    pub ready_since: String,
    /// Whether nothing new comes to it.
    pub cordoned: bool,
    /// The operation that has cordoned it; empty: somebody else has.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cordoned_by: String,
    /// What the container manager thinks of it.
    pub conditions: Vec<Condition>,
    /// The version of its kubelet.
    pub version: String,
    /// Its operating system.
    pub os: String,
    /// Which boot it is in, as its kubelet says.
    pub boot_id: String,
}

/// What a container manager thinks of a node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Condition {
    /// Of what it is, `DiskPressure`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// Why, in a word.
    pub reason: String,
    /// Why, in a sentence.
    pub message: String,
    /// Since when, as the container manager writes it.
    pub since: String,
}

/// Which node to cordon, and for whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CordonParams {
    /// The name of the container manager's configuration.
    pub container_manager_name: String,
    /// The node's name.
    pub address: String,
    /// Who owns the cordon, 1 to 200 bytes: only the same lifts it.
    pub operation: String,
}

/// How a node is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cordoned {
    /// Whether that was changed now.
    pub changed: bool,
    /// Whether it is cordoned now.
    pub cordoned: bool,
    /// The operation whose cordon it is; empty: that of somebody else.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cordoned_by: String,
}

/// Which node to drain, and how far to go.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrainParams {
    /// The name of the container manager's configuration.
    pub container_manager_name: String,
    /// The node's name.
    pub address: String,
    /// Who owns the cordon and the drain, 1 to 200 bytes.
    pub operation: String,
    /// How long it may take, in seconds from when it is asked for; 10 minutes if nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_seconds: Option<u32>,
    /// How long a pod may take to end, in seconds; what each says itself if nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_seconds: Option<u32>,
    /// Whether pods may be evicted that lose what they keep in an `emptyDir`; else such a pod is a failure.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub delete_empty_dir: bool,
    /// Whether pods may be evicted that nobody makes anew; else such a pod is a failure.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
    /// Whether pods that are still there at the deadline are deleted, whatever their disruption budget says. They get a
    /// minute to go.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub delete_at_deadline: bool,
    /// Whether to answer as soon as it is written down, and not when it is done.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_wait: bool,
}

/// How far a drain is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drained {
    /// Which run it is.
    pub run: String,
    /// `requested`, `in_process` or `finished`; one that failed is an error.
    pub status: String,
    /// What was done.
    pub progress: DrainProgress,
}

/// Which node to wait for, and how long.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WaitReadyParams {
    /// The name of the container manager's configuration.
    pub container_manager_name: String,
    /// The node's name.
    pub address: String,
    /// How long it must have been ready without a break, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_healthy_seconds: Option<u32>,
    /// The boot that it was in: it must be ready in another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other_boot_than: Option<String>,
    /// How long to wait, in seconds; 10 minutes if nothing is said, and never longer than the call's deadline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<u32>,
}

/// A node that is ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// Which boot it is in; empty where the container manager knows no boots.
    pub boot_id: String,
    /// For how long it was seen ready, in seconds.
    pub healthy_seconds: u64,
}

/// What is wrong with a container manager, or with what was asked of it: the `data` of error −20001.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ManagerFailure {
    /// Its kind.
    pub kind: FailureKind,
    /// The container manager's name.
    pub container_manager_name: String,
    /// The status of its API server's answer, if there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The reason in that answer, `Forbidden`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// In words.
    pub text: String,
    /// Whether what was asked may have been done.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub maybe_executed: bool,
    /// Of a drain: what stands in its way, pod by pod.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub blockers: Vec<Blocker>,
}

/// What kind of failure.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The API server refused; see its status and reason.
    #[default]
    Refused,
    /// There is no such node.
    NotRegistered,
    /// It does not know who we are: the token or certificate is wrong or has expired.
    Unauthorized,
    /// It knows who we are, and does not let us.
    Forbidden,
    /// It is not who it should be, or does not believe who we are: certificates.
    Tls,
    /// It cannot be reached, or does not answer.
    Unreachable,
    /// Its configuration cannot be used.
    Config,
    /// A node was not drained.
    Drain,
    /// A node was not ready in time.
    NotReady,
}

/// A pod that stands in the way of a drain.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blocker {
    /// The pod: `namespace/name`.
    pub pod: String,
    /// Why it is still there.
    pub why: String,
}

/// Announced as `notify.containermgr.{state}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerEvent {
    /// What happened.
    pub state: ContainerState,
    /// The container manager.
    pub container_manager_name: String,
    /// The node.
    pub address: String,
    /// The operation that it belongs to, of cordons and drains.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub operation: String,
    /// Of a drain: its run.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub run: String,
    /// Counts the events of one attempt of a drain, from 1.
    #[serde(default)]
    pub seq: u64,
    /// The pod: `namespace/name`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub pod: String,
    /// What there is to say.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub text: String,
}

/// What happened to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContainerState {
    /// It was registered.
    Registered,
    /// It was removed.
    Removed,
    /// It was cordoned.
    Cordoned,
    /// Its cordon was lifted.
    Uncordoned,
    /// A drain was begun, or taken up.
    Draining,
    /// A pod was told to leave.
    Evicted,
    /// A pod may not leave yet; `text` says why.
    Blocked,
    /// A pod has left.
    Gone,
    /// The drain is over.
    Drained,
    /// The drain failed.
    Failed,
}

impl ContainerState {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Registered => "registered",
            Self::Removed => "removed",
            Self::Cordoned => "cordoned",
            Self::Uncordoned => "uncordoned",
            Self::Draining => "draining",
            Self::Evicted => "evicted",
            Self::Blocked => "blocked",
            Self::Gone => "gone",
            Self::Drained => "drained",
            Self::Failed => "failed",
        }
    }
}

impl Event for ContainerEvent {
    const PATTERN: &'static str = "notify.containermgr.*";

    fn key(&self) -> commissaire::Result<Key> {
        Key::new(format!("notify.containermgr.{}", self.state.as_str()))
    }
}
