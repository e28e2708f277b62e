//! What the handlers and the runs of the investigator share.

use std::sync::Arc;

use commissaire::{Client, Event};
use commissaire_api::{StorageClient, client::Runs};
use commissaire_ssh::{Ssh, os::OsTable};

use crate::{config::Members, plan::Templates};

/// What is shared.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) client: Client,
    pub(crate) storage: StorageClient,
    pub(crate) ssh: Ssh,
    pub(crate) systems: OsTable,
    pub(crate) templates: Templates,
    pub(crate) members: Members,
    /// The investigations that this instance works on.
    pub(crate) runs: Arc<Runs>,
}

impl State {
    pub(crate) fn new(client: Client, members: Members) -> commissaire::Result<Self> {
        Ok(Self {
            storage: StorageClient::new(client.clone()),
            ssh: Ssh::new(&members.ssh)?,
            systems: OsTable::read(members.os_file.as_deref())?,
            templates: Templates::read(members.templates_path.as_deref())?,
            runs: Runs::new("investigator", "investigation"),
            client,
            members,
        })
    }

    /// Tells an event; that nobody hears of it is no reason to stop.
    pub(crate) async fn tell(&self, event: &impl Event) {
        if let Err(error) = self.client.announce(event).await {
            tracing::warn!(%error, "an event was not announced");
        }
    }
}
