//! A container manager: what each of them can be asked.

use std::{fmt, path::Path, sync::Arc};

use async_trait::async_trait;
use commissaire_api::{
    ContainerManagerConfig, ContainerManagerKind,
    container::{Cordoned, Node},
};
use serde_json::Value;

use crate::{fault::Fault, kubernetes::Kubernetes, options::Options, pod::Pod, trivial::Trivial};

/// A container manager. Each question is asked once: whoever calls has the patience to ask again.
#[async_trait]
pub(crate) trait Manager: fmt::Debug + Send + Sync {
    /// What it says of a node, as it says it; `None`: it is not registered.
    async fn status(&self, name: &str) -> Result<Option<Value>, Fault>;

    /// A node; `None`: it is not registered.
    async fn node(&self, name: &str) -> Result<Option<Node>, Fault>;

    /// All nodes.
    async fn nodes(&self) -> Result<Vec<Node>, Fault>;

    /// Registers a node as ours. `false`: it was there.
    async fn register(&self, name: &str) -> Result<bool, Fault>;

    /// Removes a node. `false`: it was not there.
    async fn remove(&self, name: &str) -> Result<bool, Fault>;

    /// Cordons a node for `operation`, unless it is cordoned.
    async fn cordon(&self, name: &str, operation: &str) -> Result<Cordoned, Fault>;

    /// Lifts the cordon of `operation`.
    async fn uncordon(&self, name: &str, operation: &str) -> Result<Cordoned, Fault>;

    /// What runs on a node.
    async fn pods(&self, node: &str) -> Result<Vec<Pod>, Fault>;

    /// Tells a pod to leave within `grace` seconds, if its disruption budget allows.
    async fn evict(&self, pod: &Pod, grace: Option<u32>) -> Result<Eviction, Fault>;

    /// Tells a pod to leave, whatever its budget.
    async fn delete(&self, pod: &Pod, grace: Option<u32>) -> Result<(), Fault>;
}

/// What came of telling a pod to leave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Eviction {
    /// It leaves.
    Told,
    /// It is not there any more.
    Gone,
    /// It may not leave yet, and why.
    Blocked(String),
}

/// The container manager that `config` describes. `dir` is where the nodes of trivial ones are kept.
pub(crate) fn open(config: &ContainerManagerConfig, dir: &Path) -> Result<Arc<dyn Manager>, Fault> {
    let options = Options::read(config)?;
    Ok(match config.kind {
        ContainerManagerKind::Kubernetes | ContainerManagerKind::Openshift => {
            Arc::new(Kubernetes::new(&config.name, options))
        }
        ContainerManagerKind::Trivial => Arc::new(Trivial::open(&config.name, options.persistent, dir)?),
    })
}
