//! Which signatures were good already.

use std::collections::BTreeSet;

use super::FRESH;

/// How many signatures of one actor are remembered.
const MOST: usize = 1 << 18;

/// The signatures of one actor that were let in: each is good once.
///
/// Its memory is bounded. When one actor asks more than 870 times a second for minutes, what it signed longest ago is
/// forgotten early; then nothing that it signed before that is let in any more, so that nothing is let in twice.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Time of signing and id: both are signed.
    signatures: BTreeSet<(u64, u128)>,
    /// What was signed at this time or before is not told apart any more.
    floor: Option<u64>,
}

impl Seen {
    /// Notes a good signature that is fresh at `now`; `false` when it was there already, or may have been.
    pub(super) fn enter(&mut self, time: u64, id: u128, now: u64) -> bool {
        self.enter_within(time, id, now, MOST)
    }

    fn enter_within(&mut self, time: u64, id: u128, now: u64, most: usize) -> bool {
        let stale = now.saturating_sub(FRESH.as_millis() as u64);
        while self.signatures.first().is_some_and(|(first, _)| *first < stale) {
            self.signatures.pop_first();
        }
        if self.floor.is_some_and(|floor| time <= floor) || !self.signatures.insert((time, id)) {
            return false;
        }
        if self.signatures.len() > most {
            self.floor = self.signatures.pop_first().map(|(first, _)| first);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_good_once() {
        let mut seen = Seen::default();
        assert!(seen.enter(1_000, 1, 1_000));
        assert!(!seen.enter(1_000, 1, 1_001));
        assert!(seen.enter(1_000, 2, 1_001));
        assert!(seen.enter(1_001, 1, 1_001));
    }

    #[test]
    fn what_is_not_fresh_any_more_is_forgotten() {
        let (mut seen, fresh) = (Seen::default(), FRESH.as_millis() as u64);
        assert!(seen.enter(fresh, 1, fresh));
        assert!(!seen.enter(fresh, 1, 2 * fresh));
        assert!(seen.enter(3 * fresh, 2, 3 * fresh));
        assert_eq!(seen.signatures.len(), 1);
    }

    #[test]
    fn a_full_memory_lets_nothing_in_twice() {
        let mut seen = Seen::default();
        for number in 0..100_u64 {
            assert!(seen.enter_within(1_000 + number, u128::from(number), 1_000, 10));
        }
        assert_eq!(seen.signatures.len(), 10);
        for number in 0..100_u64 {
            assert!(!seen.enter_within(1_000 + number, u128::from(number), 1_000, 10), "{number}");
        }
        // Late, and perhaps new; but that cannot be told.
        assert!(!seen.enter_within(1_000, 7_777, 1_000, 10));
        assert!(seen.enter_within(1_100, 7_777, 1_000, 10));
    }
}
