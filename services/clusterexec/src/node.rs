//! A host as a node of the container manager of its cluster.

use std::time::Duration;

use commissaire::{Client, Error, RpcError};
use commissaire_api::{
    clusterexec::{DrainOptions, Gates},
    container::{Cordon, CordonParams, Drain, DrainParams, Uncordon, WaitReady, WaitReadyParams},
};

/// How much longer than the work itself its answer is waited for.
const MORE: Duration = Duration::from_secs(90);

/// A host as a node.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) client: Client,
    /// The container manager.
    pub(crate) manager: String,
    pub(crate) address: String,
    /// In whose name it is cordoned.
    pub(crate) operation: String,
}

impl Node {
    /// Lets nothing new come. Whether the cordon is ours: that of a person stays his.
    pub(crate) async fn cordon(&self) -> Result<bool, Error> {
        let cordoned = self.client.call(Cordon, &self.params()).await?;
        Ok(cordoned.cordoned_by == self.operation)
    }

    /// Has all leave that may.
    pub(crate) async fn drain(&self, options: &DrainOptions) -> Result<(), Error> {
        let params = DrainParams {
            container_manager_name: self.manager.clone(),
            address: self.address.clone(),
            operation: self.operation.clone(),
            deadline_seconds: Some(options.seconds),
            delete_empty_dir: options.delete_empty_dir,
            force: options.force,
            delete_at_deadline: options.delete_at_deadline,
            ..DrainParams::default()
        };
        let limit = Duration::from_secs(options.seconds.into()) + MORE;
        self.client.clone().with_timeout(limit).call(Drain, &params).await.map(drop)
    }

    /// Waits until it is ready, in another boot than `before` where that is said.
    pub(crate) async fn ready(&self, gates: &Gates, before: Option<String>) -> Result<(), Error> {
        let params = WaitReadyParams {
            container_manager_name: self.manager.clone(),
            address: self.address.clone(),
            min_healthy_seconds: Some(gates.min_healthy_seconds),
            other_boot_than: before,
            timeout_seconds: Some(gates.seconds),
        };
        let limit = Duration::from_secs(gates.seconds.into()) + MORE;
        self.client.clone().with_timeout(limit).call(WaitReady, &params).await.map(drop)
    }

    /// Lifts our cordon, and no other.
    pub(crate) async fn uncordon(&self) -> Result<(), Error> {
        self.client.call(Uncordon, &self.params()).await.map(drop)
    }

    fn params(&self) -> CordonParams {
        CordonParams {
            container_manager_name: self.manager.clone(),
            address: self.address.clone(),
            operation: self.operation.clone(),
        }
    }
}

/// Whether it is the node, or its container manager, that does not do what is asked; else asking again may help.
pub(crate) fn is_refusal(error: &Error) -> bool {
    error.remote().is_some_and(|remote| ![RpcError::BUSY, RpcError::UNAVAILABLE].contains(&remote.code))
}
