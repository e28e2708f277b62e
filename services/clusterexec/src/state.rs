//! What the handlers and the operations share.

use std::sync::{Arc, PoisonError, RwLock};

use commissaire::{Client, Event, Result};
use commissaire_api::{StorageClient, client::Runs};
use commissaire_ssh::{Ssh, os::OsTable};

use crate::config::Members;

/// What is shared.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) client: Client,
    pub(crate) storage: StorageClient,
    /// The operations that this instance works on.
    pub(crate) runs: Arc<Runs>,
    settings: RwLock<Arc<Settings>>,
}

/// What the configuration says. An operation that is under way keeps to what it was asked for with.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) ssh: Ssh,
    pub(crate) systems: OsTable,
    pub(crate) members: Members,
}

impl Settings {
    /// Fails when a file that is named cannot be used, or an option makes no sense.
    pub(crate) fn new(members: Members) -> Result<Self> {
        crate::options::check(&members.options)
            .map_err(|why| commissaire::Error::config(format!("options: {why}")))?;
        Ok(Self {
            ssh: Ssh::new(&members.ssh)?,
            systems: OsTable::read(members.os_file.as_deref())?,
            members,
        })
    }
}

impl State {
    pub(crate) fn new(client: Client, settings: Settings) -> Self {
        let runs = Runs::new("clusterexec", "operation", settings.members.operations);
        let storage = StorageClient::new(client.clone());
        Self { client, storage, runs, settings: RwLock::new(Arc::new(settings)) }
    }

    /// What the configuration says now.
    pub(crate) fn settings(&self) -> Arc<Settings> {
        self.settings.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Has these hold from now on.
    pub(crate) fn set(&self, settings: Settings) {
        self.runs.limit(settings.members.operations);
        *self.settings.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
    }

    /// Tells an event; that nobody hears of it is no reason to stop.
    pub(crate) async fn tell(&self, event: &impl Event) {
        if let Err(error) = self.client.announce(event).await {
            tracing::warn!(%error, "an event was not announced");
        }
    }
}
