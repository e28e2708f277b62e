//! `ClusterDeploy`: a deployment of one version to all hosts of a cluster.

use serde::{Deserialize, Serialize};

use crate::{
    model::{Field, Kept, Model, Rule},
    record::Record,
};

/// The row of [`ClusterDeploy`].
pub static CLUSTER_DEPLOY: Model = Model {
    name: "ClusterDeploy",
    list: None,
    key: Some("name"),
    fields: &[
        Field::text("name"),
        Field::text("status").or(""),
        Field::text("version"),
        Field::texts("deployed"),
        Field::texts("in_process"),
        Field::text("started_at").or(""),
        Field::text("finished_at").or(""),
    ],
    rules: &[Rule::NotEmpty("version")],
    kept: Kept::Plain,
};

/// A deployment of one version to all hosts of a cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterDeploy {
    /// The cluster's name: the key.
    pub name: String,
    /// `in_process`, `finished`, `failed`, `paused` or `cancelled`.
    #[serde(default)]
    pub status: String,
    /// What is deployed; not empty.
    pub version: String,
    /// The addresses of the hosts that are done.
    #[serde(default)]
    pub deployed: Vec<String>,
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

impl Record for ClusterDeploy {
    const MODEL: &'static Model = &CLUSTER_DEPLOY;

    fn key(&self) -> &str {
        &self.name
    }
}
