//! What the handlers and the runs of the investigator share.

use std::{
    collections::{BTreeSet, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use commissaire::{Client, Event};
use commissaire_api::StorageClient;
use commissaire_ssh::{Ssh, os::OsTable};
use tokio::sync::Notify;
use uuid::Uuid;

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
    /// This instance, in the journals that it holds.
    pub(crate) instance: String,
    hosts: Mutex<Hosts>,
    /// Rung when there is something to do.
    pub(crate) bell: Notify,
    /// Rung when a run of this instance is over.
    pub(crate) over: Notify,
}

/// The hosts that wait, and those that are worked on.
#[derive(Debug, Default)]
struct Hosts {
    waiting: BTreeSet<String>,
    busy: HashSet<String>,
}

impl State {
    pub(crate) fn new(client: Client, members: Members) -> commissaire::Result<Self> {
        Ok(Self {
            storage: StorageClient::new(client.clone()),
            ssh: Ssh::new(&members.ssh)?,
            systems: OsTable::read(members.os_file.as_deref())?,
            templates: Templates::read(members.templates_path.as_deref())?,
            instance: format!("investigator {}", Uuid::new_v4().simple()),
            client,
            members,
            hosts: Mutex::default(),
            bell: Notify::new(),
            over: Notify::new(),
        })
    }

    /// Has `address` looked at soon.
    pub(crate) fn want(&self, address: &str) {
        self.lock().waiting.insert(address.to_owned());
        self.bell.notify_one();
    }

    /// The next host that waits and is not worked on, from now on worked on.
    pub(crate) fn next(&self) -> Option<String> {
        let mut hosts = self.lock();
        let next = hosts.waiting.iter().find(|address| !hosts.busy.contains(*address)).cloned()?;
        hosts.waiting.remove(&next);
        hosts.busy.insert(next.clone());
        Some(next)
    }

    /// `address` is worked on no longer.
    pub(crate) fn done(&self, address: &str) {
        self.lock().busy.remove(address);
        self.bell.notify_one();
        self.over.notify_waiters();
    }

    /// Tells an event; that nobody hears of it is no reason to stop.
    pub(crate) async fn tell(&self, event: &impl Event) {
        if let Err(error) = self.client.announce(event).await {
            tracing::warn!(%error, "an event was not announced");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Hosts> {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
