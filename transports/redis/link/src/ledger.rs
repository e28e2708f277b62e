//! The ledger beside the queues: one key a message, which the server forgets when its time is over.

use std::{fmt, time::Duration};

use async_trait::async_trait;
use commissaire::{Begun, Ledger, MessageId, Origin, Result};
use redis::{Cmd, Value};
use tokio::time::{Instant, sleep};

use crate::{link::Link, script::run, value::int, wire::Fault};

/// The scripts that it needs, for the transport to load: the first begins a run, the second ends it.
pub const SCRIPTS: [&str; 2] = [include_str!("lua/begin.lua"), include_str!("lua/finish.lua")];

/// The most that an answer may take.
const BOUND: Duration = Duration::from_secs(10);

/// The longest that a line of the ledger is kept, in ms: some 34 years.
const EVER: u64 = 1 << 40;

/// See the module.
pub struct RedisLedger {
    link: Link,
    /// The beginning of all its keys.
    prefix: String,
    /// Where the first of [`SCRIPTS`] stands among the transport's scripts; the other follows.
    first: usize,
}

impl RedisLedger {
    /// A ledger whose keys begin with `prefix`; `first` is the number of the first of [`SCRIPTS`] among those that are
    /// loaded into each connection of `link`.
    pub fn new(link: Link, prefix: String, first: usize) -> Self {
        Self { link, prefix, first }
    }

    /// The line for a message of `place`.
    fn line(&self, place: &Origin, id: MessageId) -> String {
        match place {
            Origin::Queue(key) => format!("{}once:q:{key}:{id}", self.prefix),
            Origin::Durable(name) => format!("{}once:sub:{name}:{id}", self.prefix),
        }
    }

    /// Runs the one of [`SCRIPTS`] with this number on the line of `id` at `place`. Twice is the same as once, so what is unknown is asked again.
    async fn ask(
        &self,
        script: usize,
        place: &Origin,
        id: MessageId,
        arguments: impl Fn(&mut Cmd) + Send + Sync,
    ) -> Result<Value> {
        let deadline = Instant::now() + BOUND;
        let key = self.line(place, id);
        loop {
            let answer = self.link.until(deadline, |digests| {
                let mut command = run(digests, self.first + script, &[&key]);
                arguments(&mut command);
                command
            });
            match answer.await {
                Err(Fault::Lost) if Instant::now() < deadline => sleep(Duration::from_millis(20)).await,
                answer => {
                    return answer.map_err(|fault| {
                        fault
                            .about(&key)
                            .into_error(&format!("asking the ledger for message {id} of {place}"))
                    });
                }
            }
        }
    }
}

#[async_trait]
impl Ledger for RedisLedger {
    async fn begin(&self, place: &Origin, id: MessageId, holder: u128, lease: Duration) -> Result<Begun> {
        let begun = self.ask(0, place, id, |command| {
            command.arg(name(holder)).arg(millis(lease));
        });
        Ok(match int(&begun.await?) {
            Some(0) => Begun::Fresh,
            Some(2) => Begun::Done,
            _ => Begun::Running,
        })
    }

    async fn end(&self, place: &Origin, id: MessageId, holder: u128, done: Option<Duration>) -> Result<()> {
        let ended = self.ask(1, place, id, |command| {
            command.arg(name(holder)).arg(done.map_or(0, millis));
        });
        ended.await.map(drop)
    }
}

impl fmt::Debug for RedisLedger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RedisLedger")
    }
}

fn name(holder: u128) -> String {
    format!("{holder:032x}")
}

/// Rounded up, for it holds at least that long; never nothing.
fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_micros().div_ceil(1_000)).unwrap_or(EVER).clamp(1, EVER)
}
