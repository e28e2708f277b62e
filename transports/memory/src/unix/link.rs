//! The connection to the process that shares the bus, made again whenever it is lost.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use commissaire::{Connectivity, Error, ErrorKind, Feed, Result, Source, Subscription, Token};
use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;

use crate::unix::frame::{self, Ask, Verdict, WireSource};

/// The longest that a step waits for the other process, where the message says nothing shorter.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Debug)]
pub(crate) struct Link {
    pub(super) path: PathBuf,
    pub(super) exchange: Token,
    pub(super) connectivity: Connectivity,
    /// After how long without a reader a durable subscription that is made here may be removed.
    expiry: Duration,
    pub(super) wire: watch::Sender<Option<Wire>>,
    pub(super) closing: CancellationToken,
    state: Mutex<State>,
    leaving: CancellationToken,
    settled: Notify,
}

/// One connection, while it lasts.
#[derive(Debug, Clone)]
pub(super) struct Wire {
    pub(super) epoch: u64,
    pub(super) frames: mpsc::Sender<Bytes>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    last: u64,
    pub(super) asked: HashMap<u64, Asker>,
    pub(super) taken: HashMap<u64, Arc<Taken>>,
}

/// Who wants to know an answer.
#[derive(Debug)]
pub(super) enum Asker {
    Waits(oneshot::Sender<Result<Bytes>>),
    /// A subscription that was taken up again on a new connection.
    Again(Arc<Taken>),
}

/// A subscription as this process knows it.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) source: Source,
    prefetch: u16,
    feed: Mutex<Option<Feed>>,
}

/// A delivery as the other process knows it.
#[derive(Debug)]
pub(crate) struct Hand {
    pub(super) epoch: u64,
    pub(super) delivery: u64,
    /// Whether it must be settled, or only takes a place.
    pub(crate) settles: bool,
}

impl Link {
    /// A link over `wire`, which is a connection to `path`.
    pub(super) fn new(path: PathBuf, exchange: Token, expiry: Duration, wire: Wire) -> Self {
        Self {
            connectivity: Connectivity::new(name(&path)),
            path,
            exchange,
            expiry,
            wire: watch::Sender::new(Some(wire)),
            closing: CancellationToken::new(),
            state: Mutex::default(),
            leaving: CancellationToken::new(),
            settled: Notify::new(),
        }
    }

    /// What it is connected to.
    pub(crate) fn name(&self) -> String {
        name(&self.path)
    }

    /// Sends what `pack` makes and waits for the answer, at most `limit`. Waits for a connection if there is none.
    pub(crate) async fn ask(
        &self,
        limit: Duration,
        what: impl Fn() -> String,
        pack: impl FnOnce(u64) -> Bytes,
    ) -> Result<Bytes> {
        let until = Instant::now() + limit;
        let wire = self.connected(until, &what).await?;
        self.ask_on(&wire, until, limit, what, pack, || {}).await
    }

    async fn ask_on(
        &self,
        wire: &Wire,
        until: Instant,
        limit: Duration,
        what: impl Fn() -> String,
        pack: impl FnOnce(u64) -> Bytes,
        sent: impl FnOnce(),
    ) -> Result<Bytes> {
        let (sender, answer) = oneshot::channel();
        let n = self.expect_answer(Asker::Waits(sender));
        let _forget = Forget { link: self, n };
        match timeout_at(until, wire.frames.reserve()).await {
            Err(_) => return Err(Error::timeout(what(), limit)),
            Ok(Err(_)) => return Err(Error::unavailable(format!("{}: the connection is lost", what()))),
            Ok(Ok(room)) => room.send(pack(n)),
        }
        sent();
        match timeout_at(until, answer).await {
            Err(_) => Err(Error::timeout(what(), limit).maybe_executed()),
            Ok(Err(_)) => {
                Err(Error::unavailable(format!("{}: the connection was lost", what())).maybe_executed())
            }
            Ok(Ok(outcome)) => outcome,
        }
    }

    /// Subscribes, and again after each lost connection.
    pub(crate) async fn subscribe(
        self: &Arc<Self>,
        source: Source,
        prefetch: u16,
        limit: Duration,
    ) -> Result<Subscription> {
        // The other process keeps to the prefetch limit; this end only counts.
        let (subscription, feed) = Subscription::new(u16::MAX);
        let until = Instant::now() + limit;
        let what = || format!("subscribing to {source} over {}", self.name());
        let taken = Arc::new(Taken { source: source.clone(), prefetch, feed: Mutex::new(None) });
        let wire = self.connected(until, what).await?;
        let id = {
            let mut state = self.lock();
            state.last += 1;
            let id = state.last;
            *taken.feed.lock().unwrap_or_else(PoisonError::into_inner) = Some(feed);
            state.taken.insert(id, taken.clone());
            id
        };
        // From here on whoever drops the subscription, this future among them, lets the other process know.
        let (link, closed) = (self.clone(), taken.with_feed(Feed::closing));
        tokio::spawn(async move {
            if let Some(closed) = closed {
                closed.cancelled().await;
            }
            link.stop(id).await;
        });
        self.ask_on(&wire, until, limit, what, |n| self.pack(&taken, n, id), || {}).await?;
        taken.with_feed(|feed| feed.consuming().set(true));
        Ok(subscription)
    }

    /// Settles what `hand` names and waits for the answer.
    pub(crate) async fn settle(
        &self,
        hand: &Hand,
        verdict: Verdict,
        tail: &[u8],
        limit: Duration,
    ) -> Result<Bytes> {
        let what = || format!("settling a delivery over {}", self.name());
        let wire = self.wire.borrow().clone().filter(|wire| wire.epoch == hand.epoch);
        let lost =
            || Error::unavailable(format!("{}: its connection was lost, so the message comes again", what()));
        let wire = wire.ok_or_else(lost)?;
        let until = Instant::now() + limit;
        let pack = |n| frame::pack(&Ask::Settle { n, delivery: hand.delivery, verdict }, tail);
        let mut unsent = Unsent { link: self, hand, armed: true };
        self.ask_on(&wire, until, limit, what, pack, || unsent.armed = false).await
    }

    /// Gives back what `hand` names; after a lost connection that has happened already.
    pub(crate) fn release(&self, hand: &Hand) {
        let Some(wire) = self.wire.borrow().clone().filter(|wire| wire.epoch == hand.epoch) else { return };
        let packed = frame::pack(&Ask::Release { delivery: hand.delivery }, &[]);
        if let Err(mpsc::error::TrySendError::Full(packed)) = wire.frames.try_send(packed) {
            // No runtime means that the process is ending, which gives everything back as well.
            if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                runtime.spawn(async move {
                    let _ = wire.frames.send(packed).await;
                });
            }
        }
    }

    /// Ends all subscriptions after what they had taken, waits for the answers that are due, and disconnects.
    pub(crate) async fn close(&self) {
        self.leaving.cancel();
        let all: Vec<u64> = self.lock().taken.keys().copied().collect();
        for id in all {
            self.stop(id).await;
        }
        loop {
            let settled = self.settled.notified();
            tokio::pin!(settled);
            settled.as_mut().enable();
            {
                let state = self.lock();
                if state.asked.is_empty() && state.taken.is_empty() {
                    break;
                }
            }
            settled.await;
        }
        self.closing.cancel();
    }

    /// Lets the other process send no more for a subscription; it ends when that has been said.
    async fn stop(&self, id: u64) {
        let wire = self.wire.borrow().clone();
        let told = match wire {
            Some(wire) => wire.frames.send(frame::pack(&Ask::Close { subscription: id }, &[])).await.is_ok(),
            None => false,
        };
        if !told {
            self.end(id);
        }
    }

    /// Waits for a connection.
    async fn connected(&self, until: Instant, what: impl Fn() -> String) -> Result<Wire> {
        let mut wires = self.wire.subscribe();
        let closed = || Error::new(ErrorKind::Closed, format!("{}: the bus is closed", what()));
        if self.leaving.is_cancelled() || self.closing.is_cancelled() {
            return Err(closed());
        }
        tokio::select! {
            () = self.closing.cancelled() => Err(closed()),
            found = timeout_at(until, wires.wait_for(Option::is_some)) => match found {
                Ok(Ok(wire)) => wire.clone().ok_or_else(closed),
                Ok(Err(_)) => Err(closed()),
                Err(_) => Err(Error::unavailable(format!("{}: nobody shares the bus there now", what()))),
            },
        }
    }

    /// What subscribes to what `taken` is.
    pub(super) fn pack(&self, taken: &Taken, n: u64, subscription: u64) -> Bytes {
        let (source, expiry_ms) = (WireSource::from(&taken.source), frame::millis(self.expiry));
        frame::pack(&Ask::Subscribe { n, subscription, source, prefetch: taken.prefetch, expiry_ms }, &[])
    }

    pub(super) fn expect_answer(&self, asker: Asker) -> u64 {
        let mut state = self.lock();
        state.last += 1;
        let n = state.last;
        state.asked.insert(n, asker);
        n
    }

    /// Ends one subscription: its consumer reads what is left, then the end.
    pub(super) fn end(&self, id: u64) {
        let taken = self.lock().taken.remove(&id);
        if let Some(taken) = taken {
            drop(taken.feed.lock().unwrap_or_else(PoisonError::into_inner).take());
        }
        self.settled.notify_waiters();
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gives a delivery back whose settlement never left this process.
struct Unsent<'a> {
    link: &'a Link,
    hand: &'a Hand,
    armed: bool,
}

impl Drop for Unsent<'_> {
    fn drop(&mut self) {
        if self.armed {
            self.link.release(self.hand);
        }
    }
}

/// Forgets a question whose asker has gone.
struct Forget<'a> {
    link: &'a Link,
    n: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.link.lock().asked.remove(&self.n);
        self.link.settled.notify_waiters();
    }
}

fn name(path: &Path) -> String {
    format!("unix://{}", path.display())
}

impl Taken {
    pub(super) fn settles(&self) -> bool {
        matches!(self.source, Source::Queue(_) | Source::Durable(..) | Source::DeadLetters(_))
    }

    pub(super) fn with_feed<R>(&self, use_it: impl FnOnce(&Feed) -> R) -> Option<R> {
        self.feed.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(use_it)
    }
}
