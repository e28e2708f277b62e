//! Consuming: one task a subscription.

mod calls;
mod ear;
mod hear;
mod interest;
mod plan;
mod pulls;
mod reader;
mod rest;
mod sweep;
mod unreadable;

#[cfg(test)]
pub(crate) use pulls::token;

use std::{sync::Arc, time::Duration};

use commissaire::{Feed, Result, Source};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::{bus::Core, declare::Stream};

/// How often to look whether what all need is still there, and to set our clock.
const LOOK: Duration = Duration::from_secs(3);
const SET: Duration = Duration::from_secs(60);

/// Begins to fill `feed` from `source`. Returns when the server knows of it.
pub(crate) async fn start(
    core: &Arc<Core>,
    source: Source,
    feed: Feed,
    prefetch: u16,
    deadline: Instant,
) -> Result<()> {
    match source {
        Source::Service(service) => calls::start(core, service, feed, deadline).await,
        Source::Topic(patterns) => hear::topic(core, patterns, feed, deadline).await,
        Source::Control(service) => hear::control(core, &service, feed, deadline).await,
        Source::Inbox(inbox) => hear::inbox(core, inbox, feed, deadline).await,
        Source::Queue(_) | Source::Durable(..) | Source::DeadLetters(_) => {
            reader::start(core, source, feed, prefetch, deadline).await
        }
    }
}

/// Makes again what all need and somebody removed, and keeps the clock set, until the bus ends.
pub(crate) async fn care(core: Arc<Core>) {
    let (events, records) = (Stream::events(&core.link), Stream::records(&core.link));
    let mut tick = interval(LOOK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut state = core.link.state();
    let mut set = Instant::now();
    loop {
        tokio::select! {
            () = core.link.end.cancelled() => return,
            _ = tick.tick() => {}
            _ = state.changed() => {}
        }
        let now = *state.borrow_and_update();
        if !now.up {
            continue;
        }
        let deadline = Instant::now() + LOOK;
        for (stream, since) in [(&events, &core.events_since), (&records, &core.records_since)] {
            match stream.since(&core.link, deadline).await {
                // Whoever made it again: what was in it is gone.
                Ok(now) => drop(since.send_if_modified(|known| std::mem::replace(known, now.clone()) != now)),
                Err(error) => tracing::debug!(%error, "a stream of the bus cannot be made sure of"),
            }
        }
        if set.elapsed() >= SET && core.clock.set(&core.link, deadline).await.is_ok() {
            set = Instant::now();
        }
    }
}
