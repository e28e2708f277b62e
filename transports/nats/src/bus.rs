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
    Bus, BusOptions, BusUri, ConnectionWatch, Durability, Error, ErrorKind, Guarantees, Message, Result,
    Source, Subscription, Survey, Token,
};
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    call::{self, Taken},
    clock::Clock,
    declare::{REPUBLISH, Stream},
    fault::Fault,
    fitness,
    hand::{Hand, NAK},
    link::Link,
    listen,
    names::Names,
    options::Options,
    publish::Publisher,
    survey,
};

/// The most that any one step takes which has no bound of its own.
pub(crate) const BOUND: Duration = Duration::from_secs(10);

/// What every server promises that is fit.
pub(crate) const PROMISES: Guarantees = Guarantees {
    durability: Durability::Kill,
    shared: true,
    replies_kept: false,
    republish_window: Some(REPUBLISH),
    shared_ledger: false,
    longest_run: None,
};

/// What all parts of a bus share.
pub(crate) struct Core {
    pub(crate) link: Arc<Link>,
    pub(crate) clock: Clock,
    pub(crate) hand: Arc<Hand>,
    pub(crate) taken: Arc<Taken>,
    pub(crate) place: String,
    pub(crate) idle_expiry: Duration,
    /// When the streams were made that all need, as far as we know: others took their place where that changes.
    pub(crate) events_since: watch::Sender<String>,
    pub(crate) records_since: watch::Sender<String>,
    /// Settlements under way, and those who fill subscriptions.
    pub(crate) settling: TaskTracker,
    pub(crate) listening: TaskTracker,
    /// Cancelled when nothing new is to be taken.
    pub(crate) closing: CancellationToken,
    /// Cancelled when nothing is settled any more.
    pub(crate) closed: CancellationToken,
}

struct NatsBus {
    core: Arc<Core>,
    publisher: Publisher,
    durability: Durability,
    closed: AtomicBool,
}

/// Connects, and refuses a server that is not fit.
pub(crate) async fn connect(uri: BusUri, options: BusOptions) -> Result<Arc<dyn Bus>> {
    let read = Options::read(&uri)?;
    let (place, demand) = (read.place.clone(), read.demand);
    let deadline = Instant::now() + 2 * BOUND;
    let end = CancellationToken::new();
    let guard = end.clone().drop_guard();
    let link = Link::connect(read, Names::new(&options.exchange), &options.client_name, end).await?;
    let durability = fitness::check(&link, &place, demand, deadline).await?;
    let events = Stream::events(&link).since(&link, deadline).await?;
    let records = Stream::records(&link).since(&link, deadline).await?;
    let clock = Clock::new();
    clock
        .set(&link, deadline)
        .await
        .map_err(|fault| fault.into_error(&format!("asking {place} for the time")))?;
    let core = Arc::new(Core {
        hand: Hand::start(link.clone()),
        taken: Arc::default(),
        clock,
        place,
        idle_expiry: options.idle_expiry,
        events_since: watch::Sender::new(events),
        records_since: watch::Sender::new(records),
        settling: TaskTracker::new(),
        listening: TaskTracker::new(),
        closing: CancellationToken::new(),
        closed: CancellationToken::new(),
        link,
    });
    tokio::spawn(call::tell(core.link.clone(), core.taken.clone()));
    tokio::spawn(listen::care(core.clone()));
    guard.disarm();
    Ok(Arc::new(NatsBus {
        publisher: Publisher::new(core.clone()),
        core,
        durability,
        closed: AtomicBool::new(false),
    }))
}

#[async_trait]
impl Bus for NatsBus {
    async fn publish(&self, message: Message) -> Result<()> {
        self.open()?;
        self.publisher.publish(&message).await
    }

    async fn subscribe(&self, source: Source, prefetch: u16) -> Result<Subscription> {
        self.open()?;
        let (subscription, feed) = Subscription::new(prefetch);
        let what = format!("subscribing to {source}");
        let deadline = Instant::now() + BOUND;
        let made = timeout_at(deadline, listen::start(&self.core, source, feed, prefetch, deadline)).await;
        made.map_err(|_| Error::timeout(&what, BOUND))??;
        self.open()?;
        Ok(subscription)
    }

    async fn close(&self) -> Result<()> {
        if self.closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let (core, deadline) = (&self.core, Instant::now() + BOUND);
        // First nothing new is taken, then what is being settled is settled, then the rest is given back.
        core.closing.cancel();
        core.listening.close();
        let listened = timeout_at(deadline, core.listening.wait()).await;
        core.closed.cancel();
        core.settling.close();
        let settled = timeout_at(deadline, core.settling.wait()).await;
        for ack in core.hand.empty() {
            core.link.post(ack, NAK).await;
        }
        let told = core.link.echo(deadline.min(Instant::now() + Duration::from_secs(2))).await;
        // It ends by itself once nobody holds it.
        let _ = core.link.client().drain().await;
        core.link.end.cancel();
        match (listened, settled, told) {
            (Ok(()), Ok(()), Ok(_)) => Ok(()),
            (_, Err(_), _) | (Err(_), ..) => {
                Err(Error::timeout(format_args!("closing the bus on {}", core.place), BOUND))
            }
            // Nothing was in hand that a server which is gone does not give to others by itself.
            (.., Err(Fault::NotSent | Fault::Late | Fault::Lost)) => Ok(()),
            (.., Err(fault)) => Err(fault.into_error(&format!("leaving {}", core.place))),
        }
    }

    fn guarantees(&self) -> Guarantees {
        Guarantees { durability: self.durability, ..PROMISES }
    }

    fn connection(&self) -> ConnectionWatch {
        self.core.link.connectivity.watch()
    }

    async fn survey(&self) -> Result<Survey> {
        self.open()?;
        let deadline = Instant::now() + BOUND;
        let what = || format!("looking over {}", self.core.place);
        let seen = timeout_at(deadline, survey::survey(&self.core, deadline)).await;
        seen.map_err(|_| Error::timeout(what(), BOUND))?.map_err(|fault| fault.into_error(&what()))
    }

    async fn remove_durable(&self, name: &Token, idle: Option<Duration>) -> Result<bool> {
        self.open()?;
        let deadline = Instant::now() + BOUND;
        let what = || format!("removing durable {name}");
        let removed = timeout_at(deadline, survey::remove(&self.core, name, idle, deadline)).await;
        removed.map_err(|_| Error::timeout(what(), BOUND))?.map_err(|fault| fault.into_error(&what()))
    }
}

impl NatsBus {
    fn open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::new(ErrorKind::Closed, format!("the bus on {} is closed", self.core.place)));
        }
        Ok(())
    }
}

impl Drop for NatsBus {
    fn drop(&mut self) {
        self.core.closing.cancel();
        self.core.closed.cancel();
        self.core.link.end.cancel();
    }
}

impl fmt::Debug for NatsBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsBus")
            .field("place", &self.core.place)
            .field("durability", &self.durability)
            .finish()
    }
}
