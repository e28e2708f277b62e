//! What becomes of what a channel is handed.

use std::sync::Weak;

use bytes::Bytes;
use commissaire::message::MAX_RECEIVED;
use futures_util::StreamExt;
use lapin::Consumer;
use tokio_util::sync::CancellationToken;

use super::{channel::Inner, fault::Fault, properties::Properties};

/// The largest body that is looked at: a message and its envelope.
const MOST: usize = MAX_RECEIVED + 64 * 1024;
/// What is done with deliveries. Called by [`listen`]: must not wait.
pub(crate) trait Ears: Send + Sync {
    fn delivered(&self, delivered: Delivered);
}

/// Ears of a channel that consumes nothing.
pub(crate) struct Silent;

/// A message of a queue.
#[derive(Debug)]
pub(crate) struct Delivered {
    pub(crate) tag: u64,
    /// The broker may have handed it out before.
    pub(crate) redelivered: bool,
    pub(crate) properties: Properties,
    /// Empty when it was larger than a message can be.
    pub(crate) body: Bytes,
}

impl Delivered {
    pub(super) fn of(delivery: lapin::message::Delivery) -> Self {
        let body = if delivery.data.len() > MOST { Bytes::new() } else { delivery.data.into() };
        Self {
            tag: delivery.delivery_tag,
            redelivered: delivery.redelivered,
            properties: Properties::of(&delivery.properties),
            body,
        }
    }
}

/// Hands on what is delivered until nothing more is.
pub(super) async fn listen(mut consumer: Consumer, inner: Weak<Inner>, lost: CancellationToken) {
    loop {
        let next = tokio::select! {
            next = consumer.next() => next,
            () = lost.cancelled() => return,
        };
        let Some(inner) = inner.upgrade() else { return };
        match next {
            Some(Ok(delivery)) => inner.hear(delivery),
            Some(Err(error)) => return inner.lose(Fault::of(&error)),
            // The broker has ended it: what is in hand can still be settled.
            None => return inner.deaf(),
        }
    }
}

impl Ears for Silent {
    fn delivered(&self, _: Delivered) {}
}
