//! How one host fares: what the looks at it come to.

use std::time::Duration;

use tokio::time::Instant;

use crate::flapping::Flapping;

/// What one look found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Look {
    Well,
    Bad {
        /// The kind of failure.
        cause: String,
        /// In words.
        text: String,
    },
}

/// How one host fares.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fate {
    /// Since when it fails: the begin of the first look that found so.
    pub(crate) bad_since: Option<Instant>,
    pub(crate) tries: u32,
    pub(crate) cause: String,
    pub(crate) text: String,
    pub(crate) flapping: Flapping,
    /// Whether it is down, for certain.
    pub(crate) down: bool,
}

impl Fate {
    /// A host that is known to be down.
    pub(crate) fn down(cause: &str, text: &str, now: Instant, tries: u32) -> Self {
        let (cause, text) = (cause.to_owned(), text.to_owned());
        Self { bad_since: Some(now), tries, cause, text, down: true, ..Self::default() }
    }

    /// Takes in what a look that began at `began` has found. Whether it began or ceased to flap.
    pub(crate) fn take(&mut self, look: &Look, began: Instant) -> bool {
        match look {
            Look::Well => {
                self.bad_since = None;
                self.tries = 0;
                self.cause.clear();
                self.text.clear();
                if !self.flapping.is {
                    self.down = false;
                }
            }
            Look::Bad { cause, text } => {
                self.bad_since.get_or_insert(began);
                self.tries = self.tries.saturating_add(1);
                self.cause.clone_from(cause);
                self.text.clone_from(text);
            }
        }
        let changed = self.flapping.add(*look == Look::Well);
        if changed && !self.flapping.is {
            // What was held back meanwhile holds now.
            self.down &= self.bad_since.is_some();
        }
        changed
    }

    /// Whether it fails often enough, and for so long that all others were looked at meanwhile.
    pub(crate) fn is_ripe(&self, tries: u32, hold: Duration, now: Instant) -> bool {
        !self.down
            && !self.flapping.is
            && self.tries >= tries
            && self.bad_since.is_some_and(|since| now.saturating_duration_since(since) >= hold)
    }

    /// Counts its failures anew, unless it is down already.
    pub(crate) fn again(&mut self, now: Instant) {
        if self.bad_since.is_some() && !self.down {
            (self.bad_since, self.tries) = (Some(now), 0);
        }
    }

    /// How long after the begin of a look the next one begins; `None`: at its turn.
    pub(crate) fn rest(&self, tries: u32, interval: Duration, now: Instant) -> Option<Duration> {
        let since = self.bad_since?;
        if self.tries < tries {
            return Some(interval / 4);
        }
        // The longer it is down the less often it is looked at, as if it were to come back after as long again.
        let down = now.saturating_duration_since(since);
        Some((down / 20).clamp(interval / 2, interval * 5))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);
    const HOLD: Duration = Duration::from_secs(54);

    fn bad() -> Look {
        Look::Bad { cause: "refused".to_owned(), text: "refused".to_owned() }
    }

    #[tokio::test]
    async fn a_host_is_down_after_its_tries_and_its_time() {
        let (mut fate, began) = (Fate::default(), Instant::now());
        let after = |seconds| began + Duration::from_secs(seconds);
        assert_eq!(fate.rest(3, MINUTE, began), None);
        fate.take(&bad(), began);
        assert_eq!(fate.rest(3, MINUTE, began), Some(MINUTE / 4));
        fate.take(&bad(), after(15));
        assert!(!fate.is_ripe(3, HOLD, after(100)), "two failures are not enough");
        fate.take(&bad(), after(30));
        assert!(!fate.is_ripe(3, HOLD, after(50)), "not all others were looked at");
        assert!(fate.is_ripe(3, HOLD, after(54)));
        fate.down = true;
        assert!(!fate.is_ripe(3, HOLD, after(60)), "it is down already");
        fate.take(&Look::Well, after(70));
        assert!(!fate.down && fate.bad_since.is_none() && fate.cause.is_empty());
    }

    #[tokio::test]
    async fn one_that_is_judged_anew_fails_its_tries_and_its_time_again() {
        let (mut fate, began) = (Fate::default(), Instant::now());
        for _ in 0..3 {
            fate.take(&bad(), began);
        }
        assert!(fate.is_ripe(3, HOLD, began + HOLD));
        fate.again(began + HOLD);
        assert!(!fate.is_ripe(3, HOLD, began + HOLD * 3), "it has not failed since");
        for _ in 0..3 {
            fate.take(&bad(), began + HOLD);
        }
        assert!(!fate.is_ripe(3, HOLD, began + HOLD) && fate.is_ripe(3, HOLD, began + HOLD * 2));
    }

    #[tokio::test]
    async fn one_that_fails_once_or_twice_is_not_down() {
        let (mut fate, now) = (Fate::default(), Instant::now());
        for look in [bad(), bad(), Look::Well, bad(), Look::Well] {
            fate.take(&look, now);
        }
        assert!(!fate.is_ripe(3, Duration::ZERO, now + MINUTE) && !fate.down);
    }

    #[tokio::test]
    async fn the_longer_it_is_down_the_less_often_it_is_looked_at() {
        let now = Instant::now();
        let fate = Fate::down("refused", "", now, 3);
        let rest = |minutes: u32| fate.rest(3, MINUTE, now + MINUTE * minutes).unwrap();
        assert_eq!((rest(1), rest(20), rest(60), rest(1000)), (MINUTE / 2, MINUTE, MINUTE * 3, MINUTE * 5));
    }

    #[tokio::test]
    async fn while_it_flaps_it_stays_what_it_was() {
        let (mut fate, now) = (Fate::default(), Instant::now());
        for _ in 0..11 {
            fate.take(&Look::Well, now);
            fate.take(&bad(), now);
        }
        assert!(fate.flapping.is);
        for _ in 0..5 {
            fate.take(&bad(), now);
        }
        assert!(fate.flapping.is && !fate.is_ripe(3, Duration::ZERO, now + MINUTE), "nothing is called down");
    }
}
