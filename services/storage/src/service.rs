//! The service as a whole: places, methods, relays and claim, started and stopped together.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use commissaire::{
    Bus, Metrics, Result, Running,
    app::{Failure, Instance, Program},
    config::{Config, OwnMembers},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use uuid::Uuid;

use crate::{
    StorageConfig,
    config::Members,
    methods::{self, Storage},
    owner::{Claim, Owner},
    routes::Routes,
};

/// The storage service as a program.
pub const PROGRAM: Program = Program {
    name: "storage",
    about: "Keeps the records of Commissaire, tells what changed, and lends leases",
    members: OwnMembers::of::<Members>(),
    start: |begin| {
        Box::pin(async move {
            let config = StorageConfig::read(&begin.config)?;
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
    routes: Arc<Routes>,
    relays: Vec<AbortOnDropHandle<()>>,
    watch: AbortOnDropHandle<()>,
    stop: CancellationToken,
}

/// Opens the places, claims the bus, and begins to serve. Returns when the broker knows of the service.
///
/// Fails with an error when a place cannot be used, or when a storage service with other places is on the bus. When the
/// service cannot go on later, because an older one with others claims the bus or a store's writer has died, `failure` is
/// told.
pub async fn start(
    bus: Arc<dyn Bus>,
    config: StorageConfig,
    metrics: Metrics,
    failure: Failure,
) -> Result<StorageService> {
    let routes = Arc::new(Routes::open(&config).await?);
    let instance = Uuid::new_v4();
    let claim = Claim::new(routes.id(), instance, routes.are_shared());
    let owner = Owner::claim(&bus, claim).await?;
    let storage = Arc::new(Storage { key: routes.bus_key(), routes: routes.clone(), instance });
    let running = methods::service(storage).metrics(metrics).start(bus.clone()).await?;
    let stop = CancellationToken::new();
    let relays = routes.handlers().cloned().map(|handler| {
        let (bus, stop) = (bus.clone(), stop.clone());
        AbortOnDropHandle::new(tokio::spawn(async move { handler.announce(bus, stop).await }))
    });
    Ok(StorageService {
        relays: relays.collect(),
        watch: AbortOnDropHandle::new(tokio::spawn(watch(owner, routes.clone(), failure))),
        running,
        routes,
        stop,
    })
}

/// Tells `failure` when the service cannot go on.
async fn watch(owner: Owner, routes: Arc<Routes>, failure: Failure) {
    let lost = async {
        match owner.defend().await {
            Some(error) => error,
            // The bus closes; the program knows.
            None => std::future::pending().await,
        }
    };
    let broken = futures_util::future::select_all(routes.handlers().map(|handler| handler.broken()));
    let error = tokio::select! {
        error = lost => error,
        (error, ..) = broken => error,
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
                for handler in self.routes.handlers() {
                    handler.keep_changes(members.change_log);
                }
                changed.iter().filter(|name| *name != "change_log").cloned().collect()
            }
            Err(_) => changed.to_vec(),
        }
    }

    /// Takes nothing new, finishes what was begun within `grace`, announces what it can, and closes the store.
    async fn finish(self: Box<Self>, grace: Duration) {
        let Self { running, routes, relays, watch, stop } = *self;
        running.drain(grace).await;
        stop.cancel();
        for relay in relays {
            if relay.await.is_err() {
                tracing::error!("a relay panicked: what it did not announce is announced at the next start");
            }
        }
        watch.abort();
        // Aborted or ended, it holds the places no longer.
        let _ = watch.await;
        // The last commit is waited for here.
        let _ = tokio::task::spawn_blocking(move || drop(routes)).await;
    }
}
