//! The end of durable subscriptions that nobody reads: a forgotten one must not stop publishers for ever.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    address::Key,
    bus::Bus,
    client::Client,
    contract::Event,
    error::{Error, Result},
    survey::{Declared, What},
};

/// The longest rest between two looks.
const REST: Duration = Duration::from_secs(600);
/// The shortest.
const SHORTEST: Duration = Duration::from_millis(100);
/// How long a step on the broker may take.
const LIMIT: Duration = Duration::from_secs(30);

/// A durable subscription was removed because nobody had read it for its time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SubscriptionExpired {
    /// Its name.
    pub name: String,
    /// What it wanted to hear, where the broker tells.
    pub patterns: Option<Vec<String>>,
    /// For how long nobody had read it.
    pub idle_seconds: u64,
    /// How many messages went with it, where the broker tells.
    pub messages: Option<u64>,
}

impl Event for SubscriptionExpired {
    const PATTERN: &'static str = "bus.subscription.expired";

    fn key(&self) -> Result<Key> {
        Key::new(Self::PATTERN)
    }
}

/// Looks for such subscriptions now and then, until it is dropped.
#[derive(Debug)]
pub(super) struct Expiry {
    task: JoinHandle<()>,
    stop: CancellationToken,
}

impl Expiry {
    /// Begins. Durable subscriptions that are made here expire after `idle`; others when those who made them said.
    pub(super) fn watch(bus: Arc<dyn Bus>, idle: Duration) -> Self {
        let stop = CancellationToken::new();
        let rest = (idle / 10).clamp(SHORTEST, REST);
        Self { task: tokio::spawn(look(bus, rest, stop.clone())), stop }
    }

    /// Ends it, after what it has begun where that is soon enough.
    pub(super) async fn finish(mut self, grace: Duration) {
        self.stop.cancel();
        let _ = timeout(grace, &mut self.task).await;
    }
}

impl Drop for Expiry {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn look(bus: Arc<dyn Bus>, rest: Duration, stop: CancellationToken) {
    let mut trouble = None;
    loop {
        // Programs that were started together do not look together.
        let rest = rest.mul_f64(rand::random_range(0.8..1.2));
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(rest) => {}
        }
        let error = pass(&bus).await.err();
        let told = error.as_ref().map(|error| error.kind().clone());
        if let Some(error) = error.filter(|_| told != trouble) {
            tracing::warn!(error = error.chain(), "cannot look for durable subscriptions that nobody reads");
        }
        trouble = told;
    }
}

/// Removes all that have expired. What goes wrong with one does not save the others.
async fn pass(bus: &Arc<dyn Bus>) -> Result<()> {
    let survey = bounded("the survey of the bus", bus.survey()).await?;
    let mut outcome = Ok(());
    for found in &survey.declared {
        if let Err(error) = end_if_expired(bus, found).await {
            outcome = Err(error);
        }
    }
    outcome
}

async fn end_if_expired(bus: &Arc<dyn Bus>, found: &Declared) -> Result<()> {
    let (What::Durable(name), Some(idle), Some(most)) = (&found.what, found.idle, found.expires_after) else {
        return Ok(());
    };
    if idle < most || !bounded("the removal", bus.remove_durable(name, Some(most))).await? {
        return Ok(());
    }
    let counts = [found.waiting, found.in_hand, found.resting];
    let expired = SubscriptionExpired {
        name: name.to_string(),
        patterns: found.patterns.clone(),
        idle_seconds: idle.as_secs(),
        messages: counts.iter().any(Option::is_some).then(|| counts.into_iter().flatten().sum()),
    };
    tracing::warn!(
        subscription = expired.name,
        idle_seconds = expired.idle_seconds,
        messages = expired.messages,
        "a durable subscription that nobody reads was removed"
    );
    Client::new(bus.clone()).announce(&expired).await.map(drop)
}

async fn bounded<T>(what: &str, step: impl Future<Output = Result<T>>) -> Result<T> {
    timeout(LIMIT, step).await.unwrap_or_else(|_| Err(Error::timeout(what, LIMIT)))
}
