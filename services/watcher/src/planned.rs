//! Hosts that may be away: an operation on their cluster reboots them.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
};

use commissaire::{Error, ErrorKind};
use commissaire_api::{
    ClusterDeploy, ClusterRestart, ClusterUpgrade, Record, StorageClient, client::Seen, record::IN_PROCESS,
};

use crate::AGAIN;

/// The hosts that operations are at, by operation.
#[derive(Debug, Clone, Default)]
pub(crate) struct Planned(Arc<Mutex<HashMap<String, HashSet<String>>>>);

/// An operation over the hosts of a cluster.
trait Operation: Record {
    /// The hosts that it is at.
    fn at(&self) -> &[String];
    fn status(&self) -> &str;
}

macro_rules! operation {
    ($($record:ty),+) => {
        $(impl Operation for $record {
            fn at(&self) -> &[String] {
                &self.in_process
            }

            fn status(&self) -> &str {
                &self.status
            }
        })+
    };
}

operation!(ClusterDeploy, ClusterRestart, ClusterUpgrade);

impl Planned {
    /// Whether `address` may be away.
    pub(crate) fn has(&self, address: &str) -> bool {
        let at = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        at.values().any(|hosts| hosts.contains(address))
    }

    /// Follows the operations, for ever.
    pub(crate) async fn follow(self, storage: StorageClient) {
        tokio::join!(
            self.follow_all::<ClusterDeploy>(&storage),
            self.follow_all::<ClusterRestart>(&storage),
            self.follow_all::<ClusterUpgrade>(&storage),
        );
    }

    async fn follow_all<T: Operation>(&self, storage: &StorageClient) {
        while self.follow_some::<T>(storage).await.is_err_and(|error| *error.kind() != ErrorKind::Closed) {
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Until something goes wrong.
    async fn follow_some<T: Operation>(&self, storage: &StorageClient) -> Result<(), Error> {
        let mut operations = storage.watch::<T>().await?;
        let name = |key: &str| format!("{} {key}", T::MODEL.name);
        loop {
            let seen = operations.next().await;
            let mut at = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let mut set = |operation: &T| {
                let hosts = if operation.status() == IN_PROCESS { operation.at() } else { &[] };
                at.insert(name(operation.key()), hosts.iter().cloned().collect());
            };
            match seen {
                Ok(Seen::All(all)) => {
                    let ours: HashSet<String> = all.iter().map(|found| name(found.record.key())).collect();
                    all.iter().for_each(|found| set(&found.record));
                    at.retain(|known, _| ours.contains(known) || !known.starts_with(&name("")));
                }
                Ok(Seen::Saved(found)) => set(&found.record),
                Ok(Seen::Deleted(key)) => drop(at.remove(&name(&key))),
                Err(error) => {
                    tracing::error!(%error, "operations cannot be followed; tried again");
                    return Err(error);
                }
            }
        }
    }
}
