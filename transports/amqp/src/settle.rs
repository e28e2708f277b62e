//! How a delivery ends: acknowledged, tried again, a dead letter, given back.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use commissaire::{
    Error, ErrorKind, Message, Origin, Result, Settle, Settlement, envelope, message::MessageId,
};
use tokio::time::Instant;

use crate::{
    bus::{BOUND, Core},
    publish::{Letter, id},
    registry::Entered,
    wire::{Channel, Fault, Verdict},
};

/// The most messages of which it is remembered that they were given back here.
const MOST: usize = 10_000;

/// Where a delivery comes from, as far as it matters to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// A queue or a durable subscription.
    Stored(Origin),
    /// Dead letters.
    Dead(Origin),
    /// Calls or replies: whatever becomes of one, it is over.
    Passing,
}

/// One delivery in this process's hands.
pub(crate) struct Held {
    pub(crate) core: Arc<Core>,
    pub(crate) channel: Channel,
    pub(crate) tag: u64,
    pub(crate) place: Place,
    pub(crate) id: Option<MessageId>,
}

/// How often this process has given back which message. The broker counts that as if a consumer had died of it.
#[derive(Debug, Default)]
pub(crate) struct Returns(Mutex<HashMap<MessageId, u32>>);

impl Returns {
    fn count(&self, id: MessageId) {
        let mut returns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if returns.len() >= MOST {
            returns.clear();
        }
        *returns.entry(id).or_default() += 1;
    }

    /// How many of the `deliveries` that the broker counts are none of ours.
    pub(crate) fn others(&self, id: Option<MessageId>, deliveries: u32) -> u32 {
        let returns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let ours = id.and_then(|id| returns.get(&id).copied()).unwrap_or(0);
        deliveries.saturating_sub(ours)
    }

    fn forget(&self, id: Option<MessageId>) {
        let mut returns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !returns.is_empty()
            && let Some(id) = id
        {
            returns.remove(&id);
        }
    }
}

#[async_trait]
impl Settle for Held {
    async fn settle(self: Box<Self>, settlement: Settlement) -> Result<()> {
        if self.place == Place::Passing {
            // Where it is from has gone with its connection.
            let _ = self.channel.ack(self.tag);
            return Ok(());
        }
        if matches!(settlement, Settlement::Ack) {
            return self.ack();
        }
        // Whoever waits may leave in the middle; what was begun is carried out all the same.
        let settling = self.core.settling.clone();
        let ended = settling.spawn(async move {
            let stored = self.store(settlement).await;
            match stored {
                Ok(()) => self.ack(),
                Err(error) => {
                    self.release();
                    Err(error)
                }
            }
        });
        ended
            .await
            .map_err(|_| Error::unavailable("settling a delivery: the program ends").maybe_executed())?
    }

    fn release(self: Box<Self>) {
        if self.place == Place::Passing {
            let _ = self.channel.ack(self.tag);
            return;
        }
        if let Some(id) = self.id {
            self.core.returns.count(id);
        }
        self.channel.requeue(self.tag);
    }
}

impl Held {
    fn ack(&self) -> Result<()> {
        self.core.returns.forget(self.id);
        self.channel.ack(self.tag).map_err(|_| self.gone())
    }

    fn gone(&self) -> Error {
        Error::unavailable("settling a delivery: the connection it came by is gone, so it comes again")
            .maybe_executed()
    }

    async fn store(&self, settlement: Settlement) -> Result<()> {
        if self.channel.fault().is_some() {
            return Err(self.gone());
        }
        let deadline = Instant::now() + BOUND;
        let (what, sent) = match (settlement, &self.place) {
            (Settlement::Retry { after, message }, Place::Stored(origin)) => {
                ("storing a retry", self.retry(origin, after, &message, deadline).await)
            }
            (Settlement::DeadLetter { message }, Place::Stored(origin)) => (
                "storing a dead letter",
                self.core.bury(origin, &message.with_origin(origin), deadline).await,
            ),
            (Settlement::Retry { message, .. } | Settlement::DeadLetter { message }, Place::Dead(origin)) => {
                ("storing a dead letter", self.core.bury(origin, &message, deadline).await)
            }
            (Settlement::Redrive { message }, Place::Dead(origin)) => {
                ("bringing a dead letter back", self.redrive(origin, &message, deadline).await)
            }
            (settlement, _) => {
                return Err(Error::invalid(format!("{settlement:?} is not for a delivery like this")));
            }
        };
        match sent {
            Ok(Verdict::Stored) => Ok(()),
            Ok(Verdict::Refused) => Err(Error::new(
                ErrorKind::Full,
                format!("{what}: the queue is full: start its consumers; the message stays where it was"),
            )),
            Ok(Verdict::Returned) => Err(Error::new(
                ErrorKind::Topology,
                format!("{what}: the queue it belongs to is gone; the message stays where it was"),
            )),
            Err(fault) => Err(fault.into_error(what)),
        }
    }

    async fn retry(
        &self,
        origin: &Origin,
        after: Duration,
        message: &Message,
        deadline: Instant,
    ) -> Result<Verdict, Fault> {
        let core = &self.core;
        let (queue, body) = (core.names.stored(origin), envelope::encode(message));
        let letter = core.publisher.stored(&queue, id(message), &body);
        if after.is_zero() {
            return core.publisher.keep(&queue.name, &letter, deadline).await;
        }
        let through = (&core.publisher, &core.publishing, &core.names);
        core.delays.rest(through, &letter, after, deadline).await
    }

    async fn redrive(&self, origin: &Origin, message: &Message, deadline: Instant) -> Result<Verdict, Fault> {
        let core = &self.core;
        let (queue, body) = (core.names.stored(origin), envelope::encode(message));
        let letter = core.publisher.stored(&queue, id(message), &body);
        match origin {
            Origin::Queue(_) => core.publisher.enqueue(&queue, &letter, None, deadline).await,
            // A subscription is made by who reads it, not by who writes to it.
            Origin::Durable(_) => core.publisher.keep(&queue.name, &letter, deadline).await,
        }
    }
}

impl Core {
    /// Stores a dead letter of `origin`.
    pub(crate) async fn bury(
        &self,
        origin: &Origin,
        message: &Message,
        deadline: Instant,
    ) -> Result<Verdict, Fault> {
        let (queue, exchange, body) =
            (self.names.dead_of(origin), self.names.dead(), envelope::encode(message));
        let letter = Letter { exchange: &exchange, ..self.publisher.stored(&queue, id(message), &body) };
        let (kind, name) = match origin {
            Origin::Queue(key) => ("queue".to_owned(), key.to_string()),
            Origin::Durable(name) => ("durable".to_owned(), name.to_string()),
        };
        self.publisher.enqueue(&queue, &letter, Some(Entered::Dead { kind, name }), deadline).await
    }
}
