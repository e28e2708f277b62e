//! The bus: one core shared by publishing, listening and settling.

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
    Bus, BusOptions, BusUri, ConnectionWatch, Durability, Error, ErrorKind, Guarantees, Ledger, Message,
    Result, Source, Subscription, Survey, Token,
};
use commissaire_redis_link::{address::Address, ledger::RedisLedger};
use tokio::{
    sync::Notify,
    time::{Instant, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

use crate::{
    durable, fitness,
    keys::Keys,
    lines::Lines,
    link::{Dialer, Link, Plain},
    listen::{calls::Calls, care, pubsub::PubSub, streams::Streams},
    options,
    publish::Publisher,
    script::{LEDGER, TEXTS},
    settle::Settler,
    survey,
    wire::Fault,
};

/// The most that any one step takes which has no bound of its own.
pub(crate) const BOUND: Duration = Duration::from_secs(10);

/// What a server promises that has `appendonly yes`, `appendfsync always` and `maxmemory-policy noeviction`.
pub(crate) const PROMISES: Guarantees = Guarantees {
    durability: Durability::Power,
    shared: true,
    replies_kept: true,
    republish_window: None,
    shared_ledger: true,
    longest_run: None,
};

/// What all parts of a bus share.
pub(crate) struct Core {
    pub(crate) keys: Keys,
    /// This process among the consumers of the exchange.
    pub(crate) id: String,
    /// After how many ms without a reader a durable subscription that is made here may be removed.
    pub(crate) expiry: u64,
    pub(crate) lines: Arc<Lines>,
    pub(crate) main: Link,
    pub(crate) dialer: Dialer,
    /// Cancelled when everything must end.
    pub(crate) end: CancellationToken,
    /// Notified when something may have been given back by another consumer.
    pub(crate) nudge: Notify,
}

struct RedisBus {
    core: Arc<Core>,
    publisher: Publisher,
    pubsub: Arc<PubSub>,
    calls: Arc<Calls>,
    streams: Arc<Streams>,
    settler: Arc<Settler>,
    durability: Durability,
    closed: AtomicBool,
    /// Which product and version the server is.
    product: String,
    place: String,
}

/// Connects, and refuses a server that is not fit.
pub(crate) async fn connect(uri: BusUri, options: BusOptions) -> Result<Arc<dyn Bus>> {
    let Address { client, place, demand } = options::read(&uri)?;
    let lines = Arc::new(Lines::new(&place));
    let dialer = Dialer::new(client, &place, &options.client_name, lines.clone(), TEXTS, "rediss");
    let first = dialer.dial(|_| {}).await?;
    let (durability, version) = fitness::check(&first, &place, demand).await?;
    fitness::warn_of_reference(&first, &place, options.exchange.as_str()).await;
    let end = CancellationToken::new();
    let guard = end.clone().drop_guard();
    let main = Link::keep("main", dialer.clone(), Arc::new(Plain), Some(first), None, end.clone());
    let core = Arc::new(Core {
        keys: Keys::new(&options.exchange),
        id: format!("{:032x}", rand::random::<u128>()),
        expiry: u64::try_from(options.idle_expiry.as_millis()).unwrap_or(u64::MAX).clamp(1, 1 << 40),
        lines,
        main,
        dialer,
        end,
        nudge: Notify::new(),
    });
    let settler = Settler::start(core.clone());
    let pubsub = PubSub::start(core.clone());
    let calls = Calls::new(core.clone(), pubsub.clone());
    let streams = Streams::new(core.clone(), settler.clone());
    care::start(core.clone(), streams.clone());
    guard.disarm();
    Ok(Arc::new(RedisBus {
        publisher: Publisher::new(core.clone()),
        core,
        pubsub,
        calls,
        streams,
        settler,
        durability,
        closed: AtomicBool::new(false),
        product: format!("Redis {version}"),
        place,
    }))
}

#[async_trait]
impl Bus for RedisBus {
    async fn publish(&self, message: Message) -> Result<()> {
        self.open()?;
        self.publisher.publish(&message).await
    }

    async fn subscribe(&self, source: Source, prefetch: u16) -> Result<Subscription> {
        self.open()?;
        let (subscription, feed) = Subscription::new(prefetch);
        let what = format!("subscribing to {source}");
        let deadline = Instant::now() + BOUND;
        let made = async {
            match source {
                Source::Service(service) => self.calls.add(service, feed, deadline).await,
                Source::Queue(_) | Source::Durable(..) | Source::DeadLetters(_) => {
                    self.streams.add(&source, feed, deadline).await
                }
                Source::Topic(patterns) => self.pubsub.topic(patterns, feed, deadline).await,
                Source::Control(service) => self.pubsub.control(&service, feed, deadline).await,
                Source::Inbox(inbox) => self.pubsub.inbox(inbox, feed, deadline).await,
            }
        };
        let made = timeout_at(deadline, made).await.map_err(|_| Error::timeout(&what, BOUND))?;
        made.map_err(|fault| fault.into_error(&what))?;
        self.open()?;
        Ok(subscription)
    }

    async fn close(&self) -> Result<()> {
        if self.closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let deadline = Instant::now() + BOUND;
        // Callers must see at once that nobody is here; what was popped until then still comes out.
        self.calls.close(deadline).await;
        self.pubsub.close(deadline).await;
        self.streams.close(deadline).await;
        let settled = self.settler.finish(deadline).await;
        self.streams.leave(deadline).await;
        self.core.end.cancel();
        settled
    }

    fn guarantees(&self) -> Guarantees {
        Guarantees { durability: self.durability, ..PROMISES }
    }

    fn connection(&self) -> ConnectionWatch {
        self.core.lines.watch()
    }

    async fn survey(&self) -> Result<Survey> {
        self.open()?;
        let what = format!("a survey of {}", self.place);
        let told = async {
            let wire = self.core.main.wire(Instant::now() + BOUND).await.ok_or(Fault::NotSent)?;
            let mut survey = survey::survey(&self.core, &wire).await?;
            survey.broker = self.place.replacen("redis", &self.product, 1);
            fitness::survey(&wire, &self.place, &mut survey).await;
            Ok(survey)
        };
        let told = timeout(BOUND, told).await.map_err(|_| Error::timeout(&what, BOUND))?;
        told.map_err(|fault: Fault| fault.into_error(&what))
    }

    async fn remove_durable(&self, name: &Token, idle: Option<Duration>) -> Result<bool> {
        self.open()?;
        durable::remove(&self.core, name, idle).await
    }

    fn ledger(&self) -> Option<Arc<dyn Ledger>> {
        Some(Arc::new(RedisLedger::new(self.core.main.clone(), self.core.keys.prefix().to_owned(), LEDGER)))
    }
}

impl RedisBus {
    fn open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::new(ErrorKind::Closed, format!("the bus on {} is closed", self.place)));
        }
        Ok(())
    }
}

impl Drop for RedisBus {
    fn drop(&mut self) {
        self.core.end.cancel();
    }
}

impl fmt::Debug for RedisBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisBus").field("place", &self.place).field("durability", &self.durability).finish()
    }
}
