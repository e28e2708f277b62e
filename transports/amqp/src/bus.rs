//! The bus: one core shared by publishing, reading and settling.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use commissaire::{
    Bus, BusOptions, BusUri, ConnectionWatch, Connectivity, Durability, Error, ErrorKind, Guarantees,
    Message, Result, Source, Subscription, Token, survey::Survey,
};
use tokio::time::{Instant, timeout_at};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    age::Ages,
    delay::Delays,
    link::{Health, Link, Making, Role},
    names::Names,
    options::Options,
    publish::Publisher,
    reader::Reader,
    registry::Registry,
    settle::Returns,
    survey,
};

/// The most that any one step takes which has no bound of its own.
pub(crate) const BOUND: Duration = Duration::from_secs(10);

/// How long the end of a bus waits for the registry.
const ENTERING: Duration = Duration::from_secs(2);

/// What every RabbitMQ of 3.10 or later promises: its quorum queues sync the disk before they confirm.
pub(crate) const PROMISES: Guarantees = Guarantees {
    durability: Durability::Power,
    shared: true,
    replies_kept: true,
    republish_window: None,
    shared_ledger: false,
    // The broker takes a delivery back after 30 minutes.
    longest_run: Some(Duration::from_secs(25 * 60)),
};

/// What all parts of a bus share.
pub(crate) struct Core {
    pub(crate) names: Names,
    pub(crate) idle_expiry: Duration,
    /// Two connections: an alarm of the broker stops those that publish, and nobody else.
    pub(crate) publishing: Link,
    pub(crate) consuming: Link,
    pub(crate) publisher: Publisher,
    pub(crate) ages: Ages,
    pub(crate) delays: Delays,
    pub(crate) returns: Returns,
    pub(crate) registry: Arc<Registry>,
    /// Subscriptions, and settlements under way.
    pub(crate) reading: TaskTracker,
    pub(crate) settling: TaskTracker,
    /// Cancelled when no subscription may take more.
    pub(crate) closing: CancellationToken,
    /// Cancelled when the connections are closed.
    pub(crate) farewell: CancellationToken,
    /// Cancelled when everything must end.
    pub(crate) end: CancellationToken,
}

struct AmqpBus {
    core: Arc<Core>,
    health: Arc<Health>,
    closed: AtomicBool,
    place: String,
}

/// Connects, and refuses a broker that is not fit.
pub(crate) async fn connect(uri: BusUri, options: BusOptions) -> Result<Arc<dyn Bus>> {
    let Options { dialer, place } = Options::read(&uri, &options.client_name)?;
    let (dialer, names) = (Arc::new(dialer), Names::new(&options.exchange));
    let health = Arc::new(Health::new(Connectivity::new(place.clone())));
    let end = CancellationToken::new();
    let farewell = end.child_token();
    let guard = end.clone().drop_guard();
    let making = |role, after| Making {
        dialer: dialer.clone(),
        names: names.clone(),
        role,
        after,
        health: health.clone(),
        farewell: farewell.clone(),
        end: end.clone(),
    };
    let publishing = Link::make(making(Role::Publishing, None)).await?;
    let consuming = Link::make(making(Role::Consuming, Some(publishing.clone()))).await?;
    let registry = Arc::new(Registry::new(making(Role::Registry, Some(consuming.clone()))));
    let core = Arc::new(Core {
        publisher: Publisher::new(names.clone(), publishing.clone(), Some(registry.clone())),
        names,
        idle_expiry: options.idle_expiry,
        publishing,
        consuming,
        ages: Ages::new(),
        delays: Delays::default(),
        returns: Returns::default(),
        registry,
        reading: TaskTracker::new(),
        settling: TaskTracker::new(),
        closing: end.child_token(),
        farewell: farewell.clone(),
        end: end.clone(),
    });
    let watching = core.clone();
    tokio::spawn(async move { watching.end.run_until_cancelled(watching.ages.watch()).await });
    guard.disarm();
    Ok(Arc::new(AmqpBus { core, health, closed: AtomicBool::new(false), place }))
}

#[async_trait]
impl Bus for AmqpBus {
    async fn publish(&self, message: Message) -> Result<()> {
        self.open()?;
        self.core.publisher.publish(&message).await
    }

    async fn subscribe(&self, source: Source, prefetch: u16) -> Result<Subscription> {
        self.open()?;
        let (subscription, feed) = Subscription::new(prefetch);
        Reader::new(&self.core, &source, prefetch, feed).start().await?;
        self.open()?;
        Ok(subscription)
    }

    async fn close(&self) -> Result<()> {
        if self.closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let (core, deadline) = (&self.core, Instant::now() + BOUND);
        // Callers must see at once that nobody is here.
        core.closing.cancel();
        core.reading.close();
        core.settling.close();
        let over = async {
            core.reading.wait().await;
            core.settling.wait().await;
        };
        let over = timeout_at(deadline, over).await;
        core.registry.finish(deadline.min(Instant::now() + ENTERING)).await;
        core.farewell.cancel();
        let mut closed = Ok(());
        for link in [&core.consuming, &core.publishing] {
            if let Some(up) = link.now() {
                closed = closed.and(up.connection.close().await);
            }
        }
        core.end.cancel();
        closed.map_err(|fault| fault.into_error("closing the bus: what was settled last may come again"))?;
        over.map_err(|_| Error::timeout("closing the bus: settlements under way", BOUND).maybe_executed())
    }

    fn guarantees(&self) -> Guarantees {
        PROMISES
    }

    fn connection(&self) -> ConnectionWatch {
        self.health.connectivity.watch()
    }

    async fn survey(&self) -> Result<Survey> {
        self.open()?;
        survey::survey(&self.core, &self.place).await
    }

    async fn remove_durable(&self, name: &Token, idle: Option<Duration>) -> Result<bool> {
        self.open()?;
        self.core.remove(name, idle, Instant::now() + BOUND).await
    }
}

impl AmqpBus {
    fn open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::new(ErrorKind::Closed, format!("the bus on {} is closed", self.place)));
        }
        Ok(())
    }
}

impl Drop for AmqpBus {
    fn drop(&mut self) {
        self.core.end.cancel();
    }
}

impl fmt::Debug for AmqpBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AmqpBus").field("place", &self.place).finish_non_exhaustive()
    }
}
