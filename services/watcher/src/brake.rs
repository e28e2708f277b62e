//! The brake: when very many hosts turn bad at once, that is more likely our fault than theirs.

use std::time::Duration;

/// The fewest hosts that are many.
const FEWEST: usize = 3;

/// Whether no status is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Brake {
    pub(crate) is_on: bool,
}

/// What became of the brake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Braking {
    Nothing,
    On,
    Off,
}

impl Brake {
    /// `turned` of `all` hosts have turned bad lately and are so still.
    pub(crate) fn judge(&mut self, turned: usize, all: usize, percent: u32) -> Braking {
        let share = (turned * 100).checked_div(all).unwrap_or(0);
        let percent = percent as usize;
        if !self.is_on && turned >= FEWEST && percent < 100 && share >= percent {
            self.is_on = true;
            return Braking::On;
        }
        if self.is_on && share * 2 < percent {
            self.is_on = false;
            return Braking::Off;
        }
        Braking::Nothing
    }
}

/// How long a host that fails is waited with: nearly all others were looked at meanwhile.
pub(crate) fn hold(interval: Duration) -> Duration {
    interval.mul_f64(0.9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_on_from_its_share_and_off_below_half_of_it() {
        let mut brake = Brake::default();
        let mut steps = Vec::new();
        for turned in [1, 29, 30, 60, 30, 15, 14, 0, 30] {
            steps.push(brake.judge(turned, 100, 30));
        }
        use Braking::{Nothing, Off, On};
        assert_eq!(steps, [Nothing, Nothing, On, Nothing, Nothing, Nothing, Off, Nothing, On]);
    }

    #[test]
    fn few_hosts_are_never_many_and_a_hundred_percent_is_never() {
        assert_eq!(Brake::default().judge(2, 2, 30), Braking::Nothing);
        assert_eq!(Brake::default().judge(3, 6, 30), Braking::On);
        assert_eq!(Brake::default().judge(100, 100, 100), Braking::Nothing);
        assert_eq!(Brake::default().judge(0, 0, 30), Braking::Nothing);
    }
}
