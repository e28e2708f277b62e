//! A subscription read with bounds, whose failures tell what had come.

use std::{fmt, time::Duration};

use futures_util::FutureExt;

use super::{
    target::body,
    wait::{Failure, Outcome, ensure},
};
use crate::{
    delivery::Delivery,
    message::Message,
    subscription::{Consuming, Received, Subscription},
};

/// Reads a subscription. Every wait is bounded and a gap is a failure: nobody cuts connections here.
pub struct Reader {
    what: String,
    subscription: Subscription,
    patience: Duration,
    count: usize,
    last: Option<String>,
}

impl Reader {
    /// Reads `subscription`, called `what` in failures, waiting at most `patience` for each delivery.
    pub fn new(what: impl Into<String>, subscription: Subscription, patience: Duration) -> Self {
        Self { what: what.into(), subscription, patience, count: 0, last: None }
    }

    /// The next delivery.
    pub async fn next(&mut self) -> Outcome<Delivery> {
        match self.next_or_end().await? {
            Some(delivery) => Ok(delivery),
            None => Err(Failure::new(format!("{self}: ended where a delivery was awaited"))),
        }
    }

    /// The next delivery; `None` at the end.
    pub async fn next_or_end(&mut self) -> Outcome<Option<Delivery>> {
        let next = tokio::time::timeout(self.patience, self.subscription.next()).await;
        match next {
            Err(_) => Err(Failure::new(format!("{self}: nothing came for {:?}", self.patience))),
            Ok(received) => self.note(received),
        }
    }

    /// The next message, acknowledged.
    pub async fn take(&mut self) -> Outcome<Message> {
        let delivery = self.next().await?;
        let message = delivery.message().clone();
        match tokio::time::timeout(self.patience, delivery.ack()).await {
            Err(_) => Err(Failure::new(format!("{self}: an acknowledgement had no end"))),
            Ok(acked) => acked.map(|()| message).map_err(Failure::from),
        }
    }

    /// The next message's body as text, acknowledged.
    pub async fn take_body(&mut self) -> Outcome<String> {
        self.take().await.map(|message| body(&message))
    }

    /// The bodies of the next `count` messages, acknowledged.
    pub async fn take_bodies(&mut self, count: usize) -> Outcome<Vec<String>> {
        let mut bodies = Vec::with_capacity(count);
        while bodies.len() < count {
            bodies.push(self.take_body().await?);
        }
        Ok(bodies)
    }

    /// The next `count` deliveries, held.
    pub async fn hold(&mut self, count: usize) -> Outcome<Vec<Delivery>> {
        let mut held = Vec::with_capacity(count);
        while held.len() < count {
            held.push(self.next().await?);
        }
        Ok(held)
    }

    /// Checks that the next message is `expected` and acknowledges it. Shows that nothing else came before, where the
    /// order is promised.
    pub async fn expect(&mut self, expected: &str) -> Outcome {
        let got = self.take_body().await?;
        ensure!(got == expected, "{}: {got:?} came where {expected:?} was awaited", self.what);
        Ok(())
    }

    /// Fails if a delivery is there already.
    pub fn nothing_ready(&mut self) -> Outcome {
        match self.subscription.next().now_or_never() {
            None => Ok(()),
            Some(received) => {
                self.note(received)?;
                Err(Failure::new(format!("{self}: more came than was allowed")))
            }
        }
    }

    /// Stops taking more from the broker.
    pub fn close(&self) {
        self.subscription.close();
    }

    /// Whether the broker hands messages to this subscription.
    pub fn consuming(&self) -> Consuming {
        self.subscription.consuming()
    }

    /// The subscription itself.
    pub fn into_inner(self) -> Subscription {
        self.subscription
    }

    fn note(&mut self, received: Option<Received>) -> Outcome<Option<Delivery>> {
        match received {
            None => Ok(None),
            Some(Received::Gap(gap)) => {
                Err(Failure::new(format!("{self}: a gap was announced, {:?}, where none can be", gap.reason)))
            }
            Some(Received::Delivery(delivery)) => {
                self.count += 1;
                self.last = Some(body(delivery.message()).chars().take(40).collect());
                Ok(Some(delivery))
            }
        }
    }
}

impl fmt::Display for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.last {
            None => write!(f, "{} (nothing had come)", self.what),
            Some(last) => write!(f, "{} ({} had come, the last {last:?})", self.what, self.count),
        }
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reader of {self}")
    }
}
