//! Settling deliveries wrongly.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;

use super::Fault;
use crate::{
    address::Address,
    bus::Bus,
    delivery::{Delivery, Settle, Settlement},
    error::Result,
    message::{Message, header},
    subscription::{Feed, Received, Source, Subscription},
};

/// Hands on what `inner` yields of `source` on `bus`, in some copies, to be settled with `fault`.
pub(super) async fn pump(
    mut inner: Subscription,
    source: Source,
    bus: Arc<dyn Bus>,
    feed: Feed,
    fault: Fault,
    copies: usize,
) {
    let dead = matches!(source, Source::DeadLetters(_));
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
        let redelivered = delivery.redelivered();
        feed.deliver(
            place,
            message,
            redelivered,
            Box::new(Wrongly { delivery, dead, bus: bus.clone(), fault }),
        );
    }
    // Whoever sees the end of the feed may rely on it that the subscription is over.
    inner.close();
    while inner.next().await.is_some() {}
}

struct Wrongly {
    delivery: Delivery,
    dead: bool,
    bus: Arc<dyn Bus>,
    fault: Fault,
}

#[async_trait]
impl Settle for Wrongly {
    async fn settle(self: Box<Self>, settlement: Settlement) -> Result<()> {
        let Self { delivery, dead, bus, fault } = *self;
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
            (Fault::Mislays, Settlement::Redrive { .. }) => delivery.ack().await,
            (Fault::Obliges, Settlement::Redrive { .. }) if !dead => delivery.ack().await,
            (Fault::Clones, Settlement::Redrive { message }) => bus.publish(message).await,
            (Fault::Broadcasts, Settlement::Redrive { message })
                if matches!(message.address(), Address::Topic(_)) =>
            {
                bus.publish(message).await?;
                delivery.ack().await
            }
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
