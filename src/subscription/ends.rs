//! The two ends of a subscription: what a consumer reads from, and what a transport fills.

use std::{
    fmt,
    future::poll_fn,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use futures_util::Stream;

// Named by the module around it, so that `integration/loom` can try all ways in which threads meet here.
use super::{
    CancellationToken, Delivery, Gap, Message, Received, Settle,
    buffer::{Buffer, End},
    place::{Place, Placed, Places},
};

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
    places: Places,
    consuming: Consuming,
    closing: CancellationToken,
}

impl Subscription {
    /// A subscription and the end that fills it. `prefetch` of 0 counts as 1.
    pub fn new(prefetch: u16) -> (Self, Feed) {
        let buffer = Arc::new(Buffer::default());
        let closing = CancellationToken::new();
        let consuming = Consuming::default();
        let feed = Feed {
            buffer: buffer.clone(),
            places: Places::new(prefetch),
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
        self.places.take(&self.closing).await
    }

    /// Room for one delivery, if there is any now.
    pub fn try_place(&self) -> Option<Place> {
        self.places.try_take()
    }

    /// Hands `message` over to be settled with `settle`. The place is free again when it is settled or dropped.
    /// When the subscription was dropped meanwhile, the message is released.
    pub fn deliver(&self, place: Place, message: Message, redelivered: u32, settle: Box<dyn Settle>) {
        let settle = Box::new(Placed::new(Some(settle), place));
        self.buffer.push_unless(Received::Delivery(Delivery::new(message, redelivered, settle)), |_| false);
    }

    /// Hands over a `message` that needs no settling.
    pub fn deliver_unsettled(&self, place: Place, message: Message) {
        let settle = Box::new(Placed::new(None, place));
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

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").field("consuming", &self.consuming.get()).finish()
    }
}
