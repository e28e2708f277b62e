//! Deliveries: a message in a consumer's hands, until it is settled.

use std::{fmt, time::Duration};

use async_trait::async_trait;

use crate::{
    error::Result,
    message::{Message, header},
    time::timestamp,
};

/// A message that was delivered. Settling consumes it, so that nothing can be settled twice:
///
/// * [`ack`](Self::ack): done; it never comes again (after a crash of the broker it may).
/// * [`nack`](Self::nack): the run failed; it comes again after a delay, with one failed run more.
/// * [`term`](Self::term): it goes to the dead letters with a reason.
/// * dropped: nothing was decided; it comes again at once to whoever is free, and no failed run is counted.
///
/// Deliveries of ephemeral topics, calls, replies and control messages need no settling; for them all four only free
/// the place that they took of the prefetch limit.
#[must_use = "a delivery that is dropped comes again"]
pub struct Delivery {
    message: Message,
    redelivered: u32,
    settle: Option<Box<dyn Settle>>,
}

/// How a delivery ends, as the transport is told.
#[derive(Debug)]
#[non_exhaustive]
pub enum Settlement {
    /// Forget it.
    Ack,
    /// Store `message` in its place, to be delivered after `after` (early never, late by at most the larger of 250 ms
    /// and a tenth of it), and forget the old one, in one step where the broker can.
    Retry {
        /// How long it rests.
        after: Duration,
        /// The message with its failure noted.
        message: Message,
    },
    /// Store `message` among the dead letters of its origin, and forget the old one, in one step where the broker can.
    DeadLetter {
        /// The message with its failure and its reason noted.
        message: Message,
    },
    /// Store `message` in the queue or the durable subscription that this dead letter comes from
    /// ([`header::ORIGIN`]), and forget the dead letter, in one step where the broker can. Only for deliveries of
    /// [`Source::DeadLetters`](crate::Source::DeadLetters); [`Invalid`](crate::ErrorKind::Invalid) for others.
    Redrive {
        /// The message as new, but for its id and how often it was brought back.
        message: Message,
    },
}

/// A transport's side of a [`Delivery`].
#[async_trait]
pub trait Settle: Send + Sync {
    /// Carries the settlement out and returns when the broker has it. After an error the message may come again.
    async fn settle(self: Box<Self>, settlement: Settlement) -> Result<()>;

    /// Gives the message back unsettled, as far as that can be done without waiting.
    fn release(self: Box<Self>);
}

impl Delivery {
    /// A delivery that must be settled. `redelivered` is how often it was handed out before and came back without a
    /// verdict, as far as the broker knows.
    pub fn new(message: Message, redelivered: u32, settle: Box<dyn Settle>) -> Self {
        Self { message, redelivered, settle: Some(settle) }
    }

    /// The message.
    pub fn message(&self) -> &Message {
        &self.message
    }

    /// Which run this is: 1, and one more for each run that failed.
    pub fn attempt(&self) -> u32 {
        self.message.failed().saturating_add(1)
    }

    /// How often this message was handed to a consumer that neither settled nor returned it: a suspicion that it
    /// kills its consumers, no more, for it may only have been waiting there.
    pub fn redelivered(&self) -> u32 {
        self.redelivered
    }

    /// The work is done. Returns when the broker knows.
    pub async fn ack(self) -> Result<()> {
        self.settle(Settlement::Ack).await
    }

    /// Ends it as `settlement` says. For those who pass deliveries on; [`nack`](Self::nack) and [`term`](Self::term)
    /// note the failure in the message first.
    pub async fn settle(mut self, settlement: Settlement) -> Result<()> {
        match self.settle.take() {
            Some(settle) => settle.settle(settlement).await,
            None => Ok(()),
        }
    }

    /// The run failed for `reason`; try again after `after`.
    pub async fn nack(self, after: Duration, reason: &str) -> Result<()> {
        let mut message = self.message.clone();
        note_failure(&mut message, reason);
        self.settle(Settlement::Retry { after, message }).await
    }

    /// Brings a dead letter back to where it died, as new but for its id.
    pub async fn redrive(self) -> Result<()> {
        let mut message = self.message.clone();
        let redriven = message.redriven().saturating_add(1);
        let headers = message.headers_mut();
        for name in
            [header::FAILED, header::FIRST_FAILURE, header::LAST_FAILURE, header::DEAD, header::ORIGIN]
        {
            headers.remove(name);
        }
        headers.put(header::REDRIVEN, redriven.to_string());
        self.settle(Settlement::Redrive { message }).await
    }

    /// Never try again: to the dead letters, because of `cause` (a word: `attempts`, `crashes`, `rejected`), the last
    /// failure being `reason`.
    pub async fn term(self, cause: &'static str, reason: &str) -> Result<()> {
        let mut message = self.message.clone();
        note_failure(&mut message, reason);
        message.headers_mut().put(header::DEAD, cause.to_owned());
        self.settle(Settlement::DeadLetter { message }).await
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if let Some(settle) = self.settle.take() {
            settle.release();
        }
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("message", &self.message)
            .field("redelivered", &self.redelivered)
            .finish()
    }
}

/// Counts a failed run in the message's headers.
fn note_failure(message: &mut Message, reason: &str) {
    let failed = message.failed().saturating_add(1);
    let failure = format!("{} {}", timestamp(), header_safe(reason));
    let headers = message.headers_mut();
    headers.put(header::FAILED, failed.to_string());
    if headers.get(header::FIRST_FAILURE).is_none() {
        headers.put(header::FIRST_FAILURE, failure.clone());
    }
    headers.put(header::LAST_FAILURE, failure);
}

/// `reason` in visible ASCII and at most 256 characters long.
fn header_safe(reason: &str) -> String {
    reason.escape_default().take(256).collect()
}
