//! What was acknowledged and is stored all the same. A server that is killed may keep that a message was acknowledged
//! and not that it was removed for it (seen with nats-server 2.9.10): nobody gets that message any more, and it would
//! stay, and be counted as waiting, for ever.

use serde_json::{Value, json};
use tokio::time::Instant;

use super::plan::Plan;
use crate::{bus::Core, declare::Consumer, fault::Fault, js::delete};

/// How far the sweeping after one loss of the connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sweep {
    /// Nothing was looked at yet.
    Due,
    /// What was handed out up to this number may still be among it, when it is acknowledged.
    UpTo(u64),
    /// There is nothing more.
    Over,
}

impl Sweep {
    /// Removes what can be removed now; to be done again until it is over.
    pub(super) async fn go_on(self, core: &Core, plan: &Plan, deadline: Instant) -> Result<Self, Fault> {
        if self == Self::Over {
            return Ok(self);
        }
        let (mut last, mut over) = (0, true);
        for (_, consumer) in plan.consumers(core) {
            // An event goes when all who want it have it, which the floor of one does not tell.
            if consumer.stream == core.link.names.event_stream() {
                continue;
            }
            let info = consumer.info(&core.link, deadline).await?;
            let number = |field: &Value| field.as_u64().unwrap_or(0);
            let handed_out = number(&info["delivered"]["stream_seq"]);
            // Where nothing is in hand, all that was handed out is done; its floor may lag behind for ever.
            let done = if number(&info["num_ack_pending"]) == 0 {
                handed_out
            } else {
                number(&info["ack_floor"]["stream_seq"])
            };
            if done > 0 {
                remove(core, &consumer, done, deadline).await?;
            }
            let most = if let Self::UpTo(most) = self { most } else { handed_out };
            last = last.max(most);
            over &= done >= most.min(handed_out);
        }
        Ok(if over { Self::Over } else { Self::UpTo(last) })
    }
}

/// Removes all up to number `done` that `consumer` is for. One by one: nats-server 2.9.10, asked to purge one subject,
/// forgets what other consumers of the stream have in hand, and what rests would rest for ever.
async fn remove(core: &Core, consumer: &Consumer, done: u64, deadline: Instant) -> Result<(), Fault> {
    let get = format!("STREAM.MSG.GET.{}", consumer.stream);
    let (mut from, mut removed) = (1, 0_u64);
    loop {
        let body = json!({"next_by_subj": consumer.filter(), "seq": from});
        let stored = match core.link.api(&get, &body, deadline).await {
            Ok(answer) => answer["message"]["seq"].as_u64(),
            Err(fault) if fault.is_absent() => None,
            Err(fault) => return Err(fault),
        };
        let Some(seq) = stored.filter(|seq| *seq <= done) else { break };
        removed += u64::from(delete(core, &consumer.stream, seq, deadline).await?);
        from = seq + 1;
    }
    if removed > 0 {
        tracing::info!(
            stream = consumer.stream,
            consumer = consumer.name,
            removed,
            "messages that were acknowledged were still stored, and are removed"
        );
    }
    Ok(())
}
