//! The services that one program runs, on one bus.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::{Failure, Health, Instance, Program, Start, expiry::Expiry};
use crate::{bus::Bus, config::Config, error::Result, metrics::Metrics, time::from_now};

/// A service that may have ended already.
pub(super) type Held = Arc<Mutex<Option<Box<dyn Instance>>>>;

/// The services of one program, in the order in which they were started.
pub struct Services {
    bus: Arc<dyn Bus>,
    metrics: Metrics,
    health: Health,
    failure: Failure,
    running: Vec<Held>,
    expiry: Expiry,
}

impl Services {
    /// None yet, on `bus`. From now on durable subscriptions that nobody reads are removed there when they expire
    /// ([`SubscriptionExpired`](super::SubscriptionExpired)).
    pub fn new(bus: Arc<dyn Bus>, config: &Config) -> Self {
        let metrics = Metrics::default();
        let health = Health::new(metrics.clone(), bus.connection());
        let expiry = Expiry::watch(bus.clone(), config.idle_expiry());
        Self { bus, metrics, health, failure: Failure::default(), running: Vec::new(), expiry }
    }

    /// Starts `program`; returns when it answers.
    pub async fn start(&mut self, program: &Program, config: Config) -> Result<()> {
        let start = Start {
            bus: self.bus.clone(),
            config,
            metrics: self.metrics.clone(),
            failure: self.failure.clone(),
        };
        let held: Held = Arc::new(Mutex::new(Some((program.start)(start).await?)));
        self.health.watch(program.name, held.clone());
        self.running.push(held);
        Ok(())
    }

    /// What is known of them.
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// By which they say that they cannot go on.
    pub fn failure(&self) -> &Failure {
        &self.failure
    }

    /// Ends them, the last one first, all within `grace`, and leaves the bus.
    pub async fn finish(self, grace: Duration) -> Result<()> {
        let end = from_now(grace);
        for held in self.running.into_iter().rev() {
            let instance = held.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(instance) = instance {
                instance.finish(end.saturating_duration_since(Instant::now())).await;
            }
        }
        self.expiry.finish(end.saturating_duration_since(Instant::now())).await;
        self.bus.close().await
    }
}

impl std::fmt::Debug for Services {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Services")
            .field("bus", &self.bus)
            .field("health", &self.health)
            .finish_non_exhaustive()
    }
}
