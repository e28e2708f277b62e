//! Retries that rest. What is not due goes back to the server with the rest of its time, which the server keeps through
//! its own death; what is due is published as new, so that how often it was delivered says something again.

use std::{sync::Arc, time::Duration};

use async_nats::{HeaderMap, Message as Raw, Subject};
use tokio::time::Instant;

use crate::{
    bus::{BOUND, Core},
    clock::millis,
    declare::Stream,
    publish::store,
    settle::{REST, Spot, Token, acknowledge},
};

/// How soon to try again what could not be published.
const AGAIN: Duration = Duration::from_secs(1);

/// What becomes of `raw` now: `None` when it was sent back to rest on, else the work of publishing it.
pub(super) async fn look(core: &Arc<Core>, spot: &Arc<Spot>, raw: Raw, token: Token) {
    let header = raw.headers.as_ref().and_then(|headers| headers.get(REST));
    let rest: u64 = header.and_then(|value| value.as_str().parse().ok()).unwrap_or(0);
    // In full milliseconds, so that what rests is never early.
    let due = (token.stored.time.div_ceil(1_000_000)).saturating_add(rest);
    let now = millis(core.clock.now());
    if due > now {
        back(core, &token, Duration::from_millis(due - now)).await;
        return;
    }
    let (core, spot) = (core.clone(), spot.clone());
    let settling = core.settling.clone();
    settling.spawn(async move {
        let deadline = Instant::now() + BOUND;
        let subject = Subject::from(core.link.names.work(&spot.origin));
        let stream = || Stream::work(&core.link, &spot.origin);
        let id = format!("{}:{}:{}:z", token.stored.place, token.stored.seq, token.stored.time);
        let stored = store(&core, &subject, Some(&id), HeaderMap::new(), &raw.payload, deadline, stream).await;
        let moved = match stored {
            Ok(()) => acknowledge(&core, &token, deadline).await,
            Err(fault) => {
                back(&core, &token, AGAIN).await;
                Err(fault)
            }
        };
        if let Err(fault) = moved {
            tracing::warn!(origin = %spot.origin, ?fault, "a retry that is due was not moved and is tried again");
        }
    });
}

/// Lets it rest for so long.
async fn back(core: &Core, token: &Token, rest: Duration) {
    core.link.post(token.ack.clone(), format!("-NAK {{\"delay\": {}}}", rest.as_nanos())).await;
}
