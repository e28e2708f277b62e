//! How long a call was on its way, though no two clocks agree and RabbitMQ tells no time.
//!
//! A sender stamps each call with the reading of a clock that only runs forward. The smallest difference between that and
//! a receiver's own such clock is the way without waiting; what a call is later than that, it waited.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

/// The most senders that are remembered.
const MOST: usize = 10_000;
/// After so long a difference is forgotten: clocks drift apart by some ms meanwhile.
const FORGET: Duration = Duration::from_secs(300);
/// How often it is looked whether this process was stopped; so much later than that says that it was.
const TICK: Duration = Duration::from_millis(250);
/// What the age of a call may be wrong by.
const SLACK: Duration = Duration::from_millis(500);
/// For how long after a stop messages may still come that waited for its end.
const AFTER: Duration = Duration::from_secs(10);

/// Stamps what this process sends.
#[derive(Debug)]
pub(crate) struct Clock {
    name: u64,
    start: Instant,
}

/// What a receiver knows of its senders' clocks.
#[derive(Debug)]
pub(crate) struct Ages {
    start: Instant,
    senders: Mutex<HashMap<u64, Ways>>,
    /// When this process last went on after it was stopped, and for how long it was.
    stopped: Mutex<Option<(Instant, Duration)>>,
}

/// The shortest way of this period and of the last, in ms by two clocks.
#[derive(Debug, Clone, Copy)]
struct Ways {
    now: i64,
    before: i64,
    since: Instant,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self { name: rand::random(), start: Instant::now() }
    }

    /// The stamp of a message that is sent now.
    pub(crate) fn stamp(&self) -> String {
        format!("{:x}.{}.{}", self.name, self.start.elapsed().as_millis(), wall())
    }
}

impl Ages {
    pub(crate) fn new() -> Self {
        Self { start: Instant::now(), senders: Mutex::default(), stopped: Mutex::default() }
    }

    /// What remains of the time to live of a call that was stamped so; `None` when it is over.
    pub(crate) fn left(&self, stamp: &str, ttl: Duration) -> Option<Duration> {
        let mut parts = stamp.split('.');
        let name = parts.next().and_then(|name| u64::from_str_radix(name, 16).ok());
        let mut number = || parts.next().and_then(|part| part.parse::<i64>().ok());
        let (Some(name), Some(sent), Some(wall_then)) = (name, number(), number()) else { return Some(ttl) };
        let now = i64::try_from(self.start.elapsed().as_millis()).unwrap_or(i64::MAX);
        let stop = self.stop();
        let age = match self.late(name, now.saturating_sub(sent)) {
            // The broker drops what is over while it waits there. More than that it can only have waited here, while this
            // process was stopped…
            Some(age) if age < ttl || (!stop.is_zero() && age < ttl + stop + SLACK) => age,
            // …or the sender's clock was, and nothing is known.
            Some(_) => {
                self.forget(name, now.saturating_sub(sent));
                Duration::ZERO
            }
            // Its first call. Only the clocks on the wall can tell whether it came while we were stopped.
            None => {
                Duration::from_millis(u64::try_from(wall().saturating_sub(wall_then)).unwrap_or(0)).min(stop)
            }
        };
        ttl.checked_sub(age).filter(|left| !left.is_zero())
    }

    /// Notices that this process is stopped and goes on. Runs for ever.
    pub(crate) async fn watch(&self) {
        let mut last = Instant::now();
        loop {
            tokio::time::sleep(TICK).await;
            self.tick(last.elapsed());
            last = Instant::now();
        }
    }

    /// For how long this process was stopped, not long ago.
    pub(crate) fn stop(&self) -> Duration {
        let stopped = *self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        stopped.filter(|(at, _)| at.elapsed() < AFTER).map_or(Duration::ZERO, |(_, stop)| stop)
    }

    fn tick(&self, since: Duration) {
        if since > 2 * TICK && since > self.stop() {
            *self.stopped.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), since));
        }
    }

    /// How much longer than the shortest way of its sender this one took; `None` for the first.
    fn late(&self, name: u64, way: i64) -> Option<Duration> {
        let mut senders = self.senders.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(ways) = senders.get_mut(&name) {
            if ways.since.elapsed() > FORGET {
                *ways = Ways { now: way, before: ways.now, since: Instant::now() };
            }
            ways.now = ways.now.min(way);
            let late = way.saturating_sub(ways.now.min(ways.before));
            return Some(Duration::from_millis(u64::try_from(late).unwrap_or(0)));
        }
        if senders.len() >= MOST {
            senders.clear();
        }
        senders.insert(name, Ways { now: way, before: way, since: Instant::now() });
        None
    }

    fn forget(&self, name: u64, way: i64) {
        let mut senders = self.senders.lock().unwrap_or_else(PoisonError::into_inner);
        senders.insert(name, Ways { now: way, before: way, since: Instant::now() });
    }
}

fn wall() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(10);

    fn left(ages: &Ages, sent: i64, wall_then: i64) -> Option<u64> {
        let left = ages.left(&format!("ab.{sent}.{wall_then}"), TTL)?;
        Some(left.as_millis().div_ceil(100) as u64 * 100)
    }

    #[test]
    fn a_call_that_waited_has_less_time_and_clocks_need_not_agree() {
        let ages = Ages::new();
        // The sender's clocks are days ahead.
        assert_eq!(left(&ages, 500_000_000, 0), Some(10_000));
        assert_eq!(left(&ages, 500_000_000 - 4_000, 0), Some(6_000));
        assert_eq!(left(&ages, 500_000_000 + 10, 0), Some(10_000));
        // The sender was suspended, which looks as if the call had waited for longer than it may.
        assert_eq!(left(&ages, 500_000_000 - 60_000, 0), Some(10_000));
        assert_eq!(left(&ages, 500_000_000 - 61_000, 0), Some(9_000));
        assert_eq!(ages.left("nonsense", TTL), Some(TTL));
    }

    #[test]
    fn what_waited_while_this_process_was_stopped_is_over() {
        let ages = Ages::new();
        assert_eq!(left(&ages, 1_000_000, wall()), Some(10_000));
        ages.tick(Duration::from_secs(30));
        assert_eq!(left(&ages, 1_000_000 - 30_000, wall() - 30_000), None);
        // Of a sender that was not heard before.
        assert_eq!(ages.left(&format!("cd.5.{}", wall() - 30_000), TTL), None);
        assert!(ages.left(&format!("ef.5.{}", wall()), TTL).is_some());
    }
}
