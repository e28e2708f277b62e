//! Subscriptions that a program has, and deliveries that it keeps in hand.

use std::{collections::BTreeMap, future::poll_fn, pin::Pin, task::Poll, time::Duration};

use futures_util::{FutureExt, Stream};
use tokio::time::{Instant, timeout};

use crate::{
    address::Origin,
    delivery::Delivery,
    error::Result,
    subscription::{Received, Source, Subscription},
    testkit::program::{End, origin_of},
};

/// A subscription.
pub(super) struct Slot {
    /// Which of all subscriptions of this run.
    pub(super) life: usize,
    pub(super) by: usize,
    pub(super) source: Source,
    pub(super) prefetch: u16,
    pub(super) subscription: Subscription,
}

/// A delivery in hand.
pub(super) struct Held {
    pub(super) origin: String,
    pub(super) n: u32,
    /// Which delivery of this message, from 0.
    pub(super) index: usize,
    pub(super) life: usize,
    pub(super) by: usize,
    pub(super) end: End,
    pub(super) delivery: Delivery,
}

impl Slot {
    /// What comes next, if something comes in time.
    pub(super) async fn next(&mut self, patience: Duration) -> Option<Option<Received>> {
        timeout(patience, self.subscription.next()).await.ok()
    }

    /// What comes next from `origin` to any of the slots, if something comes in time.
    pub(super) async fn any(
        slots: &mut BTreeMap<usize, Self>,
        origin: &Origin,
        patience: Duration,
    ) -> Option<(usize, Option<Received>)> {
        let mut readers: Vec<_> =
            slots.iter_mut().filter(|(_, slot)| origin_of(&slot.source).as_ref() == Some(origin)).collect();
        let from = rand::random_range(0..readers.len().max(1));
        readers.rotate_left(from);
        let next = poll_fn(|cx| {
            for (at, slot) in &mut readers {
                if let Poll::Ready(received) = Pin::new(&mut slot.subscription).poll_next(cx) {
                    return Poll::Ready((**at, received));
                }
            }
            Poll::Pending
        });
        timeout(patience, next).await.ok()
    }
}

impl Held {
    pub(super) fn is(&self, origin: &str, n: u32) -> bool {
        self.n == n && self.origin == origin
    }
}

/// What has come already.
pub(super) fn now(subscription: &mut Subscription) -> Option<Received> {
    subscription.next().now_or_never().flatten()
}

/// Ends it as it is to end. Returns when it may come again at the earliest.
pub(super) async fn settle(held: Held) -> Result<Instant> {
    let now = Instant::now();
    match held.end {
        End::Ack => held.delivery.ack().await.map(|()| now),
        End::Nack => {
            let after = Duration::from_millis(5 + (u64::from(held.n) * 7 + held.index as u64 * 13) % 40);
            held.delivery.nack(after, "as the program says").await.map(|()| now + after)
        }
        End::Term => held.delivery.term("rejected", "as the program says").await.map(|()| now),
        End::Drop => Ok(now),
    }
}
