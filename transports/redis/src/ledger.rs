//! The ledger beside the queues: one key a message, which the server forgets when its time is over.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use commissaire::{Begun, Ledger, MessageId, Origin, Result};
use redis::{Cmd, Value};
use tokio::time::{Instant, sleep};

use crate::{
    bus::{BOUND, Core},
    script::Script,
    value::int,
    wire::Fault,
};

/// The longest that a line of the ledger is kept, in ms: some 34 years.
const EVER: u64 = 1 << 40;

/// See the module.
pub(crate) struct RedisLedger(pub(crate) Arc<Core>);

impl RedisLedger {
    /// Runs `script` on the line of `id` at `place`. Twice is the same as once, so what is unknown is asked again.
    async fn ask(
        &self,
        script: Script,
        place: &Origin,
        id: MessageId,
        arguments: impl Fn(&mut Cmd) + Send + Sync,
    ) -> Result<Value> {
        let deadline = Instant::now() + BOUND;
        let key = self.0.keys.once(place, id);
        loop {
            let answer = self.0.until(deadline, |digests| {
                let mut command = script.over(digests, &[&key]);
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
        let begun = self.ask(Script::Begin, place, id, |command| {
            command.arg(name(holder)).arg(millis(lease));
        });
        Ok(match int(&begun.await?) {
            Some(0) => Begun::Fresh,
            Some(2) => Begun::Done,
            _ => Begun::Running,
        })
    }

    async fn end(&self, place: &Origin, id: MessageId, holder: u128, done: Option<Duration>) -> Result<()> {
        let ended = self.ask(Script::Finish, place, id, |command| {
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
