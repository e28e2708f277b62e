//! The records: a type each, beside its row in the table of models.

use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use crate::model::Model;

mod cluster;
mod cluster_deploy;
mod cluster_restart;
mod cluster_upgrade;
mod container_manager_config;
mod host;
mod host_creds;
mod host_state;
mod host_status;
mod investigation;
mod network;
mod node_drain;
mod operation;
mod operation_host;
mod watch_shard;
mod watcher_record;

pub use cluster::{CLUSTER, Cluster};
pub use cluster_deploy::{CLUSTER_DEPLOY, ClusterDeploy};
pub use cluster_restart::{CLUSTER_RESTART, ClusterRestart};
pub use cluster_upgrade::{CLUSTER_UPGRADE, ClusterUpgrade};
pub use container_manager_config::{
    CONTAINER_MANAGER_CONFIG, CONTAINER_MANAGER_OPTIONS, ContainerManagerConfig, ContainerManagerKind,
};
pub use host::{HOST, Host};
pub use host_creds::{HOST_CREDS, HostCreds};
pub use host_state::{HOST_STATE, HostFailure, HostState};
pub use host_status::{HOST_STATUS, HostStatus};
pub use investigation::{INVESTIGATION, Investigation, Progress, Step, StepState};
pub use network::{NETWORK, Network, NetworkKind};
pub use node_drain::{DrainProgress, NODE_DRAIN, NodeDrain};
pub use operation::{CANCELLED, OPERATION, Operation, OperationProgress, OperationWanted, PAUSED};
pub use operation_host::{HostProgress, HostStage, OPERATION_HOST, OperationHost, Ran, Transition};
pub use watch_shard::{WATCH_SHARD, WatchShard};
pub use watcher_record::{WATCHER_RECORD, WatcherRecord};

/// A record that has a key. Its form as JSON obeys its [`Model`], which a test holds.
pub trait Record: Serialize + DeserializeOwned {
    /// Its row in the table.
    const MODEL: &'static Model;

    /// What tells it from others of its model.
    fn key(&self) -> &str;
}

/// A value as the members of an object field; none of what is no object.
pub fn members(value: &impl Serialize) -> Map<String, Value> {
    match serde_json::to_value(value) {
        Ok(Value::Object(members)) => members,
        _ => Map::new(),
    }
}

/// The status of a host that is being looked over.
pub const INVESTIGATING: &str = "investigating";
/// The status of a host that is being brought in order.
pub const BOOTSTRAPPING: &str = "bootstrapping";
/// The status of a host that is good, and belongs to no container manager.
pub const DISASSOCIATED: &str = "disassociated";
/// The status of a host that had been good and cannot be reached.
pub const UNREACHABLE: &str = "unreachable";
/// The status of a host that is good.
pub const ACTIVE: &str = "active";
/// The status of what has failed.
pub const FAILED: &str = "failed";
/// The status of an operation that nobody has begun.
pub const REQUESTED: &str = "requested";
/// The status of an operation that is under way.
pub const IN_PROCESS: &str = "in_process";
/// The status of an operation that has ended well.
pub const FINISHED: &str = "finished";

fn requested() -> String {
    REQUESTED.to_owned()
}
