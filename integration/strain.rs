//! A load on a bus while something is done to its broker: what must hold on any bus, whatever was done.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use commissaire::{
    Key,
    testkit::{Failure, Findings, History, Lateness, Load, Outcome, Rules, Seen},
};

use crate::{PATIENCE, broker::join};

/// The longest that a message without a time to live may be on its way to the broker.
const PUBLISH: Duration = Duration::from_secs(10);

/// How a bus takes a load.
#[derive(Debug)]
pub struct Strain {
    /// What is published and consumed.
    pub load: Load,
    /// All that happens.
    pub history: Arc<History>,
}

impl Strain {
    /// Of so many messages at the least, with a backlog: two workers that take up to 40 ms each time.
    pub fn new(seed: u64, messages: u64) -> Outcome<Self> {
        let load = Load {
            backlog: 1_000_000,
            workers: 2,
            failing: 2,
            longest_run: Duration::from_millis(40),
            ..Load::new(Key::new("jobs.strain")?, seed, messages)
        };
        Ok(Self { load, history: Arc::default() })
    }

    /// Puts it on the bus at `uri`, with `faults` meanwhile. Fails unless all that was acknowledged is delivered and
    /// settled, nothing else is, and each publish ends within its bound.
    pub async fn run(&self, uri: &str, faults: impl Future<Output = Outcome>) -> Outcome<Findings> {
        let buses = [join(uri).await?, join(uri).await?, join(uri).await?];
        let lateness = Lateness::watch();
        let outcome = self.load.run(&buses, &self.history, PATIENCE * 2, faults).await;
        let (found, longest) = (self.history.check(&Rules::default()), self.longest_publish());
        outcome.map_err(|failure| failure.in_step(format!("{found:?}")))?;
        for bus in buses {
            bus.close().await?;
        }
        println!("{found:?}, the longest publish {longest:?}");
        if !found.well() {
            return Err(Failure::new(format!("{found:?}")));
        }
        if longest > PUBLISH + Duration::from_secs(1) + lateness.worst() {
            return Err(Failure::new(format!("a publish took {longest:?}")));
        }
        Ok(found)
    }

    /// How many messages the broker has taken so far.
    pub fn published(&self) -> usize {
        self.history.count(|seen| matches!(seen, Seen::Published { .. }))
    }

    /// How many were delivered so far.
    pub fn delivered(&self) -> usize {
        self.history.count(|seen| matches!(seen, Seen::Delivered { .. }))
    }

    /// How many are done so far.
    pub fn done(&self) -> usize {
        self.history.count(|seen| matches!(seen, Seen::Acked { .. }))
    }

    /// Waits until the next message is published, and one after it delivered; how long that took.
    pub async fn goes_on(&self) -> Outcome<Duration> {
        let since = Instant::now();
        for (what, count) in [
            ("the next message is published", &Self::published as &(dyn Fn(&Self) -> usize + Sync)),
            ("the next message is delivered", &Self::delivered),
        ] {
            let before = count(self);
            crate::until(what, PATIENCE, async || count(self) > before).await?;
        }
        Ok(since.elapsed())
    }

    fn longest_publish(&self) -> Duration {
        let (mut begun, mut longest) = (HashMap::new(), 0);
        for event in self.history.events() {
            match event.what {
                Seen::Publish { n } => drop(begun.insert(n, event.at)),
                Seen::Published { n } | Seen::Refused { n } | Seen::Unknown { n } => {
                    longest = longest.max(begun.remove(&n).map_or(0, |at| event.at - at));
                }
                _ => {}
            }
        }
        Duration::from_micros(longest)
    }
}
