//! A subscription to channels: nothing is stored for it, so what it does not take in time is missed and said to be.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use commissaire::{Feed, Inbox, Key, Message, Pattern, envelope};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// The most that waits for a slow consumer, beside what it has in hand.
const MOST: usize = 4096;
const MOST_BYTES: usize = 32 << 20;

pub(crate) struct Listener {
    pub(crate) wants: Wants,
    feed: Mutex<Option<Arc<Feed>>>,
    waiting: Mutex<Waiting>,
    filled: Notify,
    /// It was confirmed, so that another connection means a gap.
    known: AtomicBool,
    closed: CancellationToken,
}

/// What a listener listens to.
pub(crate) enum Wants {
    /// Events that any of the patterns covers, heard through the globs.
    Topic { patterns: Vec<Pattern>, globs: Vec<String> },
    /// All on one channel.
    Channel(String),
    /// Replies, and those that were missed.
    Inbox { channel: String, inbox: Inbox },
}

#[derive(Default)]
struct Waiting {
    items: VecDeque<Item>,
    bytes: usize,
}

enum Item {
    Message(Message),
    Gap(&'static str),
}

impl Listener {
    pub(crate) fn new(wants: Wants, feed: Feed) -> Arc<Self> {
        Arc::new(Self {
            wants,
            feed: Mutex::new(Some(Arc::new(feed))),
            waiting: Mutex::default(),
            filled: Notify::new(),
            known: AtomicBool::new(false),
            closed: CancellationToken::new(),
        })
    }

    /// Whether events with this key are wanted.
    pub(crate) fn covers(&self, key: &Key) -> bool {
        match &self.wants {
            Wants::Topic { patterns, .. } => patterns.iter().any(|pattern| pattern.matches(key)),
            _ => false,
        }
    }

    /// Takes a message off the wire. Never waits.
    pub(crate) fn hear(&self, raw: &Bytes) {
        let message = match envelope::decode(raw.clone()) {
            Ok(message) => message,
            Err(error) => {
                tracing::warn!(%error, "a message on a channel cannot be read and is dropped");
                return;
            }
        };
        let Some(feed) = self.feed() else { return };
        let mut waiting = self.waiting();
        if waiting.items.is_empty()
            && let Some(place) = feed.try_place()
        {
            feed.deliver_unsettled(place, message);
            return;
        }
        if waiting.items.len() >= MOST || waiting.bytes + raw.len() > MOST_BYTES {
            tracing::debug!("a subscription does not keep up: messages are dropped");
            waiting.gap("the subscription did not keep up");
        } else {
            waiting.bytes += message.body().len();
            waiting.items.push_back(Item::Message(message));
        }
        drop(waiting);
        self.filled.notify_one();
    }

    /// The broker has confirmed it.
    pub(crate) fn confirmed(&self) {
        self.known.store(true, Ordering::Release);
    }

    /// It is about to be made again on a new connection: events may have passed meanwhile.
    pub(crate) fn again(&self) {
        if self.known.load(Ordering::Acquire) && matches!(self.wants, Wants::Topic { .. }) {
            self.waiting().gap("the connection to redis was lost");
            self.filled.notify_one();
        }
    }

    /// Says whether the subscription really consumes.
    pub(crate) fn consuming(&self, consuming: bool) {
        if let Some(feed) = self.feed() {
            feed.consuming().set(consuming);
        }
    }

    /// Hands on what waits as places become free, until the consumer closes.
    pub(crate) async fn run(&self) {
        let Some(feed) = self.feed() else { return };
        self.closed.run_until_cancelled(self.hand_on(&feed)).await;
        drop(feed);
        self.end();
    }

    /// Nothing more comes.
    pub(crate) fn end(&self) {
        self.closed.cancel();
        let feed = self.feed.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(feed);
    }

    async fn hand_on(&self, feed: &Feed) {
        loop {
            tokio::select! {
                () = self.filled.notified() => {}
                () = feed.closed() => return,
            }
            loop {
                match self.gap_or_message(feed) {
                    None => break,
                    Some(First::Gap) => {}
                    Some(First::Message) => {
                        let Some(place) = feed.place().await else { return };
                        let mut waiting = self.waiting();
                        if let Some(Item::Message(message)) = waiting.items.pop_front() {
                            waiting.bytes = waiting.bytes.saturating_sub(message.body().len());
                            feed.deliver_unsettled(place, message);
                        }
                    }
                }
            }
        }
    }

    /// The first that waits: a gap, handed on before anything else can be, or a message, left in.
    fn gap_or_message(&self, feed: &Feed) -> Option<First> {
        let mut waiting = self.waiting();
        let Item::Gap(reason) = waiting.items.front()? else { return Some(First::Message) };
        feed.gap(*reason);
        waiting.items.pop_front();
        Some(First::Gap)
    }

    fn feed(&self) -> Option<Arc<Feed>> {
        self.feed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum First {
    Gap,
    Message,
}

impl Waiting {
    fn gap(&mut self, reason: &'static str) {
        if !matches!(self.items.back(), Some(Item::Gap(_))) {
            self.items.push_back(Item::Gap(reason));
        }
    }
}
