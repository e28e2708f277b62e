//! `Network`: how the containers of a cluster reach each other.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    model::{Field, Kept, Model, Rule},
    record::Record,
};

/// The row of [`Network`].
pub static NETWORK: Model = Model {
    name: "Network",
    list: Some("Networks"),
    key: Some("name"),
    fields: &[Field::text("name"), Field::text("type").or("flannel_etcd"), Field::object("options", &[])],
    rules: &[
        Rule::OneOf("type", &["flannel_etcd", "flannel_server"]),
        Rule::HostPort { field: "type", word: "flannel_server", object: "options", member: "address" },
    ],
    kept: Kept::Plain,
};

/// How the containers of a cluster reach each other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Network {
    /// Its name: the key.
    pub name: String,
    /// What runs it.
    #[serde(default, rename = "type")]
    pub kind: NetworkKind,
    /// For `flannel_server`: `address`, its host:port.
    #[serde(default)]
    pub options: Map<String, Value>,
}

/// What runs a network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkKind {
    /// flannel, configured in etcd.
    #[default]
    FlannelEtcd,
    /// flannel, configured by a server.
    FlannelServer,
}

impl Network {
    /// The name of the network that readers always find, stored or not.
    pub const DEFAULT: &'static str = "default";
}

impl Record for Network {
    const MODEL: &'static Model = &NETWORK;

    fn key(&self) -> &str {
        &self.name
    }
}
