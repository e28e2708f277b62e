//! Publishing: one script for each kind of address, so that checks and storing are one step.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use commissaire::{Address, Error, ErrorKind, Inbox, Key, Message, Pattern, Result, Token, envelope};
use redis::{Cmd, Value};
use tokio::time::{Instant, sleep};

use crate::{
    bus::{BOUND, Core},
    script::Script,
    value::{int, items, pairs, text},
    wire::Fault,
};

/// The most calls that wait for one service.
const MOST_CALLS: usize = 10_000;
/// The most messages that a queue or a durable subscription holds.
pub(crate) const MOST_STORED: usize = 1_000_000;
/// A queue with less in it need not be counted again for so long.
const ROOMY: i64 = 100_000;
const COUNTED: Duration = Duration::from_secs(1);
const MOST_KNOWN: usize = 1_000;
/// How long after our connection was made again services may still be making theirs, and how long to wait before asking
/// whether one is there now.
const COME_BACK: Duration = Duration::from_secs(3);
const BLINK: Duration = Duration::from_millis(50);
/// How much later than its caller a call may end, in ms: clocks are compared only so well.
const SLACK_MS: i64 = 50;
/// How long a reply waits for a client that is reconnecting, and the most of them.
const MISSED: (Duration, usize) = (Duration::from_secs(60), 1_000);

pub(crate) struct Publisher {
    core: Arc<Core>,
    bindings: Mutex<Arc<Bindings>>,
    /// Queues that were seen to be far from full, and when: a second long they need no counting.
    roomy: Mutex<HashMap<Key, Instant>>,
}

/// Who wants which events, as of one version.
#[derive(Debug)]
pub(crate) struct Bindings {
    version: Vec<u8>,
    durable: Vec<(Token, Vec<Pattern>)>,
}

impl Publisher {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self { core, bindings: Mutex::default(), roomy: Mutex::default() }
    }

    pub(crate) async fn publish(&self, message: &Message) -> Result<()> {
        let limit = message.ttl().map_or(BOUND, |ttl| ttl.min(BOUND));
        let deadline = Instant::now() + limit;
        let bytes = envelope::encode(message);
        let sent = match message.address() {
            Address::Service(key) => self.call(key, message.ttl(), &bytes, deadline).await?,
            Address::Queue(key) => self.enqueue(key, &bytes, deadline).await?,
            Address::Topic(key) => self.announce(key, &bytes, deadline).await?,
            Address::Control(service) => {
                let mut command = redis::cmd("PUBLISH");
                command.arg(self.core.keys.control(service)).arg(&bytes);
                self.core.main.until(deadline, |_| command.clone()).await.map(drop)
            }
            Address::Inbox(inbox) => self.reply(inbox, &bytes, deadline).await,
        };
        sent.map_err(|fault| match fault {
            Fault::NotSent => Error::unavailable(format!(
                "publishing to {}: redis could not be reached within {limit:?}: nothing was sent",
                message.address()
            )),
            fault => fault.into_error(&format!("publishing to {}", message.address())),
        })
    }

    async fn call(
        &self,
        key: &Key,
        ttl: Option<Duration>,
        bytes: &[u8],
        deadline: Instant,
    ) -> Result<Result<(), Fault>> {
        let service = key.service()?;
        let keys = &self.core.keys;
        let (list, live) = (keys.calls(&service), keys.live(&service));
        let ttl = ttl.map_or(0, |ttl| ttl.as_millis().clamp(1, 1 << 40) as u64);
        let end = Instant::now() + Duration::from_millis(ttl);
        let arguments = |command: &mut Cmd| {
            // However long the server takes until it runs the script: the call ends when its caller gives up.
            let left =
                i64::try_from(end.saturating_duration_since(Instant::now()).as_millis()).unwrap_or(i64::MAX);
            let clock = self.core.main.now().and_then(|wire| wire.clock());
            let until = clock.filter(|_| ttl > 0).map_or(0, |now| now.saturating_add(left) + SLACK_MS);
            command.arg(keys.here(&service)).arg(ttl).arg(MOST_CALLS).arg(bytes).arg(until);
        };
        let mut asked_again = false;
        let answer = loop {
            let answer = self.run(Script::Call, &[&list, &live], arguments, deadline).await;
            // Too late by the server's clock, which may have been set; if time is left by ours, it was.
            if matches!(answer, Ok(Value::Int(-4))) && Instant::now() < deadline {
                if let Some(wire) = self.core.main.now() {
                    let _ = wire.set_clock(BLINK).await;
                }
                continue;
            }
            let perhaps = match answer {
                Ok(Value::Int(-1)) => self.core.main.is_new_again(COME_BACK),
                Ok(Value::Int(-3)) => !asked_again || self.core.main.is_new_again(COME_BACK),
                _ => false,
            };
            // Nothing was stored, so asking again is safe.
            if !perhaps || Instant::now() + BLINK >= deadline {
                break answer;
            }
            asked_again = true;
            sleep(BLINK).await;
        };
        match answer {
            Ok(Value::Int(-4)) => Err(Error::timeout(format_args!("call {key}"), Duration::from_millis(ttl))),
            Ok(Value::Int(-1 | -3)) => Err(Error::no_responders(&service)),
            Ok(Value::Int(-2)) => Err(Error::new(
                ErrorKind::Busy,
                format!(
                    "service {service} has {MOST_CALLS} calls waiting: try again later, or start more instances"
                ),
            )),
            other => Ok(other.map(drop).map_err(|fault| fault.about(&list))),
        }
    }

    async fn enqueue(&self, key: &Key, bytes: &[u8], deadline: Instant) -> Result<Result<(), Fault>> {
        let stream = self.core.keys.queue(key);
        let known = self.roomy.lock().unwrap_or_else(PoisonError::into_inner).get(key).copied();
        if known.is_some_and(|seen| seen.elapsed() < COUNTED) {
            let mut command = redis::cmd("XADD");
            command.arg(&stream).arg("*").arg("m").arg(bytes);
            let sent = self.core.main.until(deadline, |_| command.clone()).await;
            return Ok(sent.map(drop).map_err(|fault| fault.about(&stream)));
        }
        let arguments = |command: &mut Cmd| {
            command.arg(MOST_STORED).arg(bytes);
        };
        let answer = self.run(Script::Enqueue, &[&stream], arguments, deadline).await;
        if let Ok(held) = &answer {
            let mut roomy = self.roomy.lock().unwrap_or_else(PoisonError::into_inner);
            if roomy.len() > MOST_KNOWN {
                roomy.clear();
            }
            match int(held) {
                Some(0..ROOMY) => roomy.insert(key.clone(), Instant::now()),
                _ => roomy.remove(key),
            };
        }
        match answer {
            Ok(Value::Int(-1)) => Err(full(&format!("queue {key}"))),
            other => Ok(other.map(drop).map_err(|fault| fault.about(&stream))),
        }
    }

    async fn announce(&self, key: &Key, bytes: &[u8], deadline: Instant) -> Result<Result<(), Fault>> {
        let keys = &self.core.keys;
        let channel = keys.event(key);
        loop {
            let bindings = self.bindings.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let mut names = vec![keys.version(), keys.bindings()];
            names.extend(bindings.matching(key).map(|name| keys.durable(name.as_str())));
            let arguments = |command: &mut Cmd| {
                command.arg(&bindings.version).arg(MOST_STORED).arg(&channel).arg(bytes);
            };
            let answer = match self.run(Script::Event, &names, arguments, deadline).await {
                Ok(answer) => answer,
                Err(fault) => return Ok(Err(fault)),
            };
            let mut answer = items(answer).into_iter();
            match answer.next().as_ref().and_then(int) {
                Some(0) if Instant::now() < deadline => {
                    let read = Arc::new(Bindings::read(answer.next(), answer.next()));
                    *self.bindings.lock().unwrap_or_else(PoisonError::into_inner) = read;
                }
                Some(0) => return Ok(Err(Fault::NotSent)),
                Some(-1) => {
                    let stream = answer.next().and_then(text).unwrap_or_default();
                    let name = stream.rsplit(':').next().unwrap_or_default();
                    return Err(full(&format!("durable subscription {name}")));
                }
                _ => return Ok(Ok(())),
            }
        }
    }

    async fn reply(&self, inbox: &Inbox, bytes: &[u8], deadline: Instant) -> Result<(), Fault> {
        let keys = &self.core.keys;
        // Mostly somebody listens, and then a script is not worth its price.
        let mut command = redis::cmd("PUBLISH");
        command.arg(keys.inbox(inbox)).arg(bytes);
        let heard = self.core.main.until(deadline, |_| command.clone()).await?;
        if int(&heard) != Some(0) {
            return Ok(());
        }
        let (keep, most) = MISSED;
        let arguments = |command: &mut Cmd| {
            command.arg(keys.inbox(inbox)).arg(bytes).arg(keep.as_millis() as u64).arg(most);
        };
        self.run(Script::Reply, &[keys.missed(inbox)], arguments, deadline).await.map(drop)
    }

    async fn run<K: AsRef<str> + Sync>(
        &self,
        script: Script,
        keys: &[K],
        arguments: impl Fn(&mut Cmd) + Send + Sync,
        deadline: Instant,
    ) -> Result<Value, Fault> {
        let command = |digests: &[String]| {
            let mut command = script.over(digests, keys);
            arguments(&mut command);
            command
        };
        self.core.main.until(deadline, command).await
    }
}

impl Default for Bindings {
    /// Of a version that no server has: the first event asks for what there is.
    fn default() -> Self {
        Self { version: b"-".to_vec(), durable: Vec::new() }
    }
}

impl Bindings {
    /// What the server holds. A name or a pattern that cannot be read binds nothing.
    pub(crate) fn read(version: Option<Value>, bindings: Option<Value>) -> Self {
        let durable = bindings
            .map(pairs)
            .unwrap_or_default()
            .into_iter()
            .filter_map(|(name, patterns)| {
                let name = Token::new(text(name)?).ok()?;
                let patterns =
                    text(patterns)?.split(' ').filter_map(|text| Pattern::new(text).ok()).collect();
                Some((name, patterns))
            })
            .collect();
        Self { version: version.and_then(crate::value::bytes).unwrap_or_default(), durable }
    }

    fn matching(&self, key: &Key) -> impl Iterator<Item = &Token> {
        self.durable
            .iter()
            .filter(|(_, patterns)| patterns.iter().any(|pattern| pattern.matches(key)))
            .map(|(name, _)| name)
    }
}

fn full(what: &str) -> Error {
    Error::new(
        ErrorKind::Full,
        format!("{what} holds {MOST_STORED} messages, the most: start its consumers, or remove it"),
    )
}
