//! One owner: what a storage service keeps is the only store on its bus. Several services may share a store that can be
//! shared; then all of them have the same.
//!
//! Two services with different stores would share the calls out between them, and each would know half of the records. So
//! a service asks at start which store answers already. Against two that start at the same moment, each also claims
//! the bus on a topic that all hear; of two claims the older holds, and the younger service stops.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use commissaire::{
    Bus, Client, Error, ErrorKind, Event, Key, Pattern, Received, Result, Source, Subscription,
};
use commissaire_api::storage::{NoParams, Store, StoreOutput};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

/// How long the service that is there may take to answer.
const ASK: Duration = Duration::from_secs(2);
/// How long to wait for one's own claim to come back from the bus.
const ECHO: Duration = Duration::from_secs(1);
/// How long an older claimant that had heard the claim may take to object.
const OBJECT: Duration = Duration::from_millis(25);
/// How often the claim is said again when nothing is heard.
const AGAIN: Duration = Duration::from_secs(5);

/// The claim of one service on the bus.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Claim {
    /// When it started, in microseconds since 1970. First, so that the older claim is the smaller.
    pub started: u64,
    /// Its store.
    pub store: String,
    /// The running instance.
    pub instance: String,
    /// Whether others may have the same store at the same time.
    #[serde(default)]
    pub shared: bool,
}

impl Event for Claim {
    const PATTERN: &'static str = "storage.owner";

    fn key(&self) -> Result<Key> {
        Key::new(Self::PATTERN)
    }
}

/// What was heard of claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Heard {
    /// One's own, come back from the bus.
    Mine,
    /// One that was answered.
    Another,
    /// None in time.
    Nothing,
    /// The bus has closed.
    End,
}

/// A claim that holds so far.
#[derive(Debug)]
pub struct Owner {
    mine: Claim,
    client: Client,
    claims: Subscription,
}

impl Claim {
    /// A claim from now on.
    pub fn new(store: Uuid, instance: Uuid, shared: bool) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let started = u64::try_from(now.as_micros()).unwrap_or(u64::MAX);
        Self { started, store: store.to_string(), instance: instance.to_string(), shared }
    }

    /// Whether a service with the store `other` may be on the bus beside this one.
    fn suffers(&self, other: &str) -> bool {
        self.shared && other == self.store
    }

    /// The error of the service that must give way to the store `other`.
    fn yields_to(&self, other: &str) -> Error {
        Error::config(if other == self.store {
            format!(
                "store {other} is on this bus already, in another copy: an embedded store has one owner; stop that service"
            )
        } else {
            format!(
                "store {other} is on this bus already, this one is {}: stop that service, or set another bus_exchange",
                self.store
            )
        })
    }
}

impl Owner {
    /// Claims the bus. An error of the kind [`Config`](ErrorKind::Config) when another store is there.
    pub async fn claim(bus: &Arc<dyn Bus>, mine: Claim) -> Result<Self> {
        let claims = bus.subscribe(Source::Topic(vec![Pattern::new(Claim::PATTERN)?]), 64).await?;
        let client = Client::new(bus.clone()).with_timeout(ASK);
        match client.call(Store, &NoParams {}).await {
            Ok(StoreOutput { store, .. }) if mine.suffers(&store) => {}
            Ok(StoreOutput { store, .. }) => return Err(mine.yields_to(&store)),
            Err(error) if *error.kind() == ErrorKind::NoResponders => {}
            Err(error) if error.is_temporary() || error.remote().is_some() => {
                tracing::warn!(%error, "a storage service is there but does not say which store it has");
            }
            Err(error) => return Err(error),
        }
        client.announce(&mine).await?;
        let mut owner = Self { mine, client, claims };
        // Whatever was claimed before comes before one's own claim.
        let echo = Instant::now() + ECHO;
        while let Heard::Another = owner.hear(echo).await? {}
        let objection = Instant::now() + OBJECT;
        while let Heard::Another | Heard::Mine = owner.hear(objection).await? {}
        Ok(owner)
    }

    /// Defends the claim; resolves with the error when an older one is heard, or with `None` when the bus closes.
    pub async fn defend(mut self) -> Option<Error> {
        loop {
            match self.hear(Instant::now() + AGAIN).await {
                Ok(Heard::Mine | Heard::Another) => {}
                // Whoever missed it, or whose objection went astray, hears it now.
                Ok(Heard::Nothing) => self.say().await,
                Ok(Heard::End) => return None,
                Err(error) => return Some(error),
            }
        }
    }

    /// Hears the next claim, waiting for it until then, and answers a younger one with one's own. An older one is an
    /// error. Only the waiting is cut short, never the answer.
    async fn hear(&mut self, until: Instant) -> Result<Heard> {
        let received = match timeout_at(until, self.claims.next()).await {
            Err(_) => return Ok(Heard::Nothing),
            Ok(None) => return Ok(Heard::End),
            Ok(Some(received)) => received,
        };
        if let Received::Delivery(delivery) = received {
            let Ok(claim) = serde_json::from_slice::<Claim>(delivery.message().body()) else {
                return Ok(Heard::Another);
            };
            if claim.instance == self.mine.instance {
                return Ok(Heard::Mine);
            }
            if self.mine.suffers(&claim.store) {
                return Ok(Heard::Another);
            }
            if claim < self.mine {
                return Err(self.mine.yields_to(&claim.store));
            }
        }
        // A younger claim, or a gap: claims may have been missed, and ours by others.
        self.say().await;
        Ok(Heard::Another)
    }

    async fn say(&self) {
        if let Err(error) = self.client.announce(&self.mine).await {
            tracing::warn!(%error, "the claim on the bus could not be said again");
        }
    }
}
