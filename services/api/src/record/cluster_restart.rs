//! `ClusterRestart`: a restart of all hosts of a cluster.

use serde::{Deserialize, Serialize};

use crate::{
    model::{Field, Kept, Model},
    record::Record,
};

/// The row of [`ClusterRestart`].
pub static CLUSTER_RESTART: Model = Model {
    name: "ClusterRestart",
    list: None,
    key: Some("name"),
    fields: &[
        Field::text("name"),
        Field::text("status").or(""),
        Field::texts("restarted"),
        Field::texts("in_process"),
        Field::text("started_at").or(""),
        Field::text("finished_at").or(""),
    ],
    rules: &[],
    kept: Kept::Plain,
};

/// A restart of all hosts of a cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterRestart {
    /// The cluster's name: the key.
    pub name: String,
    /// `in_process`, `finished`, `failed`, `paused` or `cancelled`.
    #[serde(default)]
    pub status: String,
    /// The addresses of the hosts that are done.
    #[serde(default)]
    pub restarted: Vec<String>,
    /// The addresses of the hosts at work.
    #[serde(default)]
    pub in_process: Vec<String>,
    /// When it began: UTC, ISO 8601.
    #[serde(default)]
    pub started_at: String,
    /// When it ended.
    #[serde(default)]
    pub finished_at: String,
}

impl Record for ClusterRestart {
    const MODEL: &'static Model = &CLUSTER_RESTART;

    fn key(&self) -> &str {
        &self.name
    }
}
