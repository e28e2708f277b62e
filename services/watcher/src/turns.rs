//! Whose turn it is: each host at its own moment of the interval, the same after every restart.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::time::Instant;

/// The turns of all hosts.
#[derive(Debug)]
pub(crate) struct Turns {
    interval: Duration,
    /// A moment of our clock, and how far into an interval of the world's it is.
    began: (Instant, Duration),
    heap: BinaryHeap<Reverse<(Instant, String)>>,
    due: HashMap<String, Instant>,
}

impl Turns {
    pub(crate) fn new(interval: Duration) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let into = Duration::from_nanos((now.as_nanos() % interval.as_nanos().max(1)) as u64);
        Self { interval, began: (Instant::now(), into), heap: BinaryHeap::new(), due: HashMap::new() }
    }

    /// The host's next turn of its own after `after`.
    pub(crate) fn own(&self, address: &str, after: Instant) -> Instant {
        let length = self.interval.as_nanos().max(1);
        let offset = u128::from(hash(address)) * length / (u128::from(u64::MAX) + 1);
        let (began, into) = self.began;
        let position = after.saturating_duration_since(began).as_nanos() + into.as_nanos();
        let rest = (offset + length - position % length - 1) % length + 1;
        after + Duration::from_nanos(rest as u64)
    }

    /// Sets the host's turn, in the place of the one that it had.
    pub(crate) fn set(&mut self, address: &str, due: Instant) {
        self.due.insert(address.to_owned(), due);
        self.heap.push(Reverse((due, address.to_owned())));
    }

    /// Takes the host's turn away.
    pub(crate) fn remove(&mut self, address: &str) {
        self.due.remove(address);
    }

    /// The next host whose turn has come by `now`, and when it had.
    pub(crate) fn next(&mut self, now: Instant) -> Option<(String, Instant)> {
        while let Some(Reverse((due, _))) = self.heap.peek() {
            if *due > now {
                return None;
            }
            let Reverse((due, address)) = self.heap.pop()?;
            // Else it was set anew meanwhile.
            if self.due.get(&address) == Some(&due) {
                self.due.remove(&address);
                return Some((address, due));
            }
        }
        None
    }

    /// When the next turn comes.
    pub(crate) fn when(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((due, _))| *due)
    }
}

/// A hash of an address that is the same everywhere and always: FNV-1a, stirred once more so that alike addresses part.
pub(crate) fn hash(address: &str) -> u64 {
    let fnv = address.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let stirred = (fnv ^ (fnv >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    stirred ^ (stirred >> 29)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn each_host_has_its_turn_once_an_interval_at_its_own_moment() {
        let turns = Turns::new(MINUTE);
        let now = Instant::now();
        let mut by_second = [0_u32; 60];
        for number in 0..6000 {
            let address = format!("10.0.{}.{}", number / 250, number % 250);
            let first = turns.own(&address, now);
            assert!(first > now && first <= now + MINUTE);
            assert_eq!(turns.own(&address, first), first + MINUTE);
            let before = first - Duration::from_nanos(1);
            assert_eq!(turns.own(&address, before), first);
            by_second[((first - now).as_secs() as usize).min(59)] += 1;
        }
        assert!(by_second.iter().all(|count| (50..=160).contains(count)), "{by_second:?}");
    }

    #[tokio::test]
    async fn a_turn_that_was_set_anew_comes_once() {
        let mut turns = Turns::new(MINUTE);
        let now = Instant::now();
        turns.set("a", now + MINUTE);
        turns.set("a", now);
        turns.set("b", now);
        turns.set("c", now);
        turns.remove("c");
        let later = now + MINUTE * 2;
        let mut seen = Vec::new();
        while let Some((address, due)) = turns.next(later) {
            seen.push((address, due == now));
        }
        assert_eq!(seen, [("a".to_owned(), true), ("b".to_owned(), true)]);
        assert_eq!(turns.when(), None);
    }
}
