//! Subscriptions: bounded streams of deliveries and gaps.

mod buffer;

use std::{
    fmt,
    future::poll_fn,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use futures_util::{Stream, task::AtomicWaker};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use self::buffer::{Buffer, End};
use crate::{
    address::{Inbox, Key, Origin, Token},
    delivery::{Delivery, Settle, Settlement},
    error::Result,
    message::Message,
    pattern::Pattern,
};

/// What to subscribe to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Source {
    /// Calls to a service, by the service's address ([`Key::service`]). Instances share them out.
    Service(Key),
    /// A work queue, by its whole key. Consumers share it out.
    Queue(Key),
    /// Events that any of the patterns covers, from now on, each once. At most once: what is missed while the
    /// connection is away is announced as a [`Gap`].
    Topic(Vec<Pattern>),
    /// Events that any of the patterns covers, since the subscription was first made under this name, at least once.
    /// It lives on the broker while nobody reads it. Those who subscribe under one name share it out; the patterns of
    /// the last of them hold.
    Durable(Token, Vec<Pattern>),
    /// Control messages to all instances of a service, by the service's address.
    Control(Key),
    /// Replies to an inbox of one's own.
    Inbox(Inbox),
    /// The dead letters of a queue or a durable subscription. Acknowledging takes one out.
    DeadLetters(Origin),
}

/// What a subscription yields.
#[derive(Debug)]
pub enum Received {
    /// A message.
    Delivery(Delivery),
    /// Messages may be missing here, before whatever comes next.
    Gap(Gap),
}

/// Messages of an ephemeral subscription may be missing, because it was not connected or did not keep up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// Why, in words.
    pub reason: String,
}

/// A bounded stream of deliveries. At most `prefetch` of them are in the hands of the consumer and in the stream's
/// buffer together; a place is free again when a delivery is settled or dropped, so a slow consumer slows the broker
/// down and memory stays bounded.
///
/// It ends (`None`) only after [`close`](Self::close), or when the bus is closed; a lost connection is made again
/// behind it. Dropping it gives everything unsettled back.
#[must_use = "a subscription that is dropped stops consuming"]
pub struct Subscription {
    buffer: Arc<Buffer<Received>>,
    consuming: Consuming,
    closing: CancellationToken,
}

/// Whether a subscription really consumes now: the broker knows it and hands it messages. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Consuming(Arc<AtomicBool>);

/// A transport's end of a [`Subscription`].
#[derive(Debug)]
pub struct Feed {
    buffer: Arc<Buffer<Received>>,
    places: Arc<Semaphore>,
    consuming: Consuming,
    closing: CancellationToken,
}

/// Room for one delivery within the prefetch limit.
#[derive(Debug)]
pub struct Place(
    #[allow(dead_code, reason = "held, not read: dropping it frees the place")] OwnedSemaphorePermit,
);

impl Subscription {
    /// A subscription and the end that fills it. `prefetch` of 0 counts as 1.
    pub fn new(prefetch: u16) -> (Self, Feed) {
        let buffer = Arc::new(Buffer::default());
        let closing = CancellationToken::new();
        let consuming = Consuming::default();
        let feed = Feed {
            buffer: buffer.clone(),
            places: Arc::new(Semaphore::new(usize::from(prefetch.max(1)))),
            consuming: consuming.clone(),
            closing: closing.clone(),
        };
        (Self { buffer, consuming, closing }, feed)
    }

    /// The next delivery or gap; `None` after the end. Cancel-safe.
    pub async fn next(&mut self) -> Option<Received> {
        poll_fn(|cx| self.buffer.poll_pop(cx)).await
    }

    /// The next delivery, gaps passed over. For sources that have none, and for tests.
    pub async fn next_delivery(&mut self) -> Option<Delivery> {
        loop {
            match self.next().await? {
                Received::Delivery(delivery) => return Some(delivery),
                Received::Gap(_) => {}
            }
        }
    }

    /// Stops taking more from the broker. What was taken already still comes out of [`next`](Self::next), then `None`.
    pub fn close(&self) {
        self.closing.cancel();
    }

    /// Whether the broker is handing messages to this subscription now.
    pub fn consuming(&self) -> Consuming {
        self.consuming.clone()
    }

    /// Cancelling it [closes](Self::close) the subscription, from wherever.
    pub(crate) fn closer(&self) -> CancellationToken {
        self.closing.clone()
    }
}

impl Stream for Subscription {
    type Item = Received;
    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Received>> {
        self.buffer.poll_pop(cx)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.closing.cancel();
        // Outside the lock: a delivery that is dropped here is given back to the broker.
        let unread = self.buffer.end(End::Consumer);
        drop(unread);
    }
}

impl Consuming {
    /// The answer now.
    pub fn get(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// Says what holds from now on. For transports.
    pub fn set(&self, consuming: bool) {
        self.0.store(consuming, Ordering::Release);
    }
}

impl Feed {
    /// Waits for room for one delivery; `None` when the subscription has closed.
    pub async fn place(&self) -> Option<Place> {
        tokio::select! {
            biased;
            () = self.closing.cancelled() => None,
            place = self.places.clone().acquire_owned() => place.ok().map(Place),
        }
    }

    /// Room for one delivery, if there is any now.
    pub fn try_place(&self) -> Option<Place> {
        self.places.clone().try_acquire_owned().ok().map(Place)
    }

    /// Hands `message` over to be settled with `settle`. The place is free again when it is settled or dropped.
    /// When the subscription was dropped meanwhile, the message is released.
    pub fn deliver(&self, place: Place, message: Message, redelivered: u32, settle: Box<dyn Settle>) {
        let settle = Box::new(Placed { settle: Some(settle), _place: place });
        self.buffer.push_unless(Received::Delivery(Delivery::new(message, redelivered, settle)), |_| false);
    }

    /// Hands over a `message` that needs no settling.
    pub fn deliver_unsettled(&self, place: Place, message: Message) {
        let settle = Box::new(Placed { settle: None, _place: place });
        self.buffer.push_unless(Received::Delivery(Delivery::new(message, 0, settle)), |_| false);
    }

    /// Announces that messages may be missing between the deliveries before and those after. A gap takes no place.
    pub fn gap(&self, reason: impl Into<String>) {
        let gap = |received: &Received| matches!(received, Received::Gap(_));
        self.buffer.push_unless(Received::Gap(Gap { reason: reason.into() }), gap);
    }

    /// Is cancelled when the consumer closed or dropped the subscription.
    pub fn closing(&self) -> CancellationToken {
        self.closing.clone()
    }

    /// Resolves when the consumer closed or dropped the subscription.
    pub async fn closed(&self) {
        self.closing.cancelled().await;
    }

    /// Whether the consumer closed or dropped the subscription.
    pub fn is_closed(&self) -> bool {
        self.closing.is_cancelled()
    }

    /// Whether the broker hands messages to this subscription: to be kept up to date by the transport.
    pub fn consuming(&self) -> &Consuming {
        &self.consuming
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.consuming.set(false);
        self.buffer.end(End::Feed);
    }
}

/// A settlement that keeps its place until it is over.
struct Placed {
    settle: Option<Box<dyn Settle>>,
    _place: Place,
}

#[async_trait::async_trait]
impl Settle for Placed {
    async fn settle(mut self: Box<Self>, settlement: Settlement) -> Result<()> {
        match self.settle.take() {
            Some(settle) => settle.settle(settlement).await,
            None => Ok(()),
        }
    }

    fn release(mut self: Box<Self>) {
        if let Some(settle) = self.settle.take() {
            settle.release();
        }
    }
}

impl Drop for Placed {
    fn drop(&mut self) {
        // Dropped without a word (a settlement future that was cancelled before its first poll).
        if let Some(settle) = self.settle.take() {
            settle.release();
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(key) => write!(f, "service {key}"),
            Self::Queue(key) => write!(f, "queue {key}"),
            Self::Control(key) => write!(f, "control {key}"),
            Self::Inbox(_) => f.write_str("inbox"),
            Self::Topic(patterns) => write!(f, "topic {}", join(patterns)),
            Self::Durable(name, patterns) => write!(f, "durable {name} on {}", join(patterns)),
            Self::DeadLetters(origin) => write!(f, "dead letters of {origin}"),
        }
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").field("consuming", &self.consuming.get()).finish()
    }
}

fn join(patterns: &[Pattern]) -> String {
    patterns.iter().map(Pattern::as_str).collect::<Vec<_>>().join(", ")
}
