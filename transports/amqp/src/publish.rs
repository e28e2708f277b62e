//! Publishing: everything is confirmed, and an error says whether anything was sent.

use std::{sync::Arc, time::Duration};

use commissaire::{Address, Error, ErrorKind, Key, Message, Origin, Result, envelope};
use tokio::{
    sync::{Mutex, Semaphore},
    time::{Instant, sleep, timeout_at},
};

use crate::{
    age::Clock,
    bus::BOUND,
    link::{Link, Up},
    names::{MOST_CALLS, MOST_STORED, Names, Queue},
    registry::{Entered, Registry},
    topology,
    wire::{Fault, Properties, Verdict},
};

/// How much may be published and not yet confirmed: in shares of one a message and one more for each 4 KiB.
const SHARES: usize = 4096;
const SHARE: usize = 4096;
/// How long after our connection was made again services may still be making theirs, and how long to wait before asking
/// whether one is there now.
const COME_BACK: Duration = Duration::from_secs(3);
const BLINK: Duration = Duration::from_millis(50);
/// How long to wait for a queue that is just being made, and the most in all.
const STARTING: Duration = Duration::from_millis(100);
const STARTED: Duration = Duration::from_secs(1);

pub(crate) struct Publisher {
    names: Names,
    link: Link,
    under_way: Arc<Semaphore>,
    clock: Clock,
    /// Where what is declared on the way is entered.
    registry: Option<Arc<Registry>>,
    declaring: Mutex<()>,
}

/// A message on its way to an exchange.
pub(crate) struct Letter<'a> {
    pub(crate) exchange: &'a str,
    pub(crate) key: &'a str,
    /// Somebody must want it.
    pub(crate) mandatory: bool,
    /// It is kept, on disk if need be.
    pub(crate) stored: bool,
    /// When it is of no use any more: the broker drops it then.
    pub(crate) end: Option<Instant>,
    pub(crate) id: String,
    pub(crate) body: &'a [u8],
}

impl Publisher {
    pub(crate) fn new(names: Names, link: Link, registry: Option<Arc<Registry>>) -> Self {
        Self {
            names,
            link,
            under_way: Arc::new(Semaphore::new(SHARES)),
            clock: Clock::new(),
            registry,
            declaring: Mutex::default(),
        }
    }

    pub(crate) async fn publish(&self, message: &Message) -> Result<()> {
        let limit = message.ttl().map_or(BOUND, |ttl| ttl.min(BOUND));
        let deadline = Instant::now() + limit;
        let body = envelope::encode(message);
        let what = || format!("publishing to {}", message.address());
        let sent = match message.address() {
            Address::Service(key) => self.call(key, message, &body, deadline).await?,
            Address::Queue(key) => {
                let queue = self.names.stored(&Origin::Queue(key.clone()));
                let letter = self.stored(&queue, id(message), &body);
                let entry = Entered::Queue { name: key.to_string() };
                match self.enqueue(&queue, &letter, Some(entry), deadline).await {
                    Ok(Verdict::Refused) => return Err(full(&format!("queue {key}"))),
                    Ok(Verdict::Returned) => {
                        return Err(Error::unavailable(format!(
                            "{}: the queue was deleted again as soon as it was declared: nothing was stored",
                            what()
                        )));
                    }
                    sent => sent.map(drop),
                }
            }
            Address::Topic(key) => {
                let exchange = self.names.evt();
                let letter = Letter {
                    exchange: &exchange,
                    key: key.as_str(),
                    mandatory: false,
                    ..self.letter(message, &body)
                };
                let letter = Letter { stored: true, ..letter };
                let mut sent = self.send(&letter, deadline).await;
                if sent == Ok(Verdict::Refused) && Instant::now() + STARTING < deadline {
                    // Perhaps the queue of a subscription is just being made.
                    sleep(STARTING).await;
                    sent = self.send(&letter, deadline).await;
                }
                match sent {
                    Ok(Verdict::Refused) => return Err(full(&format!("a durable subscription to {key}"))),
                    sent => sent.map(drop),
                }
            }
            Address::Control(service) => {
                let exchange = self.names.ctl();
                let letter =
                    Letter { exchange: &exchange, key: service.as_str(), ..self.letter(message, &body) };
                self.send(&letter, deadline).await.map(drop)
            }
            Address::Inbox(inbox) => {
                let (exchange, key) = (self.names.reply(), inbox.to_string());
                let letter = Letter { exchange: &exchange, key: &key, ..self.letter(message, &body) };
                self.reply(&letter, deadline).await
            }
        };
        sent.map_err(|fault| match fault {
            Fault::NotSent => Error::unavailable(format!(
                "{}: rabbitmq could not be reached within {limit:?}: nothing was sent",
                what()
            )),
            fault => fault.into_error(&what()),
        })
    }

    async fn call(
        &self,
        key: &Key,
        message: &Message,
        body: &[u8],
        deadline: Instant,
    ) -> Result<Result<(), Fault>> {
        let service = key.service()?;
        let exchange = self.names.rpc();
        // A time to live that no clock can hold never ends.
        let end = message.ttl().and_then(|ttl| Instant::now().checked_add(ttl));
        let letter = Letter {
            exchange: &exchange,
            key: service.as_str(),
            mandatory: true,
            end,
            ..self.letter(message, body)
        };
        loop {
            return match self.send(&letter, deadline).await {
                Ok(Verdict::Returned) => {
                    let perhaps = self.link.now().is_some_and(|up| up.is_new_again(COME_BACK));
                    // Nothing was stored, so asking again is safe.
                    if perhaps && Instant::now() + BLINK < deadline {
                        sleep(BLINK).await;
                        continue;
                    }
                    Err(Error::no_responders(&service))
                }
                Ok(Verdict::Refused) => Err(Error::new(
                    ErrorKind::Busy,
                    format!(
                        "service {service} has {MOST_CALLS} calls waiting: try again later, or start more instances"
                    ),
                )),
                sent => Ok(sent.map(drop)),
            };
        }
    }

    /// A reply may come twice, so that one whose fate is unknown is sent again.
    async fn reply(&self, letter: &Letter<'_>, deadline: Instant) -> Result<(), Fault> {
        loop {
            match self.send(letter, deadline).await {
                Err(Fault::Lost) if Instant::now() < deadline => {}
                sent => return sent.map(drop),
            }
        }
    }

    /// A letter to a queue that stores it.
    pub(crate) fn stored<'a>(&'a self, queue: &'a Queue, id: String, body: &'a [u8]) -> Letter<'a> {
        let exchange = self.names.work();
        Letter { exchange, key: &queue.name, mandatory: true, stored: true, end: None, id, body }
    }

    /// Sends to a queue that is declared if it is not there, once, and then entered.
    pub(crate) async fn enqueue(
        &self,
        queue: &Queue,
        letter: &Letter<'_>,
        entry: Option<Entered>,
        deadline: Instant,
    ) -> Result<Verdict, Fault> {
        match self.keep(&queue.name, letter, deadline).await? {
            Verdict::Returned => {}
            verdict => return Ok(verdict),
        }
        // One declares, and the others find it declared.
        let declaring = self.declaring.lock();
        let _declaring = timeout_at(deadline, declaring).await.map_err(|_| Fault::NotSent)?;
        match self.keep(&queue.name, letter, deadline).await? {
            Verdict::Returned => {}
            verdict => return Ok(verdict),
        }
        let up = self.link.until(deadline).await.ok_or(Fault::NotSent)?;
        let bindings = [(letter.exchange.to_owned(), queue.name.clone())];
        let bindings = if letter.exchange == self.names.work() {
            self.names.bindings_of(&queue.name)
        } else {
            bindings.to_vec()
        };
        topology::declare(&up.connection, &self.names, queue, &bindings).await?;
        if let (Some(entry), Some(registry)) = (entry, &self.registry) {
            registry.enter_soon(entry);
        }
        self.keep(&queue.name, letter, deadline).await
    }

    /// Sends to a queue that stores it, again while it does not take it though it has room: then it is starting.
    pub(crate) async fn keep(
        &self,
        queue: &str,
        letter: &Letter<'_>,
        deadline: Instant,
    ) -> Result<Verdict, Fault> {
        let start = Instant::now();
        loop {
            match self.send(letter, deadline).await? {
                Verdict::Refused => {}
                verdict => return Ok(verdict),
            }
            let up = self.link.until(deadline).await.ok_or(Fault::NotSent)?;
            let looked = topology::look(&up.connection, queue).await?;
            let held = looked.map_or(0, |(messages, _)| i64::from(messages));
            // A policy may allow less, and nobody tells.
            let now = Instant::now();
            if held > MOST_STORED / 100 * 99 || now > start + STARTED || now + STARTING >= deadline {
                return Ok(Verdict::Refused);
            }
            sleep(STARTING).await;
        }
    }

    fn letter<'a>(&self, message: &Message, body: &'a [u8]) -> Letter<'a> {
        Letter { exchange: "", key: "", mandatory: false, stored: false, end: None, id: id(message), body }
    }

    /// Sends when connected, and again as long as nothing was sent.
    pub(crate) async fn send(&self, letter: &Letter<'_>, deadline: Instant) -> Result<Verdict, Fault> {
        let shares = u32::try_from(1 + letter.body.len() / SHARE).unwrap_or(u32::MAX);
        loop {
            let Some(up) = self.link.until(deadline).await else { return Err(Fault::NotSent) };
            unblocked(&up, deadline).await?;
            let share = self.under_way.clone().acquire_many_owned(shares);
            let Ok(Ok(share)) = timeout_at(deadline, share).await else {
                return Err(Fault::Blocked { why: "too much is under way".to_owned() });
            };
            let mut properties =
                Properties { persistent: letter.stored, id: letter.id.clone(), ..Properties::default() };
            if let Some(end) = letter.end {
                let left = end.saturating_duration_since(Instant::now()).as_millis();
                if left == 0 {
                    return Err(Fault::NotSent);
                }
                // RabbitMQ takes no more than some 49 days.
                properties.expiration = left.min(u128::from(u32::MAX / 2)).to_string();
                properties.stamp = self.clock.stamp();
            }
            let Some(channel) = up.confirming(letter.stored) else { return Err(Fault::NotSent) };
            let sent = channel.publish(
                letter.exchange,
                letter.key,
                letter.mandatory,
                properties,
                letter.body,
                share,
            );
            let Ok(verdict) = sent else {
                // The link is about to know.
                if timeout_at(deadline, sleep(BLINK)).await.is_err() {
                    return Err(Fault::NotSent);
                }
                continue;
            };
            return match timeout_at(deadline, verdict).await {
                Ok(Ok(verdict)) => Ok(verdict),
                Ok(Err(_)) => Err(Fault::Lost),
                Err(_) => Err(Fault::Late),
            };
        }
    }
}

/// Waits until the broker takes messages.
async fn unblocked(up: &Up, deadline: Instant) -> Result<(), Fault> {
    let mut blocked = up.connection.blocked();
    if blocked.borrow().is_none() {
        return Ok(());
    }
    let free = async {
        tokio::select! {
            _ = blocked.wait_for(Option::is_none) => {}
            () = up.connection.down().cancelled() => {}
        }
    };
    let freed = timeout_at(deadline, free).await;
    let why = up.connection.blocked().borrow().clone();
    match (freed, why) {
        (Err(_), why) => Err(Fault::Blocked { why: why.unwrap_or_default() }),
        (Ok(()), _) => Ok(()),
    }
}

pub(crate) fn id(message: &Message) -> String {
    message.id().map(|id| id.to_string()).unwrap_or_default()
}

fn full(what: &str) -> Error {
    Error::new(
        ErrorKind::Full,
        format!(
            "{what} holds as many messages as it may, {MOST_STORED} or what a policy says: start its consumers, or remove it"
        ),
    )
}
