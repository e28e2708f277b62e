//! A line: messages waiting in order, drawn by any number of consumers.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use commissaire::Message;
use tokio::{sync::Notify, time::Instant};

/// The most messages that a queue or a durable subscription holds.
const STORED: usize = 1_000_000;
/// The most bytes that a queue, a durable subscription or the calls to a service hold.
const STORED_BYTES: usize = 256 << 20;
/// The most calls that wait for a service.
const CALLS: usize = 10_000;
/// The most messages that wait for a slow ephemeral subscriber, an inbox or a control subscription.
const PASSING: usize = 16_384;
/// The most bytes of them.
const PASSING_BYTES: usize = 64 << 20;
/// What a message takes beside itself, estimated.
const OVERHEAD: usize = 512;
/// How long a call waits that names no time to live.
const CALL_TTL: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Debug)]
pub(crate) struct Line {
    kind: Kind,
    state: Mutex<State>,
    changed: Notify,
}

/// What sort of line it is, which decides its limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A queue, a durable subscription, dead letters.
    Stored,
    /// Calls to a service: each has an end of life.
    Calls,
    /// Messages that are lost when they cannot be handed over.
    Passing,
}

#[derive(Debug, Default)]
struct State {
    ready: BTreeMap<u64, Entry>,
    resting: BTreeMap<(Instant, u64), Entry>,
    last: u64,
    held: usize,
    bytes: usize,
    lost: u64,
    consumers: usize,
    /// How often it was cleared: what was drawn before is no longer its own.
    cleared: u64,
}

/// What is in a line.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) waiting: u64,
    pub(crate) in_hand: u64,
    pub(crate) resting: u64,
    pub(crate) consumers: u64,
    /// How long the oldest has been there that waits or rests.
    pub(crate) oldest: Option<Duration>,
}

/// A message in a line or in a consumer's hands.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) message: Message,
    pub(crate) redelivered: u32,
    order: u64,
    since: Instant,
    expires: Option<Instant>,
    lost_before: u64,
    cleared: u64,
}

/// What a consumer draws.
#[derive(Debug)]
pub(crate) enum Drawn {
    Entry(Entry),
    /// So many messages were lost before the next.
    Lost(u64),
}

impl Line {
    pub(crate) fn new(kind: Kind) -> Self {
        Self { kind, state: Mutex::default(), changed: Notify::new() }
    }

    /// Whether `message` fits. Holds until the next [`push`](Self::push) as long as pushes are serialised by the caller.
    pub(crate) fn has_room(&self, message: &Message) -> bool {
        self.fits(message.size() + OVERHEAD)
    }

    /// Whether not even an empty message fits.
    pub(crate) fn is_full(&self) -> bool {
        !self.fits(OVERHEAD)
    }

    fn fits(&self, more: usize) -> bool {
        let state = self.lock();
        let fits = |most: usize| state.bytes + more <= most;
        match self.kind {
            Kind::Stored => state.held < STORED && fits(STORED_BYTES),
            Kind::Calls => state.held < CALLS && fits(STORED_BYTES),
            Kind::Passing => state.held < PASSING && fits(PASSING_BYTES),
        }
    }

    /// Appends `message`, or counts it as lost where it only passes and does not fit.
    pub(crate) fn push(&self, message: Message) {
        if self.kind == Kind::Passing && !self.has_room(&message) {
            self.lock().lost += 1;
            self.changed.notify_one();
            return;
        }
        let expires = (self.kind == Kind::Calls).then(|| Instant::now() + message.ttl().unwrap_or(CALL_TTL));
        let mut state = self.lock();
        let lost_before = std::mem::take(&mut state.lost);
        let entry = Entry { expires, lost_before, ..state.entry(message) };
        state.ready.insert(entry.order, entry);
        drop(state);
        self.changed.notify_one();
    }

    /// Draws the next message, waiting for one. Cancel-safe.
    pub(crate) async fn draw(&self) -> Drawn {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            match self.try_draw() {
                Ok(drawn) => return drawn,
                Err(None) => changed.await,
                Err(Some(due)) => {
                    tokio::select! {
                        () = changed => {}
                        () = tokio::time::sleep_until(due) => {}
                    }
                }
            }
        }
    }

    /// Draws the next message; else says when one that rests is due.
    fn try_draw(&self) -> Result<Drawn, Option<Instant>> {
        let now = Instant::now();
        let mut state = self.lock();
        state.wake_resting(now);
        let drawn = loop {
            let Some(mut first) = state.ready.first_entry() else {
                if state.lost > 0 {
                    break Drawn::Lost(std::mem::take(&mut state.lost));
                }
                return Err(state.resting.keys().next().map(|(due, _)| *due));
            };
            if first.get().lost_before > 0 {
                break Drawn::Lost(std::mem::take(&mut first.get_mut().lost_before));
            }
            let entry = first.remove();
            if entry.expires.is_some_and(|expires| expires <= now) {
                state.forget(&entry);
                continue;
            }
            break Drawn::Entry(entry);
        };
        let more = !state.ready.is_empty() || !state.resting.is_empty() || state.lost > 0;
        drop(state);
        if more {
            self.changed.notify_one();
        }
        Ok(drawn)
    }

    /// A drawn entry is done with.
    pub(crate) fn forget(&self, entry: &Entry) {
        self.lock().forget(entry);
    }

    /// A drawn entry comes back to its place in the order; `suspect` when its consumer died with it in hand.
    pub(crate) fn give_back(&self, mut entry: Entry, suspect: bool) {
        if suspect {
            entry.redelivered += 1;
        }
        let mut state = self.lock();
        if entry.cleared == state.cleared {
            state.ready.insert(entry.order, entry);
        }
        drop(state);
        self.changed.notify_one();
    }

    /// `message` takes the place of the drawn `old`, to be drawn again after `after`.
    pub(crate) fn rest(&self, old: &Entry, message: Message, after: Duration) {
        let mut state = self.lock();
        if old.cleared == state.cleared {
            state.forget(old);
            let (entry, due) = (state.entry(message), Instant::now() + after);
            state.resting.insert((due, entry.order), entry);
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Forgets all that it holds, what is in hand included.
    pub(crate) fn clear(&self) {
        let mut state = self.lock();
        state.cleared += 1;
        (state.held, state.bytes) = (0, 0);
        let gone = (std::mem::take(&mut state.ready), std::mem::take(&mut state.resting));
        drop(state);
        drop(gone);
    }

    /// What is in it now.
    pub(crate) fn counts(&self) -> Counts {
        let now = Instant::now();
        let mut state = self.lock();
        state.wake_resting(now);
        let (waiting, resting) = (state.ready.len(), state.resting.len());
        let first = state.ready.values().next().into_iter();
        Counts {
            waiting: waiting as u64,
            in_hand: state.held.saturating_sub(waiting + resting) as u64,
            resting: resting as u64,
            consumers: state.consumers as u64,
            oldest: first.chain(state.resting.values()).map(|entry| now - entry.since).max(),
        }
    }

    /// Counts one consumer more.
    pub(crate) fn join(&self) {
        self.lock().consumers += 1;
    }

    /// Counts one consumer less.
    pub(crate) fn leave(&self) {
        self.lock().consumers -= 1;
        // A notification may have gone to the one who leaves.
        self.changed.notify_one();
    }

    /// Whether anybody consumes.
    pub(crate) fn has_consumers(&self) -> bool {
        self.lock().consumers > 0
    }

    /// Whether it holds nothing and nobody consumes.
    pub(crate) fn is_idle(&self) -> bool {
        let state = self.lock();
        state.held == 0 && state.consumers == 0
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    /// The message; the time to live of a call is what is left of it.
    pub(crate) fn into_message(self) -> Message {
        match self.expires {
            Some(expires) if self.message.ttl().is_some() => {
                self.message.with_ttl(expires.saturating_duration_since(Instant::now()))
            }
            _ => self.message,
        }
    }
}

impl State {
    /// Moves what has rested long enough behind what is ready.
    fn wake_resting(&mut self, now: Instant) {
        while let Some(first) = self.resting.first_entry() {
            if first.key().0 > now {
                break;
            }
            let mut entry = first.remove();
            self.last += 1;
            entry.order = self.last;
            self.ready.insert(entry.order, entry);
        }
    }

    /// A new entry, counted as held.
    fn entry(&mut self, message: Message) -> Entry {
        self.last += 1;
        self.held += 1;
        self.bytes += message.size() + OVERHEAD;
        let (order, cleared, since) = (self.last, self.cleared, Instant::now());
        Entry { message, redelivered: 0, order, since, expires: None, lost_before: 0, cleared }
    }

    fn forget(&mut self, entry: &Entry) {
        if entry.cleared == self.cleared {
            self.held -= 1;
            self.bytes -= entry.message.size() + OVERHEAD;
        }
    }
}
