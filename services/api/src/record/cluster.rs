//! `Cluster`: hosts that are looked after together.

use serde::{Deserialize, Serialize};

use crate::{
    model::{Field, Kept, Model},
    record::Record,
};

/// The row of [`Cluster`].
pub static CLUSTER: Model = Model {
    name: "Cluster",
    list: Some("Clusters"),
    key: Some("name"),
    fields: &[
        Field::text("name"),
        Field::text("status").or(""),
        Field::text("network").or("default"),
        Field::texts("hostset").hidden(),
        Field::text("container_manager").or(""),
    ],
    rules: &[],
    kept: Kept::Plain,
};

/// Hosts that are looked after together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// Its name: the key.
    pub name: String,
    /// `ok`, `degraded` or `failed`; empty when new.
    #[serde(default)]
    pub status: String,
    /// The name of its network.
    #[serde(default = "default_network")]
    pub network: String,
    /// The addresses of its hosts. Left out of what is announced.
    #[serde(default)]
    pub hostset: Vec<String>,
    /// The name of its container manager; empty: it has none.
    #[serde(default)]
    pub container_manager: String,
}

impl Record for Cluster {
    const MODEL: &'static Model = &CLUSTER;

    fn key(&self) -> &str {
        &self.name
    }
}

fn default_network() -> String {
    "default".into()
}
