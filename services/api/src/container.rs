//! The contract of the container managers' service.

use serde::{Deserialize, Serialize};

commissaire::method! {
    /// Whether a node is registered; error −20001 when it is not.
    pub NodeRegistered = "container.node_registered": NodeParams => (), idempotent
}
commissaire::method! {
    /// Registers a node.
    pub RegisterNode = "container.register_node": NodeParams => ()
}

/// Which node, with which container manager.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeParams {
    /// The name of the container manager's configuration.
    pub container_manager_name: String,
    /// The host's address.
    pub address: String,
}
