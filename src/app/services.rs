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
    running: Vec<(&'static str, Held)>,
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
        self.running.push((program.name, held));
        Ok(())
    }

    /// Lets them take over what they can of `config`, in which the members at the top that are `changed` have changed.
    /// Returns the members that were not taken over.
    pub(super) fn reconfigure(&self, config: &Config, changed: &[String]) -> Vec<String> {
        let mut left = Vec::new();
        for (name, held) in &self.running {
            let config = config.of(name);
            let own = config.own_of(changed);
            if own.is_empty() {
                continue;
            }
            if let Some(instance) = &*held.lock().unwrap_or_else(PoisonError::into_inner) {
                left.extend(instance.reconfigure(&config, &own));
            }
        }
        left
    }

    /// Ends them, the last one first, all within `grace`, and leaves the bus; none is there then, on `bus`. An error is of
    /// the leaving only.
    pub(super) async fn move_to(
        &mut self,
        bus: Arc<dyn Bus>,
        config: &Config,
        grace: Duration,
    ) -> Result<()> {
        let expiry = Expiry::watch(bus.clone(), config.idle_expiry());
        let expiry = std::mem::replace(&mut self.expiry, expiry);
        let old = std::mem::replace(&mut self.bus, bus);
        let finished = finish(old, std::mem::take(&mut self.running), expiry, grace).await;
        self.health.begin_again(self.bus.connection());
        finished
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
        finish(self.bus, self.running, self.expiry, grace).await
    }
}

async fn finish(
    bus: Arc<dyn Bus>,
    running: Vec<(&'static str, Held)>,
    expiry: Expiry,
    grace: Duration,
) -> Result<()> {
    let end = from_now(grace);
    for (_, held) in running.into_iter().rev() {
        let instance = held.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(instance) = instance {
            instance.finish(end.saturating_duration_since(Instant::now())).await;
        }
    }
    expiry.finish(end.saturating_duration_since(Instant::now())).await;
    bus.close().await
}

impl std::fmt::Debug for Services {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Services")
            .field("bus", &self.bus)
            .field("health", &self.health)
            .finish_non_exhaustive()
    }
}
