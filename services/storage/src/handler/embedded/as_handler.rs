//! The embedded store as a [`Handler`].

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use commissaire::{Bus, Error};
use commissaire_api::{
    model::Model,
    storage::{Change, Fence, Lease},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Store;
use crate::{
    handler::{ChangeSet, Handler, Query, Rows, Sealer, StoreError, Stored, Transaction},
    relay::{Outbox, relay},
};

/// Up to this many records are looked up on the thread that has the call: each takes some microseconds.
const FEW: usize = 16;

#[async_trait]
impl Handler for Arc<Store> {
    fn id(&self) -> Uuid {
        Store::id(self)
    }

    fn is_shared(&self) -> bool {
        false
    }

    async fn get(&self, model: &'static Model, keys: &[String]) -> Result<Vec<Option<Stored>>, StoreError> {
        if keys.len() <= FEW {
            return Store::get(self, model, keys);
        }
        let (store, keys) = (self.clone(), keys.to_vec());
        off_thread(move || Store::get(&store, model, &keys)).await
    }

    async fn list(&self, model: &'static Model, query: Query) -> Result<Rows, StoreError> {
        let store = self.clone();
        off_thread(move || Store::list(&store, model, &query)).await
    }

    async fn commit(&self, transaction: Transaction) -> Result<Vec<u64>, StoreError> {
        Store::commit(self, transaction).await
    }

    async fn changes(&self, since: u64, most: usize, bytes: usize) -> Result<ChangeSet, StoreError> {
        let store = self.clone();
        off_thread(move || Store::changes(&store, since, most, bytes)).await
    }

    async fn acquire_lease(&self, name: String, holder: String, ttl: Duration) -> Result<Lease, StoreError> {
        Store::acquire_lease(self, name, holder, ttl).await
    }

    async fn renew_lease(&self, lease: Fence) -> Result<Lease, StoreError> {
        Store::renew_lease(self, lease.name, lease.token).await
    }

    async fn release_lease(&self, lease: Fence) -> Result<bool, StoreError> {
        Store::release_lease(self, lease.name, lease.token).await
    }

    async fn announce(&self, bus: Arc<dyn Bus>, stop: CancellationToken) {
        relay(self.clone(), bus, stop).await;
    }

    async fn broken(&self) -> Error {
        self.stopped().await;
        let path = self.path().display();
        Error::unavailable(format!("the writer of store {path} has stopped: restart the service"))
    }

    fn sealer(&self) -> Option<&Sealer> {
        Some(&self.shared.sealer)
    }

    async fn rewrap(&self) -> Result<(), Error> {
        let store = self.clone();
        let wrapped = tokio::task::spawn_blocking(move || store.shared.sealer.wrapped_by_next()).await;
        let wrapped =
            wrapped.map_err(|_| Error::config("the master key could not be made: it panicked"))??;
        let kept = self.keep_key(wrapped).await;
        kept.map_err(|error| Error::unavailable(error.to_string()))
    }

    fn keep_changes(&self, change_log: u64) {
        Store::keep_changes(self, change_log);
    }
}

#[async_trait]
impl Outbox for Store {
    fn id(&self) -> Uuid {
        Self::id(self)
    }

    fn due(&self, after: u64, most: usize, bytes: usize) -> Result<Vec<Change>, StoreError> {
        self.outbox(after, most, bytes)
    }

    async fn more(&self) {
        self.announced().await;
    }

    async fn sent(&self, revisions: Vec<u64>) -> Result<(), StoreError> {
        Self::sent(self, revisions).await
    }
}

/// Runs a long look into the store off the threads that serve the bus.
async fn off_thread<T: Send + 'static>(
    look: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let told = "a reader of the store panicked";
    let panicked = |_| StoreError::Failed { told, why: told.into(), uncertain: false };
    tokio::task::spawn_blocking(look).await.map_err(panicked)?
}
