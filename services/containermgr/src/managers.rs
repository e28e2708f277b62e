//! Which container managers there are: those of the configuration, and those in storage, as they are now.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use commissaire::{ErrorKind, RpcError};
use commissaire_api::{ContainerManagerConfig, StorageClient, client::Seen};
use serde_json::json;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use crate::{
    fault::{Fault, rpc},
    manager::{Manager, open},
};

/// How long after something went wrong it is tried again.
const AGAIN: Duration = Duration::from_secs(5);
/// How long it may take to hear of a record that is there.
const HEARD: Duration = Duration::from_secs(10);

/// The container managers.
#[derive(Debug)]
pub(crate) struct Managers {
    storage: StorageClient,
    dir: PathBuf,
    /// Those of the configuration.
    fixed: Vec<ContainerManagerConfig>,
    known: RwLock<HashMap<String, Known>>,
    /// Counts what was heard of them.
    heard: watch::Sender<u64>,
}

#[derive(Debug, Clone)]
struct Known {
    config: ContainerManagerConfig,
    manager: Result<Arc<dyn Manager>, Fault>,
}

impl Managers {
    pub(crate) fn new(storage: StorageClient, dir: PathBuf, fixed: Vec<ContainerManagerConfig>) -> Self {
        let managers = Self {
            storage,
            dir,
            known: RwLock::default(),
            fixed: fixed.clone(),
            heard: watch::Sender::new(0),
        };
        fixed.into_iter().for_each(|config| managers.keep(config));
        managers
    }

    /// The container manager of this name.
    pub(crate) async fn find(&self, name: &str) -> Result<Arc<dyn Manager>, RpcError> {
        let mut heard = self.heard.subscribe();
        let mut known = self.known(name);
        if known.is_none() && self.storage.find::<ContainerManagerConfig>(name).await?.is_some() {
            // It was made just now.
            let wait = async { while self.known(name).is_none() && heard.changed().await.is_ok() {} };
            let _ = timeout(HEARD, wait).await;
            known = self.known(name);
            if known.is_none() {
                let text = format!("container manager {name:?} was made just now, and is not known yet");
                return Err(RpcError::new(RpcError::UNAVAILABLE, text).with_data(json!({"kind": "storage"})));
            }
        }
        let Some(known) = known else {
            let text = format!(
                "there is no container manager {name:?}: `commissaire container-manager add` makes one"
            );
            let error = RpcError::new(RpcError::NOT_FOUND, text);
            return Err(error.with_data(json!({"container_manager_name": name})));
        };
        known.manager.map_err(|fault| rpc(&fault.of(name)))
    }

    /// Follows the records, until the bus closes.
    pub(crate) async fn follow(&self) {
        loop {
            match self.hear().await {
                Ok(()) => {}
                Err(error) if *error.kind() == ErrorKind::Closed => return,
                Err(error) => {
                    tracing::error!(%error, "container managers cannot be followed; tried again");
                    sleep(AGAIN).await;
                }
            }
        }
    }

    async fn hear(&self) -> commissaire::Result<()> {
        let mut records = self.storage.watch::<ContainerManagerConfig>().await?;
        loop {
            match records.next().await? {
                Seen::All(all) => {
                    let gone = |name: &String| !all.iter().any(|one| one.record.name == *name);
                    let gone: Vec<String> = self.read().keys().filter(|name| gone(name)).cloned().collect();
                    gone.iter().for_each(|name| self.forget(name));
                    all.into_iter().for_each(|one| self.keep(one.record));
                }
                Seen::Saved(one) => self.keep(one.record),
                Seen::Deleted(name) => self.forget(&name),
            }
            self.heard.send_modify(|heard| *heard += 1);
        }
    }

    /// Keeps one. That which is as it was stays the same: it has connections, and nodes where it is trivial.
    fn keep(&self, config: ContainerManagerConfig) {
        if self.read().get(&config.name).is_some_and(|known| known.config == config) {
            return;
        }
        let manager = open(&config, &self.dir);
        match &manager {
            Ok(_) => tracing::info!(container_manager = config.name, kind = ?config.kind, "it is known"),
            Err(fault) => {
                let why = fault.text();
                tracing::warn!(container_manager = config.name, why, "it cannot be used");
            }
        }
        let name = config.name.clone();
        self.write().insert(name, Known { config, manager });
    }

    /// Forgets the record of this name; the one of the configuration is there again, if there is one.
    fn forget(&self, name: &str) {
        match self.fixed.iter().find(|config| config.name == name) {
            Some(config) => self.keep(config.clone()),
            None => {
                if self.write().remove(name).is_some() {
                    tracing::info!(container_manager = name, "it is known no longer");
                }
            }
        }
    }

    fn known(&self, name: &str) -> Option<Known> {
        self.read().get(name).cloned()
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, HashMap<String, Known>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, HashMap<String, Known>> {
        self.known.write().unwrap_or_else(PoisonError::into_inner)
    }
}
