//! A process's connection to the model of a broker.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use rand::RngExt;
use tokio::time::Instant;

use super::{
    Plant,
    broker::Broker,
    events::Event,
    store::{Job, Taken, Then, number},
};
use crate::{
    address::Token,
    bus::{Bus, Durability, Guarantees},
    connection::{ConnectionWatch, Connectivity},
    delivery::{Settle, Settlement},
    error::{Error, ErrorKind, Result},
    message::{Message, header},
    subscription::{Feed, Source, Subscription},
    survey::Survey,
};

/// How long a step takes at most.
const STEP: Duration = Duration::from_millis(60);
/// Retries are due at multiples of this, so that the jitter of their back-off does not matter. As late as is allowed.
const GRID: Duration = Duration::from_millis(250);

/// A connection.
pub(super) struct SimBus {
    broker: Arc<Broker>,
    process: u32,
    connectivity: Connectivity,
}

impl SimBus {
    pub(super) fn new(broker: Arc<Broker>, process: u32) -> Self {
        Self { broker, process, connectivity: Connectivity::new("a model") }
    }

    /// A step of this process; whether the connection holds after it.
    async fn step(&self) -> bool {
        self.broker.step(self.process, STEP).await;
        self.broker.lives(self.process).1
    }
}

/// How a step at the broker ends.
enum Luck {
    Well,
    /// The connection breaks before.
    Before,
    /// The connection breaks after: the error cannot tell.
    After,
}

fn luck(broker: &Broker) -> Luck {
    let mut state = broker.lock();
    if state.calm {
        return Luck::Well;
    }
    match state.dice.random_range(0..40) {
        0 => Luck::Before,
        1 => Luck::After,
        _ => Luck::Well,
    }
}

fn lost() -> Error {
    Error::unavailable("the connection to the model broke")
}

#[async_trait]
impl Bus for SimBus {
    async fn publish(&self, message: Message) -> Result<()> {
        if !self.step().await {
            return Err(lost());
        }
        let luck = luck(&self.broker);
        if matches!(luck, Luck::Before) {
            let sent_in_doubt = self.broker.lock().dice.random_bool(0.5);
            return Err(if sent_in_doubt { lost().maybe_executed() } else { lost() });
        }
        self.broker.accept(message)?;
        let connected = self.step().await;
        match luck {
            Luck::After if self.broker.plant == Plant::Denies => Err(lost()),
            Luck::After => Err(lost().maybe_executed()),
            _ if !connected => Err(lost().maybe_executed()),
            _ => Ok(()),
        }
    }

    async fn subscribe(&self, source: Source, prefetch: u16) -> Result<Subscription> {
        if !self.step().await || matches!(luck(&self.broker), Luck::Before) {
            return Err(lost());
        }
        let grasps = self.broker.plant == Plant::Grasps && matches!(source, Source::Queue(_));
        let (subscription, feed) = Subscription::new(if grasps { prefetch * 2 } else { prefetch });
        feed.consuming().set(true);
        let reader = self.broker.join(self.process, source.clone());
        tokio::spawn(pump(self.broker.clone(), self.process, reader, source, feed));
        self.step().await;
        Ok(subscription)
    }

    async fn close(&self) -> Result<()> {
        Ok(())
    }

    fn guarantees(&self) -> Guarantees {
        Guarantees {
            durability: Durability::Kill,
            shared: true,
            replies_kept: false,
            republish_window: None,
            shared_ledger: false,
            longest_run: None,
        }
    }

    fn connection(&self) -> ConnectionWatch {
        self.connectivity.watch()
    }

    async fn survey(&self) -> Result<Survey> {
        Err(Error::invalid("the model cannot be surveyed"))
    }

    async fn remove_durable(&self, _name: &Token, _idle: Option<Duration>) -> Result<bool> {
        Err(Error::invalid("the model removes no durable subscriptions"))
    }
}

/// Hands over what the broker has, as long as the subscription is there.
async fn pump(broker: Arc<Broker>, process: u32, reader: u64, source: Source, feed: Feed) {
    while let Some(place) = feed.place().await {
        broker.rest(STEP).await;
        let taken = loop {
            let changed = broker.changed(&source).notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if feed.is_closed() || !broker.lives(process).0 {
                break None;
            }
            let next = match broker.take(reader) {
                Ok(taken) => break Some(taken),
                Err(next) => next,
            };
            tokio::select! {
                biased;
                () = feed.closed() => {}
                () = changed => {}
                () = tokio::time::sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
            }
        };
        match taken {
            None => break,
            Some(Taken::Gap) => feed.gap("the connection was lost"),
            Some(Taken::Other(message)) => feed.deliver_unsettled(place, message),
            Some(Taken::Job { id, handed, message, redelivered }) => {
                let job = InHand { broker: broker.clone(), process, id, handed, open: true };
                if broker.plant == Plant::AcksFirst {
                    broker.log.note(Event::Acked { n: number(&message) });
                    broker.settle(id, handed, |_| Then::Goes);
                }
                feed.deliver(place, message, redelivered, Box::new(job));
            }
        }
    }
    broker.leave(reader);
}

/// A job in a process's hands.
struct InHand {
    broker: Arc<Broker>,
    process: u32,
    id: u64,
    handed: u32,
    open: bool,
}

impl InHand {
    fn end(&mut self, how: impl FnOnce(Job) -> Then) -> Result<()> {
        self.open = false;
        if self.broker.settle(self.id, self.handed, how) || self.broker.plant == Plant::AcksFirst {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Unavailable, "it was given to another meanwhile").maybe_executed())
    }
}

#[async_trait]
impl Settle for InHand {
    async fn settle(mut self: Box<Self>, settlement: Settlement) -> Result<()> {
        let broker = self.broker.clone();
        broker.step(self.process, STEP).await;
        let connected = broker.lives(self.process).1;
        let luck = luck(&broker);
        if !connected || matches!(luck, Luck::Before) {
            return Err(lost().maybe_executed());
        }
        match settlement {
            Settlement::Ack => self.end(|job| {
                broker.log.note(Event::Acked { n: number(&job.message) });
                Then::Acked
            })?,
            Settlement::Retry { after, message } => {
                let now = Instant::now();
                let grid = after.as_millis().div_ceil(GRID.as_millis()).max(1) as u32;
                let plant = broker.plant;
                self.end(|job| {
                    let message = if plant == Plant::Acquits { job.message.clone() } else { message };
                    Then::Stays(job.rests(message, now + GRID * grid))
                })?;
            }
            Settlement::DeadLetter { message } => self.end(|job| {
                let cause = message.headers().get(header::DEAD).unwrap_or_default().to_owned();
                broker.log.note(Event::Buried { n: number(&message), attempts: message.failed(), cause });
                if broker.plant == Plant::Rots { Then::Goes } else { Then::Stays(job.dies(message)) }
            })?,
            Settlement::Redrive { message } => self.end(|job| {
                broker.log.note(Event::Redriven { n: number(&message) });
                Then::Stays(job.returns(message))
            })?,
        }
        broker.step(self.process, STEP).await;
        match luck {
            Luck::After => Err(lost().maybe_executed()),
            _ => Ok(()),
        }
    }

    fn release(self: Box<Self>) {}
}

impl Drop for InHand {
    fn drop(&mut self) {
        if self.open && self.broker.plant == Plant::Swallows {
            self.broker.settle(self.id, self.handed, |_| Then::Goes);
        } else if self.open && self.broker.lives(self.process).0 {
            self.broker.settle(self.id, self.handed, |job| Then::Stays(job.back()));
        }
    }
}

impl fmt::Debug for SimBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimBus").field("process", &self.process).finish()
    }
}
