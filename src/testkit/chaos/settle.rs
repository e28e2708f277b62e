//! Settling deliveries wrongly.

use std::time::Duration;

use async_trait::async_trait;

use super::Fault;
use crate::{
    delivery::{Delivery, Settle, Settlement},
    error::Result,
    message::{Message, header},
    subscription::{Feed, Received, Subscription},
};

/// Hands on what `inner` yields, in some copies, to be settled with `fault`.
pub(super) async fn pump(mut inner: Subscription, feed: Feed, fault: Fault, copies: usize) {
    feed.consuming().set(true);
    while let Some(place) = feed.place().await {
        let received = tokio::select! {
            () = feed.closed() => break,
            received = inner.next() => received,
        };
        let Some(Received::Delivery(delivery)) = received else { break };
        let message = delivery.message().clone();
        for _ in 1..copies {
            let Some(place) = feed.try_place() else { break };
            feed.deliver_unsettled(place, message.clone());
        }
        feed.deliver(place, message, delivery.redelivered(), Box::new(Wrongly { delivery, fault }));
    }
}

struct Wrongly {
    delivery: Delivery,
    fault: Fault,
}

#[async_trait]
impl Settle for Wrongly {
    async fn settle(self: Box<Self>, settlement: Settlement) -> Result<()> {
        let Self { delivery, fault } = *self;
        match (fault, settlement) {
            (Fault::Denies, Settlement::Ack) | (Fault::Acquits, Settlement::Retry { .. }) => {
                drop(delivery);
                Ok(())
            }
            (Fault::Hurries, Settlement::Retry { message, .. }) => {
                delivery.nack(Duration::ZERO, reason(&message)).await
            }
            (Fault::Dawdles, Settlement::Retry { after, message }) => {
                delivery.nack(after * 2 + Duration::from_secs(1), reason(&message)).await
            }
            (Fault::Buries, Settlement::DeadLetter { .. }) | (_, Settlement::Ack) => delivery.ack().await,
            (_, Settlement::Retry { after, message }) => delivery.nack(after, reason(&message)).await,
            (_, Settlement::Redrive { .. }) => delivery.redrive().await,
            (_, Settlement::DeadLetter { message }) => delivery.term("rejected", reason(&message)).await,
        }
    }

    fn release(self: Box<Self>) {
        if self.fault == Fault::Swallows {
            tokio::spawn(self.delivery.ack());
        }
    }
}

/// Why the last run failed, without its time.
fn reason(message: &Message) -> &str {
    let last = message.headers().get(header::LAST_FAILURE).unwrap_or_default();
    last.split_once(' ').map_or("", |(_, reason)| reason)
}
