//! `HostStatus`: what a host and its container manager say now. Computed, never stored.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::model::{Field, Kept, Model};

/// The row of [`HostStatus`].
pub static HOST_STATUS: Model = Model {
    name: "HostStatus",
    list: None,
    key: None,
    fields: &[
        Field::text("type").or(""),
        Field::object("host", &[]),
        Field::object("container_manager", &[]),
    ],
    rules: &[],
    kept: Kept::Nowhere,
};

/// What a host and its container manager say now.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct HostStatus {
    /// The kind of container manager, or `host_only`.
    #[serde(default, rename = "type")]
    pub kind: String,
    /// What is known of the host.
    #[serde(default)]
    pub host: Map<String, Value>,
    /// What the container manager says of it.
    #[serde(default)]
    pub container_manager: Map<String, Value>,
}
