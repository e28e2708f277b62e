//! Settling what a channel was handed: as few frames as can be, none of them held back for long.

use std::{collections::BTreeSet, time::Duration};

use tokio::time::Instant;

/// For how long an acknowledgement may wait for older ones to be settled with it.
const STRAGGLE: Duration = Duration::from_millis(50);

/// What the deliveries of one channel have come to, by their tags. No larger than what is in hand.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    last: u64,
    /// Not settled yet.
    open: BTreeSet<u64>,
    /// Done, and the broker does not know.
    acked: BTreeSet<u64>,
    /// Since when the oldest acknowledgement waits behind an open delivery.
    waiting: Option<Instant>,
}

/// An acknowledgement to be said.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ack {
    pub(super) tag: u64,
    pub(super) multiple: bool,
}

impl Ledger {
    /// A delivery came. Tags are given in order from 1.
    pub(super) fn delivered(&mut self) {
        self.last += 1;
        self.open.insert(self.last);
    }

    /// It is done. Whether that is news.
    pub(super) fn ack(&mut self, tag: u64) -> bool {
        self.open.remove(&tag) && self.acked.insert(tag)
    }

    /// It was given back. Whether that is news.
    pub(super) fn over(&mut self, tag: u64) -> bool {
        self.open.remove(&tag)
    }

    /// What is to be said now, at the end all there is; and when to ask again.
    pub(super) fn flush(&mut self, now: Instant, end: bool, mut say: impl FnMut(Ack)) -> Option<Instant> {
        let behind = match self.open.first() {
            Some(open) => self.acked.split_off(open),
            None => BTreeSet::new(),
        };
        if let Some(tag) = std::mem::replace(&mut self.acked, behind).pop_last() {
            say(Ack { tag, multiple: true });
        }
        if self.acked.is_empty() {
            self.waiting = None;
            return None;
        }
        let due = *self.waiting.get_or_insert(now) + STRAGGLE;
        if !end && now < due {
            return Some(due);
        }
        self.waiting = None;
        for tag in std::mem::take(&mut self.acked) {
            say(Ack { tag, multiple: false });
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flush(ledger: &mut Ledger, now: Instant) -> (Vec<(u64, bool)>, bool) {
        let mut said = Vec::new();
        let later = ledger.flush(now, false, |ack| said.push((ack.tag, ack.multiple)));
        (said, later.is_some())
    }

    #[test]
    fn what_is_done_in_order_is_said_at_once_and_a_straggler_holds_nothing_back_for_long() {
        let (mut ledger, now) = (Ledger::default(), Instant::now());
        (0..6).for_each(|_| ledger.delivered());
        assert!(ledger.ack(1) && ledger.ack(2) && !ledger.ack(2) && ledger.over(3));
        assert_eq!(flush(&mut ledger, now), (vec![(2, true)], false));
        assert!(ledger.ack(5));
        assert_eq!(flush(&mut ledger, now), (vec![], true));
        assert_eq!(flush(&mut ledger, now + 2 * STRAGGLE), (vec![(5, false)], false));
        assert!(ledger.ack(4));
        assert_eq!(flush(&mut ledger, now), (vec![(4, true)], false));
        assert!(ledger.over(6) && !ledger.ack(6) && !ledger.ack(7));
        assert_eq!(flush(&mut ledger, now), (vec![], false));
        ledger.delivered();
        assert!(ledger.ack(7));
        assert_eq!(flush(&mut ledger, now), (vec![(7, true)], false));
    }
}
