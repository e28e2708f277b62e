//! Settling: what becomes of a delivery, in the order that loses nothing. The copy is stored first, under an id made of
//! the old message's place, so that the same settlement stores it once; then the old one is acknowledged.

use std::sync::Arc;

use async_nats::{HeaderMap, Subject};
use async_trait::async_trait;
use bytes::Bytes;
use commissaire::{Error, ErrorKind, Message, Origin, Result, Settle, Settlement, envelope};
use tokio::time::{Instant, sleep};

use crate::{
    bus::{BOUND, Core},
    clock::millis,
    declare::Stream,
    door::Door,
    fault::Fault,
    hand::{Held, Stored},
    publish::store,
};

/// How long a message rests from when it was stored, in milliseconds.
pub(crate) const REST: &str = "Bus-Rest-Ms";
const AGAIN: std::time::Duration = std::time::Duration::from_millis(50);

/// Where deliveries come from.
#[derive(Debug)]
pub(crate) struct Spot {
    pub(crate) origin: Origin,
    /// Whether they are its dead letters.
    pub(crate) dead: bool,
}

/// A message on the server as this delivery of it names it.
#[derive(Debug, Clone)]
pub(crate) struct Token {
    pub(crate) ack: Subject,
    pub(crate) stored: Stored,
    /// How often it was delivered, this time included.
    pub(crate) delivered: u64,
}

/// A delivery's settlement.
pub(crate) struct Entry {
    pub(crate) core: Arc<Core>,
    pub(crate) spot: Arc<Spot>,
    pub(crate) token: Token,
    /// Keeps the lease up.
    pub(crate) held: Held,
    pub(crate) door: Arc<Door>,
}

#[async_trait]
impl Settle for Entry {
    async fn settle(self: Box<Self>, settlement: Settlement) -> Result<()> {
        if self.core.closed.is_cancelled() {
            return Err(Error::new(ErrorKind::Closed, "the bus is closed: the delivery was given back"));
        }
        // A settlement that has begun is carried out, even if nobody waits for it any more.
        let core = self.core.clone();
        let under_way = core.settling.spawn(async move { self.carry_out(settlement).await });
        under_way
            .await
            .map_err(|_| Error::new(ErrorKind::Closed, "the program is ending").maybe_executed())?
    }

    fn release(self: Box<Self>) {
        let Self { core, token, held, door, .. } = *self;
        drop(held);
        Door::give_back(&door, &core, token);
    }
}

impl Entry {
    async fn carry_out(self: Box<Self>, settlement: Settlement) -> Result<()> {
        let deadline = Instant::now() + BOUND;
        let settled = match settlement {
            Settlement::Ack => Ok(()),
            // A dead letter that is refused again stays one.
            Settlement::Retry { message, .. } if self.spot.dead => self.bury(message, deadline).await,
            Settlement::Retry { after, message } => self.retry(millis(after), &message, deadline).await,
            Settlement::DeadLetter { message } => self.bury(message, deadline).await,
            Settlement::Redrive { message } if self.spot.dead => self.retry(0, &message, deadline).await,
            Settlement::Redrive { .. } => {
                self.release();
                return Err(Error::invalid("only a dead letter can be brought back to where it died"));
            }
            other => Err(Fault::Odd(format!("settlement {other:?}"))),
        };
        let settled = match settled {
            Ok(()) => acknowledge(&self.core, &self.token, deadline).await,
            Err(fault) => {
                // What was not stored elsewhere comes again at once.
                Door::give_back(&self.door, &self.core, self.token.clone());
                Err(fault)
            }
        };
        settled.map_err(|fault| fault.into_error(&format!("settling a delivery of {}", self.spot.origin)))
    }

    /// Stores `message` to be delivered again after so many milliseconds.
    async fn retry(&self, after: u64, message: &Message, deadline: Instant) -> Result<(), Fault> {
        let names = &self.core.link.names;
        let mut headers = HeaderMap::new();
        let subject = if after == 0 {
            names.work(&self.spot.origin)
        } else {
            headers.insert(REST, after.to_string().as_str());
            names.rest(&self.spot.origin)
        };
        let stream = || Stream::work(&self.core.link, &self.spot.origin);
        let bytes = Bytes::from(envelope::encode(message));
        store(&self.core, &subject.into(), Some(&self.id("r")), headers, &bytes, deadline, stream).await
    }

    /// Stores `message` among the dead letters.
    async fn bury(&self, message: Message, deadline: Instant) -> Result<(), Fault> {
        let bytes = Bytes::from(envelope::encode(&message.with_origin(&self.spot.origin)));
        bury(&self.core, &self.spot.origin, &bytes, &self.id("d"), deadline).await
    }

    /// The same for the same delivery of the same message, another for every other.
    fn id(&self, kind: &str) -> String {
        let Stored { place, seq, time } = &self.token.stored;
        format!("{place}:{seq}:{time}:{kind}")
    }
}

/// Stores `bytes` among the dead letters of `origin`.
pub(crate) async fn bury(
    core: &Core,
    origin: &Origin,
    bytes: &Bytes,
    id: &str,
    deadline: Instant,
) -> Result<(), Fault> {
    let subject = Subject::from(core.link.names.dead(origin));
    let stream = || Stream::dead(&core.link);
    store(core, &subject, Some(id), HeaderMap::new(), bytes, deadline, stream).await
}

/// Tells the server that a message is done, and waits until it knows.
pub(crate) async fn acknowledge(core: &Core, token: &Token, deadline: Instant) -> Result<(), Fault> {
    loop {
        match core.link.request(token.ack.clone(), None, Bytes::new(), deadline).await {
            Ok(_) => {
                core.hand.forget(&token.stored);
                return Ok(());
            }
            Err(fault) if fault.passes() && Instant::now() + AGAIN < deadline => sleep(AGAIN).await,
            // Nobody: its consumer is gone, so the message comes again once the consumer is made again.
            Err(fault) => return Err(fault),
        }
    }
}
