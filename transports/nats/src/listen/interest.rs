//! What the stream of events needs besides its settings, so that a server that is killed finds all of it again.
//!
//! nats-server 2.9.10 has two faults here, both seen over a plain socket. Killed while the stream is empty, it forgets
//! the numbers of the last events that nobody wanted, gives them again, and who stood behind them misses as many. And
//! what a consumer wants that has never acknowledged anything is taken for unwanted and dropped, once another one has
//! acknowledged more. So the stream always holds a message, and each consumer has one to acknowledge before all others.

use std::time::Duration;

use async_nats::{HeaderMap, Subject};
use bytes::Bytes;
use commissaire::{Address, Key, Message, Result, envelope};
use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout_at};

use super::ear;
use crate::{bus::Core, declare::Consumer, fault::Fault, js::delete, link::Link, names::Names};

/// The consumer of the message that stays. Nobody reads it; no subscription can have its name.
const KEEPER: &str = "=";
/// How often to look, and for how long: a place that is taken holds up what is to be acknowledged first as well.
const LOOK: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_secs(1);
/// Twice what the server takes to write that something was acknowledged.
const WRITTEN: Duration = Duration::from_millis(200);

/// Sees to it that the stream of events is never empty.
pub(super) async fn keep(link: &Link, deadline: Instant) -> Result<()> {
    let keeper = Consumer::kept(link, KEEPER);
    let (_, info) = keeper.ensure(link, deadline).await?;
    let what = |fault: Fault| fault.into_error(&format!("keeping the numbers of stream {}", keeper.stream));
    if info["num_pending"].as_u64().unwrap_or(0) > 0 {
        return Ok(());
    }
    let (subject, nothing) = (Subject::from(link.names.kept()), Bytes::new());
    link.store(&subject, None, HeaderMap::new(), &nothing, deadline).await.map_err(what)?;
    if has_acknowledged(&info) {
        return Ok(());
    }
    // One to be acknowledged, and one that stays.
    let inbox = format!("{}.{}.1.p.{:032x}", link.prefix, link.names.exchange(), rand::random::<u128>());
    let mut answers = ear::open(link, &inbox, None, deadline).await?;
    let next = format!("$JS.API.CONSUMER.MSG.NEXT.{}.{KEEPER}", keeper.stream);
    let one = json!({"batch": 1, "no_wait": true}).to_string();
    let acknowledged = async {
        link.send(next.into(), Some(inbox.into()), None, one.into(), deadline).await?;
        let first = timeout_at(deadline, answers.next()).await.map_err(|_| Fault::Late)?;
        // Another has it where there is none.
        if let Some(ack) = first.ok_or(Fault::Closed)?.reply {
            link.store(&subject, None, HeaderMap::new(), &nothing, deadline).await?;
            link.request(ack, None, Bytes::new(), deadline).await?;
        }
        Ok(())
    };
    acknowledged.await.map_err(what)
}

/// What a consumer is to acknowledge first: a message that is no event.
#[derive(Debug)]
pub(super) struct First {
    consumer: Consumer,
    seq: u64,
}

impl First {
    /// Stores it, where `consumer`, which is as `info` says, has never acknowledged anything. Its reader takes it for what
    /// its patterns do not cover.
    pub(super) async fn store(
        link: &Link,
        consumer: Consumer,
        info: &Value,
        deadline: Instant,
    ) -> Option<Self> {
        if has_acknowledged(info) {
            return None;
        }
        let message = Message::new(Address::Control(Key::new("first").ok()?), "").ok()?;
        let subject = Subject::from(Names::no_event(info["config"]["filter_subject"].as_str()?));
        // Whoever looks after the consumer stores it, and it is there once.
        let id = format!("{}:{}", consumer.name, info["created"]);
        let bytes = Bytes::from(envelope::encode(&message));
        match link.store(&subject, Some(&id), HeaderMap::new(), &bytes, deadline).await {
            Ok(seq) => Some(Self { consumer, seq }),
            Err(fault) => {
                tracing::debug!(
                    ?fault,
                    consumer = consumer.name,
                    "nothing was stored to be acknowledged first"
                );
                None
            }
        }
    }

    /// Waits until it is acknowledged and that is written, and spares other consumers a look at it.
    pub(super) async fn acknowledged(self, core: &Core) {
        let deadline = Instant::now() + PATIENCE;
        let Self { consumer, seq } = self;
        let acknowledged = async {
            while !has_acknowledged(&consumer.info(&core.link, deadline).await?) {
                sleep(LOOK).await;
            }
            delete(core, &consumer.stream, seq, deadline).await
        };
        match timeout_at(deadline, acknowledged).await {
            Ok(Ok(_)) => sleep(WRITTEN).await,
            other => tracing::debug!(?other, consumer = consumer.name, "nothing was acknowledged at first"),
        }
    }
}

fn has_acknowledged(info: &Value) -> bool {
    info["ack_floor"]["consumer_seq"].as_u64().unwrap_or(0) > 0
}
