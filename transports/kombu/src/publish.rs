//! Publishing: into the lists of those queues that the routing table names.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use commissaire::{Address, Error, ErrorKind, Inbox, Key, Message, Result, header};
use redis::{Cmd, Pipeline, Value};
use tokio::time::{Instant, sleep};

use crate::{
    bindings::{Bindings, is_stale},
    bus::{BOUND, Core},
    letter::{self, Postage},
    link::DEAF,
    names::is_correlation,
    script::Script,
    value::text,
    wire::{Fault, no_error},
};

/// The most calls that wait for one service.
const MOST_CALLS: usize = 10_000;
/// The most messages that a queue or a durable subscription holds.
pub(crate) const MOST_STORED: usize = 1_000_000;
/// How long after our connection was made again services may still be making theirs, and how long to wait before asking
/// whether one is there now.
const COME_BACK: Duration = Duration::from_secs(3);
const BLINK: Duration = Duration::from_millis(50);
/// How long a reply waits for who asked, in ms.
const REPLY_KEPT: u64 = 60_000;

/// Sends messages, and knows who wants what.
pub(crate) struct Publisher {
    core: Arc<Core>,
    bindings: Mutex<Arc<Bindings>>,
}

/// Where one message goes: lists of ours that must not overflow, passing ones of ours, and queues of Kombu programs.
#[derive(Default)]
struct Route {
    kept: Vec<String>,
    passing: Vec<String>,
    foreign: Vec<String>,
}

impl Publisher {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self { core, bindings: Mutex::default() }
    }

    pub(crate) async fn publish(&self, message: &Message) -> Result<()> {
        let limit = message.ttl().map_or(BOUND, |ttl| ttl.min(BOUND));
        let deadline = Instant::now() + limit;
        let sent = match message.address() {
            Address::Service(key) => self.call(key, message, deadline).await?,
            Address::Queue(key) => self.enqueue(key, message, deadline).await?,
            Address::Topic(key) => self.announce(key, message, deadline).await?,
            Address::Control(service) => self.tell(service, message, deadline).await,
            Address::Inbox(inbox) => self.reply(inbox, message, deadline).await,
        };
        sent.map_err(|fault| match fault {
            Fault::NotSent => Error::unavailable(format!(
                "publishing to {}: redis could not be reached within {limit:?}: nothing was sent",
                message.address()
            )),
            fault => fault.into_error(&format!("publishing to {}", message.address())),
        })
    }

    /// To an instance of ours if one runs; else to the services of Kombu programs that are bound to the key.
    async fn call(&self, key: &Key, message: &Message, deadline: Instant) -> Result<Result<(), Fault>> {
        let core = &self.core;
        let service = key.service()?;
        let end = message.ttl().map(|ttl| Instant::now() + ttl);
        let clock = core.main.now().and_then(|wire| wire.clock());
        let until = clock.zip(message.ttl()).map(|(now, ttl)| now.saturating_add(ttl.as_millis() as i64));
        let correlation = message.headers().get(header::CORRELATION).filter(|text| is_correlation(text));
        let reply_to = message.reply_to().map(|inbox| core.names.reply(&inbox, correlation));
        let postage = Postage {
            exchange: core.names.exchange(),
            key: key.as_str(),
            reply_to: reply_to.as_deref(),
            correlation,
            until,
        };
        let bytes = letter::write(message, &postage);
        if let Some(name) = &reply_to {
            core.replies.await_one(name.clone(), end.unwrap_or(deadline) + BOUND);
        }
        let list = core.names.list(&core.names.service(&service));
        let life = core.names.own("svc", service.as_str());
        loop {
            let command = |digests: &[String]| {
                let mut command = Script::Call.over(digests, &[&life, &list]);
                command.arg(MOST_CALLS).arg(&bytes);
                command
            };
            match core.main.until(deadline, command).await {
                Ok(Value::Int(-1)) => {}
                Ok(Value::Int(-2)) => {
                    return Err(Error::new(
                        ErrorKind::Busy,
                        format!(
                            "service {service} has {MOST_CALLS} calls waiting: try again later, or start more instances"
                        ),
                    ));
                }
                Ok(_) => {
                    core.ears.stir(&list);
                    return Ok(Ok(()));
                }
                Err(fault) => return Ok(Err(fault.about(&list))),
            }
            let route = |bindings: &Bindings| {
                let all = bindings.foreign_calls(&core.names, key).into_iter();
                Route { foreign: all.map(str::to_owned).collect(), ..Route::default() }
            };
            let sent = self.push(message, &postage, deadline, route).await;
            match sent {
                Ok(0) if core.main.is_new_again(COME_BACK) && Instant::now() + BLINK < deadline => {
                    sleep(BLINK).await;
                }
                Ok(0) => return Err(Error::no_responders(&service)),
                Ok(_) => return Ok(Ok(())),
                Err(Sent::Fault(fault)) => return Ok(Err(fault)),
                Err(Sent::Full(_)) => return Err(Error::no_responders(&service)),
            }
        }
    }

    /// To the queue of ours, unless only Kombu programs have ever bound one to the key.
    async fn enqueue(&self, key: &Key, message: &Message, deadline: Instant) -> Result<Result<(), Fault>> {
        let core = &self.core;
        let queue = core.names.queue(key);
        let postage = Postage { exchange: core.names.exchange(), key: key.as_str(), ..Postage::default() };
        let route = |bindings: &Bindings| {
            let foreign = bindings.foreign(&core.names, key);
            if bindings.has(&queue) || foreign.is_empty() {
                return Route { kept: vec![queue.clone()], ..Route::default() };
            }
            Route { foreign: foreign.into_iter().map(str::to_owned).collect(), ..Route::default() }
        };
        match self.push(message, &postage, deadline, route).await {
            Ok(_) => Ok(Ok(())),
            Err(Sent::Fault(fault)) => Ok(Err(fault.about(&core.names.list(&queue)))),
            Err(Sent::Full(_)) => Err(full(&format!("queue {key}"))),
        }
    }

    async fn announce(&self, key: &Key, message: &Message, deadline: Instant) -> Result<Result<(), Fault>> {
        let core = &self.core;
        let postage = Postage { exchange: core.names.exchange(), key: key.as_str(), ..Postage::default() };
        let route = |bindings: &Bindings| {
            let mut route = Route::default();
            for queue in bindings.events(&core.names, key) {
                let sort = match (core.names.hears(queue), core.names.is_passing(queue)) {
                    (true, false) => &mut route.kept,
                    (true, true) => &mut route.passing,
                    _ => &mut route.foreign,
                };
                sort.push(queue.to_owned());
            }
            route
        };
        match self.push(message, &postage, deadline, route).await {
            Ok(_) => Ok(Ok(())),
            Err(Sent::Fault(fault)) => Ok(Err(fault)),
            Err(Sent::Full(list)) => {
                let name = list.rsplit([':', '~']).next().unwrap_or_default();
                Err(full(&format!("durable subscription {name}")))
            }
        }
    }

    async fn tell(&self, service: &Key, message: &Message, deadline: Instant) -> Result<(), Fault> {
        let hearing = self.core.names.own("ctl", service.as_str());
        let bytes = letter::write(message, &Postage::default());
        let command = |digests: &[String]| {
            let mut command = Script::Control.over(digests, &[&hearing]);
            command.arg(&bytes);
            command
        };
        self.core.main.until(deadline, command).await?;
        self.core.ears.stir_all();
        Ok(())
    }

    async fn reply(&self, inbox: &Inbox, message: &Message, deadline: Instant) -> Result<(), Fault> {
        let names = &self.core.names;
        let owed = self.core.replies.pay(inbox);
        let (name, correlation) = match &owed {
            Some(owed) => (owed.list.clone(), owed.correlation.as_deref()),
            None => {
                let correlation =
                    message.headers().get(header::CORRELATION).filter(|text| is_correlation(text));
                (names.reply(inbox, correlation), None)
            }
        };
        let postage = Postage { key: &name, correlation, ..Postage::default() };
        let (bytes, list) = (letter::write(message, &postage), names.list(&name));
        let mut pipeline = Pipeline::new();
        pipeline.cmd("LPUSH").arg(&list).arg(&bytes);
        pipeline.cmd("PEXPIRE").arg(&list).arg(REPLY_KEPT);
        loop {
            let wire = self.core.main.wire(deadline).await.ok_or(Fault::NotSent)?;
            match wire.ask_all(&pipeline, DEAF).await {
                Err(Fault::NotSent) if Instant::now() < deadline => tokio::task::yield_now().await,
                answers => {
                    for answer in answers? {
                        no_error(answer)?;
                    }
                    self.core.ears.stir(&list);
                    return Ok(());
                }
            }
        }
    }

    /// Stores `message` in the queues of `route`, or nothing; how many there are.
    async fn push(
        &self,
        message: &Message,
        postage: &Postage<'_>,
        deadline: Instant,
        route: impl Fn(&Bindings) -> Route + Send,
    ) -> Result<usize, Sent> {
        let names = &self.core.names;
        let [table, _] = names.bindings(names.exchange());
        let ours = letter::write(message, postage);
        loop {
            let bindings = self.bindings.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let Route { kept, passing, foreign } = route(&bindings);
            // A table that was never read says nothing: then the script does.
            let mut keys = vec![names.own("v", ""), table.clone()];
            let queues = kept.iter().chain(&passing).chain(&foreign);
            keys.extend(queues.map(|queue| names.list(queue)));
            let letters: Vec<Vec<u8>> = foreign.iter().map(|_| letter::write(message, postage)).collect();
            let command = |digests: &[String]| -> Cmd {
                let mut command = Script::Push.over(digests, &keys);
                command.arg(&bindings.version).arg(bindings.lines).arg(MOST_STORED);
                command.arg(kept.len()).arg(kept.len() + passing.len()).arg(&ours).arg(&letters);
                command
            };
            let answer = self.core.main.until(deadline, command).await.map_err(Sent::Fault)?;
            if is_stale(&answer) {
                let read = self.read(deadline).await.map_err(Sent::Fault)?;
                *self.bindings.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(read);
                continue;
            }
            if let Some(list) = text(answer) {
                return Err(Sent::Full(list));
            }
            for list in &keys[2..] {
                self.core.ears.stir(list);
            }
            return Ok(keys.len() - 2);
        }
    }

    async fn read(&self, deadline: Instant) -> Result<Bindings, Fault> {
        if Instant::now() >= deadline {
            return Err(Fault::NotSent);
        }
        let wire = self.core.main.wire(deadline).await.ok_or(Fault::NotSent)?;
        self.core.bindings(&wire).await
    }
}

/// Why a message was not stored.
enum Sent {
    Fault(Fault),
    /// This list is full.
    Full(String),
}

fn full(what: &str) -> Error {
    Error::new(
        ErrorKind::Full,
        format!("{what} holds {MOST_STORED} messages, the most: start its consumers, or remove it"),
    )
}
