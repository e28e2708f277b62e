//! Settling what a channel was handed: as few frames as can be, none of them held back for long.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

/// For how long an acknowledgement may wait for older ones to be settled with it.
const STRAGGLE: Duration = Duration::from_millis(50);

/// What the deliveries of one channel have come to, by their tags.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// All tags up to here are settled at the broker.
    base: u64,
    slots: VecDeque<Slot>,
    /// Since when the oldest acknowledgement waits behind an open delivery.
    waiting: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slot {
    Open,
    Acked,
    /// Nothing is to be said about it any more.
    Over,
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
        self.slots.push_back(Slot::Open);
    }

    /// It is done. Whether that is news.
    pub(super) fn ack(&mut self, tag: u64) -> bool {
        let Some(slot) = self.open(tag) else { return false };
        *slot = Slot::Acked;
        if self.slots.front() == Some(&Slot::Open) {
            self.waiting.get_or_insert_with(Instant::now);
        }
        true
    }

    /// It was given back. Whether that is news.
    pub(super) fn over(&mut self, tag: u64) -> bool {
        let Some(slot) = self.open(tag) else { return false };
        *slot = Slot::Over;
        true
    }

    /// What is to be said now, at the end all there is; and when to ask again.
    pub(super) fn flush(&mut self, now: Instant, end: bool, mut say: impl FnMut(Ack)) -> Option<Instant> {
        let mut all_to = None;
        while let Some(slot) = self.slots.front().copied()
            && slot != Slot::Open
        {
            self.slots.pop_front();
            self.base += 1;
            if slot == Slot::Acked {
                all_to = Some(self.base);
            }
        }
        if let Some(tag) = all_to {
            say(Ack { tag, multiple: true });
        }
        let behind = self.slots.contains(&Slot::Acked);
        if !behind {
            self.waiting = None;
            return None;
        }
        let due = self.waiting.get_or_insert(now).checked_add(STRAGGLE)?;
        if !end && now < due {
            return Some(due);
        }
        self.waiting = None;
        for (at, slot) in self.slots.iter_mut().enumerate().filter(|(_, slot)| **slot == Slot::Acked) {
            *slot = Slot::Over;
            say(Ack { tag: self.base + 1 + at as u64, multiple: false });
        }
        None
    }

    fn open(&mut self, tag: u64) -> Option<&mut Slot> {
        let at = usize::try_from(tag.checked_sub(self.base + 1)?).ok()?;
        self.slots.get_mut(at).filter(|slot| **slot == Slot::Open)
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
