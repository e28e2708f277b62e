//! The bus: one core shared by publishing, listening and settling.

use std::{
    collections::HashSet,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use commissaire::{
    Bus, BusOptions, BusUri, ConnectionWatch, Durability, Error, ErrorKind, Guarantees, Ledger, Message,
    Result, Source, Subscription, Survey, Token,
};
use commissaire_redis_link::{address::Address, ledger::RedisLedger};
use redis::{Pipeline, Value};
use tokio::{
    sync::{Notify, RwLock},
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    bindings::Bindings,
    care, durable,
    ears::{Ears, Hearing},
    fitness,
    lines::Lines,
    link::{DEAF, Dialer, Link, Tenant},
    listen::listen,
    names::Names,
    options,
    publish::Publisher,
    replies::Replies,
    script::{LEDGER, TEXTS},
    survey,
    tap::Tap,
    value::int,
    wire::{Fault, Wire, no_error},
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
    pub(crate) names: Names,
    /// This process among the readers of the exchange.
    pub(crate) id: String,
    /// After how many ms without a reader a durable subscription that is made here may be removed.
    pub(crate) expiry: u64,
    pub(crate) main: Link,
    pub(crate) ears: Arc<Ears>,
    pub(crate) replies: Replies,
    /// Held while messages are on their way from the server to a consumer.
    pub(crate) taking: RwLock<()>,
    /// Readers, and settlements under way.
    pub(crate) tasks: TaskTracker,
    /// Cancelled when everything must end.
    pub(crate) end: CancellationToken,
    /// This process may hold what it does not know of.
    pub(crate) forgotten: Notify,
    held: Mutex<HashSet<String>>,
    counter: AtomicU64,
    closed: AtomicBool,
}

struct KombuBus {
    core: Arc<Core>,
    publisher: Publisher,
    lines: Arc<Lines>,
    durability: Durability,
    /// Which product and version the server is.
    product: String,
    place: String,
}

/// Connects, and refuses a server that is not fit.
pub(crate) async fn connect(uri: BusUri, options: BusOptions) -> Result<Arc<dyn Bus>> {
    let (Address { client, place, demand }, layout) = options::read(&uri)?;
    let lines = Arc::new(Lines::new(&place));
    let dialer = Dialer::new(client, &place, &options.client_name, lines.clone(), TEXTS, "kombu+rediss");
    let names = Names::new(&options.exchange, layout);
    let ears = Arc::new(Ears::new(names.clone()));
    let hearing = Arc::new(Hearing(ears.clone()));
    let ear = hearing.clone();
    let first = dialer.dial(move |push| ear.heard(push)).await?;
    let (durability, version) = fitness::check(&first, &place, demand).await?;
    let end = CancellationToken::new();
    let guard = end.clone().drop_guard();
    let main = Link::keep("main", dialer, hearing, Some(first), None, end.clone());
    let core = Arc::new(Core {
        names,
        id: format!("{:032x}", rand::random::<u128>()),
        expiry: u64::try_from(options.idle_expiry.as_millis()).unwrap_or(u64::MAX).clamp(1, 1 << 40),
        main,
        ears,
        replies: Replies::default(),
        taking: RwLock::default(),
        tasks: TaskTracker::new(),
        end,
        forgotten: Notify::new(),
        held: Mutex::default(),
        counter: AtomicU64::new(0),
        closed: AtomicBool::new(false),
    });
    care::start(core.clone());
    guard.disarm();
    Ok(Arc::new(KombuBus {
        publisher: Publisher::new(core.clone()),
        core,
        lines,
        durability,
        product: format!("Redis {version}"),
        place,
    }))
}

impl Core {
    /// What notes are under that are made next, the number of each apart.
    pub(crate) fn next_tag(&self) -> String {
        format!("{}.{}", self.id, self.counter.fetch_add(1, Ordering::Relaxed))
    }

    /// A message is in hand.
    pub(crate) fn holds(&self, tag: &str) {
        self.held().insert(tag.to_owned());
    }

    /// It is no more.
    pub(crate) fn let_go(&self, tag: &str) {
        self.held().remove(tag);
    }

    /// The notes of all that is in hand.
    pub(crate) fn held(&self) -> MutexGuard<'_, HashSet<String>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What this process holds and does not know of is to be looked for.
    pub(crate) fn look_back(&self) {
        self.forgotten.notify_one();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// The routing table as it is now.
    pub(crate) async fn bindings(&self, wire: &Wire) -> Result<Bindings, Fault> {
        let [table, _] = self.names.bindings(self.names.exchange());
        let mut pipeline = Pipeline::new();
        pipeline.cmd("GET").arg(self.names.own("v", ""));
        pipeline.cmd("SMEMBERS").arg(&table);
        pipeline.cmd("HKEYS").arg(self.names.own("made", ""));
        let mut answers = wire.ask_all(&pipeline, DEAF).await?.into_iter();
        let mut next = || no_error(answers.next().unwrap_or(Value::Nil));
        let (version, members) = (next()?, next().map_err(|fault| fault.about(&table))?);
        Ok(Bindings::read(&self.names, version, members, next()?))
    }

    /// Makes what `tap` reads; `keep` as [`Tap::declaring`] has it.
    pub(crate) async fn declare(&self, wire: &Wire, tap: &Tap, keep: bool) -> Result<(), Fault> {
        if let Some(command) = tap.declaring(&self.names, wire.digests(), &self.id, keep, self.expiry) {
            let made = wire.ask(&command, DEAF).await?;
            tap.made(int(&made) != Some(0));
        }
        self.beat(wire, Some(tap)).await
    }

    /// Says that this process lives, and which services it runs: those of `tap`, or of all.
    pub(crate) async fn beat(&self, wire: &Wire, tap: Option<&Tap>) -> Result<(), Fault> {
        let mut pipeline = Pipeline::new();
        let mut lives = vec![self.names.own("live", &self.id)];
        match tap {
            Some(tap) => lives.extend(tap.life(&self.names)),
            None => {
                let reading = |tap: &Arc<Tap>| tap.feed().is_some_and(|feed| !feed.is_closed());
                let taps = self.ears.taps().into_iter().filter(reading);
                lives.extend(taps.filter_map(|tap| tap.life(&self.names)));
            }
        }
        for life in lives {
            pipeline.cmd("SET").arg(life).arg(1).arg("PX").arg(care::LIFE.as_millis() as u64);
        }
        pipeline.cmd("SADD").arg(self.names.own("processes", "")).arg(&self.id);
        for answer in wire.ask_all(&pipeline, DEAF).await? {
            no_error(answer)?;
        }
        Ok(())
    }

    async fn add(self: &Arc<Self>, tap: &Arc<Tap>, deadline: Instant) -> Result<(), Fault> {
        loop {
            let wire = self.main.wire(deadline).await.ok_or(Fault::NotSent)?;
            let made = async {
                self.declare(&wire, tap, false).await?;
                self.ears.add(tap, &wire).await
            };
            match made.await {
                Ok(()) => break,
                Err(fault @ Fault::Refused { .. }) if !fault.passes() && !fault.is("NOSCRIPT") => {
                    return Err(fault);
                }
                // Declaring twice declares once.
                Err(_) if Instant::now() < deadline => {
                    self.ears.remove(tap);
                    sleep(Duration::from_millis(20)).await;
                }
                Err(fault) => return Err(fault),
            }
        }
        tap.consuming(true);
        Ok(())
    }
}

#[async_trait]
impl Bus for KombuBus {
    async fn publish(&self, message: Message) -> Result<()> {
        self.open()?;
        self.publisher.publish(&message).await
    }

    async fn subscribe(&self, source: Source, prefetch: u16) -> Result<Subscription> {
        self.open()?;
        let (subscription, feed) = Subscription::new(prefetch);
        let what = format!("subscribing to {source}");
        let deadline = Instant::now() + BOUND;
        let reader = self.core.next_tag();
        let tap = Arc::new(Tap::new(source, feed, &self.core.names, reader));
        let (core, adding) = (self.core.clone(), tap.clone());
        // Who stops waiting leaves nothing behind: the reader finds the subscription closed, and leaves.
        let made = self.core.tasks.spawn(async move {
            let made = core.add(&adding, deadline).await;
            if made.is_ok() {
                let reading = core.clone();
                core.tasks.spawn(async move {
                    let end = reading.end.clone();
                    if end.run_until_cancelled(listen(reading, adding.clone())).await.is_none() {
                        adding.end();
                    }
                });
            } else {
                core.ears.remove(&adding);
                adding.end();
            }
            made
        });
        let made = timeout_at(deadline, made).await.map_err(|_| Error::timeout(&what, BOUND))?;
        made.unwrap_or(Err(Fault::NotSent)).map_err(|fault| fault.into_error(&what))?;
        self.open()?;
        Ok(subscription)
    }

    async fn close(&self) -> Result<()> {
        if self.core.closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let core = &self.core;
        let deadline = Instant::now() + BOUND;
        for feed in core.ears.taps().iter().filter_map(|tap| tap.feed()) {
            feed.closing().cancel();
        }
        core.tasks.close();
        let settled = match core.main.now() {
            Some(_) => timeout_at(deadline, core.tasks.wait()).await.map_err(|_| {
                Error::new(
                    ErrorKind::Timeout,
                    "closing the bus: settlements under way did not reach redis in time",
                )
                .maybe_executed()
            }),
            None => Ok(()),
        };
        if let Some(wire) = core.main.now() {
            let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_secs(1));
            let _ = timeout(left, care::leave(core, &wire)).await;
        }
        core.end.cancel();
        settled
    }

    fn guarantees(&self) -> Guarantees {
        Guarantees { durability: self.durability, ..PROMISES }
    }

    fn connection(&self) -> ConnectionWatch {
        self.lines.watch()
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
        let core = &self.core;
        Some(Arc::new(RedisLedger::new(core.main.clone(), core.names.prefix().to_owned(), LEDGER)))
    }
}

impl KombuBus {
    fn open(&self) -> Result<()> {
        if self.core.is_closed() {
            return Err(Error::new(ErrorKind::Closed, format!("the bus on {} is closed", self.place)));
        }
        Ok(())
    }
}

impl Drop for KombuBus {
    fn drop(&mut self) {
        self.core.end.cancel();
    }
}

impl fmt::Debug for KombuBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KombuBus").field("place", &self.place).field("durability", &self.durability).finish()
    }
}
