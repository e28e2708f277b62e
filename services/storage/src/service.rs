//! The service as a whole: store, methods, relay and claim, started and stopped together.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use commissaire::{
    Bus, Error, Metrics, Result, Running,
    app::{Failure, Instance, Program},
    config::{Config, OwnMembers},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use uuid::Uuid;

use crate::{
    StorageConfig, Store,
    config::Members,
    methods::{self, Storage},
    owner::{Claim, Owner},
    relay::relay,
    store::StoreOptions,
};

/// The storage service as a program.
pub const PROGRAM: Program = Program {
    name: "storage",
    about: "Keeps the records of Commissaire in an embedded store, tells what changed, and lends leases",
    members: OwnMembers::of::<Members>(),
    start: |begin| {
        Box::pin(async move {
            let config = StorageConfig::read(&begin)?;
            let service = start(begin.bus, config, begin.metrics, begin.failure).await?;
            Ok(Box::new(service) as Box<dyn Instance>)
        })
    },
};

/// The storage service at work. Dropping it ends it at once; [`finish`](Instance::finish) ends it in order.
#[derive(Debug)]
#[must_use = "a service that is dropped ends"]
pub struct StorageService {
    running: Running,
    store: Arc<Store>,
    relay: AbortOnDropHandle<()>,
    watch: AbortOnDropHandle<()>,
    stop: CancellationToken,
}

/// Opens the store, claims the bus, and begins to serve. Returns when the broker knows of the service.
///
/// Fails with a configuration error when the store cannot be used, or when another store is on the bus. When the service
/// cannot go on later, because an older store claims the bus or the store's writer has died, `failure` is told.
pub async fn start(
    bus: Arc<dyn Bus>,
    config: StorageConfig,
    metrics: Metrics,
    failure: Failure,
) -> Result<StorageService> {
    let options = StoreOptions { dir: config.data_dir.clone(), change_log: config.members.change_log };
    let opened = tokio::task::spawn_blocking(move || Store::open(&options)).await;
    let store = Arc::new(opened.map_err(|_| Error::config("the store could not be opened: it panicked"))??);
    let instance = Uuid::new_v4();
    let owner = Owner::claim(&bus, Claim::new(store.id(), instance)).await?;
    let storage = Arc::new(Storage { store: store.clone(), config, instance });
    let running = methods::service(storage).metrics(metrics).start(bus.clone()).await?;
    let stop = CancellationToken::new();
    Ok(StorageService {
        relay: AbortOnDropHandle::new(tokio::spawn(relay(store.clone(), bus, stop.clone()))),
        watch: AbortOnDropHandle::new(tokio::spawn(watch(owner, store.clone(), failure))),
        running,
        store,
        stop,
    })
}

/// Tells `failure` when the service cannot go on.
async fn watch(owner: Owner, store: Arc<Store>, failure: Failure) {
    let lost = async {
        match owner.defend().await {
            Some(error) => error,
            // The bus closes; the program knows.
            None => std::future::pending().await,
        }
    };
    let error = tokio::select! {
        error = lost => error,
        () = store.stopped() => {
            let path = store.path().display();
            Error::unavailable(format!("the writer of store {path} has stopped: restart the service"))
        }
    };
    failure.report(error);
}

#[async_trait]
impl Instance for StorageService {
    fn is_ready(&self) -> bool {
        self.running.is_consuming()
    }

    fn reconfigure(&self, config: &Config, changed: &[String]) -> Vec<String> {
        match config.own::<Members>() {
            Ok(members) => {
                self.store.keep_changes(members.change_log);
                Vec::new()
            }
            Err(_) => changed.to_vec(),
        }
    }

    /// Takes nothing new, finishes what was begun within `grace`, announces what it can, and closes the store.
    async fn finish(self: Box<Self>, grace: Duration) {
        let Self { running, store, relay, watch, stop } = *self;
        running.drain(grace).await;
        stop.cancel();
        if relay.await.is_err() {
            tracing::error!("the relay panicked: what it did not announce is announced at the next start");
        }
        watch.abort();
        // Aborted or ended, it holds the store no longer.
        let _ = watch.await;
        // The last commit is waited for here.
        let _ = tokio::task::spawn_blocking(move || drop(store)).await;
    }
}
