//! `ContainerManagerConfig`: how to reach a container manager.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    model::{Field, Kept, Model, Rule},
    record::Record,
};

/// What an option of a container manager is called.
pub static CONTAINER_MANAGER_OPTIONS: [&str; 10] = [
    "server_url",
    "token",
    "token_path",
    "certificate_path",
    "certificate_key_path",
    "certificate_ca_path",
    "insecure_skip_tls_verify",
    "kubeconfig",
    "kubeconfig_path",
    "persistent",
];

/// The row of [`ContainerManagerConfig`].
pub static CONTAINER_MANAGER_CONFIG: Model = Model {
    name: "ContainerManagerConfig",
    list: Some("ContainerManagerConfigs"),
    key: Some("name"),
    fields: &[
        Field::text("name"),
        Field::text("type").or("openshift"),
        Field::object("options", &["token", "kubeconfig"]),
    ],
    // A name that nobody knows might be that of a secret, misspelled: it would lie in the clear.
    rules: &[
        Rule::OneOf("type", &["openshift", "kubernetes", "trivial"]),
        Rule::Known("options", &CONTAINER_MANAGER_OPTIONS),
    ],
    kept: Kept::Plain,
};

/// How to reach a container manager. `Debug` shows the names of the options, not what they are.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct ContainerManagerConfig {
    /// Its name: the key.
    pub name: String,
    /// What it is.
    #[serde(default, rename = "type")]
    pub kind: ContainerManagerKind,
    /// `server_url`, `token`, `certificate_path` and the like. Those that hold a secret are left out of what is
    /// announced: whoever needs them gets the record.
    #[serde(default)]
    pub options: Map<String, Value>,
}

/// What a container manager is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContainerManagerKind {
    /// OpenShift.
    #[default]
    Openshift,
    /// Kubernetes.
    Kubernetes,
    /// One that keeps its nodes in memory, for tests.
    Trivial,
}

impl Record for ContainerManagerConfig {
    const MODEL: &'static Model = &CONTAINER_MANAGER_CONFIG;

    fn key(&self) -> &str {
        &self.name
    }
}

impl fmt::Debug for ContainerManagerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContainerManagerConfig")
            .field("name", &self.name)
            .field("kind", &self.kind)
            .field("options", &self.options.keys().collect::<Vec<_>>())
            .finish()
    }
}
