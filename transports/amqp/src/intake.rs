//! A subscription as its channel sees it: what comes is read, and handed on as there is room.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use commissaire::{Address, Feed, Headers, Key, Message, Origin, envelope, header, message::MAX_MESSAGE};
use tokio::{sync::Notify, time::Instant};

use crate::{
    bus::{BOUND, Core},
    settle::{Held, Place},
    wire::{Channel, Delivered, Ears},
};

/// The most that waits for a slow subscriber of what is not kept, beside what it has in hand.
const MOST: usize = 4096;
const MOST_BYTES: usize = 32 << 20;

/// What kind of messages a subscription takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// At least once.
    Kept(Place),
    /// Calls: none twice, none too late.
    Calls,
    /// Replies.
    Replies,
    /// Events that nobody keeps.
    Events,
    /// Control messages.
    Control,
}

/// What comes for one subscription.
pub(crate) struct Intake {
    core: Arc<Core>,
    kind: Kind,
    feed: Mutex<Option<Arc<Feed>>>,
    waiting: Mutex<Waiting>,
    filled: Notify,
}

/// What comes by one channel of a subscription.
pub(crate) struct Line {
    intake: Arc<Intake>,
    channel: Mutex<Option<Channel>>,
}

#[derive(Default)]
struct Waiting {
    items: VecDeque<Item>,
    bytes: usize,
    /// Nothing more is taken.
    ended: bool,
}

enum Item {
    Message { message: Message, redelivered: u32, held: Option<Box<Held>> },
    Gap(&'static str),
}

impl Kind {
    /// The broker forgets what it hands out.
    pub(crate) fn is_unsettled(&self) -> bool {
        matches!(self, Self::Events | Self::Control)
    }
}

impl Intake {
    pub(crate) fn new(core: Arc<Core>, kind: Kind, feed: Feed) -> Arc<Self> {
        Arc::new(Self {
            core,
            kind,
            feed: Mutex::new(Some(Arc::new(feed))),
            waiting: Mutex::default(),
            filled: Notify::new(),
        })
    }

    pub(crate) fn kind(&self) -> &Kind {
        &self.kind
    }

    /// Messages may be missing from here on.
    pub(crate) fn gap(&self, reason: &'static str) {
        self.waiting().gap(reason);
        self.filled.notify_one();
    }

    pub(crate) fn consuming(&self, consuming: bool) {
        if let Some(feed) = self.feed() {
            feed.consuming().set(consuming);
        }
    }

    /// Resolves when the consumer wants no more.
    pub(crate) async fn closed(&self) {
        if let Some(feed) = self.feed() {
            feed.closed().await;
        }
    }

    /// Hands on what waits as places become free, until the consumer closes.
    pub(crate) async fn hand_on(&self) {
        loop {
            self.filled.notified().await;
            loop {
                let Some(feed) = self.feed() else { return };
                if !self.first_is_message(&feed) {
                    break;
                }
                let Some(place) = feed.place().await else { return };
                self.waiting().deliver(&feed, place);
            }
        }
    }

    /// Nothing more comes: what was taken still comes out as far as there is room, the rest is given back.
    pub(crate) fn end(&self) {
        let feed = self.feed.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(feed) = feed else { return };
        while self.first_is_message(&feed)
            && let Some(place) = feed.try_place()
        {
            self.waiting().deliver(&feed, place);
        }
        let mut waiting = self.waiting();
        waiting.ended = true;
        let rest = std::mem::take(&mut waiting.items);
        drop(waiting);
        rest.into_iter().for_each(Item::give_back);
    }

    /// Whether a message waits; gaps before it are handed on.
    fn first_is_message(&self, feed: &Feed) -> bool {
        let mut waiting = self.waiting();
        while let Some(Item::Gap(reason)) = waiting.items.front() {
            feed.gap(*reason);
            waiting.items.pop_front();
        }
        !waiting.items.is_empty()
    }

    fn read(&self, delivered: &Delivered) -> Option<Message> {
        let message = match envelope::decode(delivered.body.clone()) {
            Ok(message) => message,
            Err(error) => {
                tracing::warn!(%error, kind = ?self.kind, "a message cannot be read");
                return None;
            }
        };
        if self.kind != Kind::Calls {
            return Some(message);
        }
        // Whoever had it may have begun: at most one run for a call that was sent once.
        if delivered.redelivered {
            tracing::warn!(address = %message.address(), "a call whose instance was lost is dropped");
            return None;
        }
        let Some(ttl) = message.ttl() else { return Some(message) };
        self.core.ages.left(&delivered.properties.stamp, ttl).map(|left| message.with_ttl(left.min(ttl)))
    }

    /// What cannot be read is a dead letter at once.
    fn bury(&self, held: Box<Held>, origin: Origin, body: Bytes) {
        let core = self.core.clone();
        self.core.settling.spawn(async move {
            let buried = match malformed(&origin, &body) {
                Some(letter) => core.bury(&origin, &letter, Instant::now() + BOUND).await.is_ok(),
                None => true,
            };
            if buried {
                // If the channel is gone it comes again, and is buried again.
                let _ = held.channel.ack(held.tag);
            } else {
                commissaire::Settle::release(held);
            }
        });
    }

    fn feed(&self) -> Option<Arc<Feed>> {
        self.feed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    pub(crate) fn new(intake: Arc<Intake>) -> Arc<Self> {
        Arc::new(Self { intake, channel: Mutex::default() })
    }

    /// What comes from now on is taken, and settled on `channel`; without one, what comes is left to come again.
    pub(crate) fn by(&self, channel: Option<Channel>) {
        let before =
            std::mem::replace(&mut *self.channel.lock().unwrap_or_else(PoisonError::into_inner), channel);
        // Perhaps the last of it, which closes it: outside the lock.
        drop(before);
    }
}

impl Ears for Line {
    fn delivered(&self, delivered: Delivered) {
        let channel = self.channel.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(channel) = channel {
            self.intake.take(channel, delivered);
        }
    }
}

impl Intake {
    fn take(&self, channel: Channel, delivered: Delivered) {
        let place = match &self.kind {
            Kind::Kept(place) => place.clone(),
            _ => Place::Passing,
        };
        let message = self.read(&delivered);
        let id = message.as_ref().and_then(Message::id);
        let held = (!self.kind.is_unsettled())
            .then(|| Box::new(Held { core: self.core.clone(), channel, tag: delivered.tag, place, id }));
        let Some(message) = message else {
            match (held, &self.kind) {
                (Some(held), Kind::Kept(Place::Stored(origin) | Place::Dead(origin))) => {
                    self.bury(held, origin.clone(), delivered.body);
                }
                (Some(held), _) => commissaire::Settle::release(held),
                (None, _) => {}
            }
            return;
        };
        let redelivered = match self.kind {
            Kind::Kept(_) => self.core.returns.others(id, delivered.properties.deliveries),
            _ => 0,
        };
        let item = Item::Message { message, redelivered, held };
        let Some(feed) = self.feed() else { return item.give_back() };
        let mut waiting = self.waiting();
        if waiting.ended {
            drop(waiting);
            return item.give_back();
        }
        if waiting.items.is_empty()
            && let Some(place) = feed.try_place()
        {
            return item.deliver(&feed, place);
        }
        if self.kind.is_unsettled() && (waiting.items.len() >= MOST || waiting.bytes > MOST_BYTES) {
            waiting.gap("the subscription did not keep up");
        } else {
            waiting.bytes += item.size();
            waiting.items.push_back(item);
        }
        drop(waiting);
        self.filled.notify_one();
    }
}

impl Item {
    fn deliver(self, feed: &Feed, place: commissaire::Place) {
        match self {
            Self::Message { message, redelivered, held: Some(held) } => {
                feed.deliver(place, message, redelivered, held);
            }
            Self::Message { message, .. } => feed.deliver_unsettled(place, message),
            Self::Gap(reason) => feed.gap(reason),
        }
    }

    fn give_back(self) {
        if let Self::Message { held: Some(held), .. } = self {
            commissaire::Settle::release(held);
        }
    }

    fn size(&self) -> usize {
        match self {
            Self::Message { message, .. } => message.size(),
            Self::Gap(_) => 0,
        }
    }
}

impl Waiting {
    fn gap(&mut self, reason: &'static str) {
        if !matches!(self.items.back(), Some(Item::Gap(_))) {
            self.items.push_back(Item::Gap(reason));
        }
    }

    /// Hands the first on. Under the lock, so that nothing that comes now overtakes it.
    fn deliver(&mut self, feed: &Feed, place: commissaire::Place) {
        let Some(item) = self.items.pop_front() else { return };
        self.bytes = self.bytes.saturating_sub(item.size());
        item.deliver(feed, place);
    }
}

/// A dead letter of what cannot be read.
fn malformed(origin: &Origin, raw: &Bytes) -> Option<Message> {
    let address = match origin {
        Origin::Queue(key) => Address::Queue(key.clone()),
        Origin::Durable(name) => Address::Topic(Key::new(name.as_str()).ok()?),
    };
    let mut headers = Headers::default();
    headers.set(header::VERSION, "1").ok()?;
    headers.set(header::DEAD, "malformed").ok()?;
    let body = raw.slice(..raw.len().min(MAX_MESSAGE - 256));
    Some(Message::from_parts(address, headers, body).ok()?.with_origin(origin))
}
