//! Whether a host goes up and down too often to say which it is.
//!
//! The rule is that of Nagios and its heirs: of the last 21 looks, the changes between one and the next are counted, later
//! ones with more weight; above 50 % a host flaps, until it is below 25 %.

use std::collections::VecDeque;

const LOOKS: usize = 21;
const HIGH: f64 = 50.0;
const LOW: f64 = 25.0;

/// The last looks at a host.
#[derive(Debug, Clone, Default)]
pub(crate) struct Flapping {
    looks: VecDeque<bool>,
    pub(crate) is: bool,
}

impl Flapping {
    /// One more look. Whether that changed anything.
    pub(crate) fn add(&mut self, well: bool) -> bool {
        if self.looks.len() == LOOKS {
            self.looks.pop_front();
        }
        self.looks.push_back(well);
        let (share, was) = (self.share(), self.is);
        self.is = if was { share >= LOW } else { share > HIGH };
        was != self.is
    }

    /// The weighted share of changes, in percent.
    fn share(&self) -> f64 {
        let changes = self.looks.iter().zip(self.looks.iter().skip(1)).map(|(a, b)| a != b);
        // Those that were not made yet are no changes.
        let first = LOOKS - self.looks.len();
        let step = 0.4 / (LOOKS - 2) as f64;
        let weighted = changes.enumerate().filter(|(_, changed)| *changed);
        let sum: f64 = weighted.map(|(at, _)| 0.8 + step * (first + at) as f64).sum();
        sum / (LOOKS - 1) as f64 * 100.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(looks: &str) -> Flapping {
        let mut flapping = Flapping::default();
        for look in looks.chars() {
            flapping.add(look == '+');
        }
        flapping
    }

    #[test]
    fn one_death_and_one_return_are_no_flapping() {
        assert!(!of("++++++++++---------++++++++++").is);
        assert!(!of("+-+").is);
    }

    #[test]
    fn up_and_down_all_the_time_is_until_it_stays() {
        let mut flapping = of("+-+-+-+-+-+-+-+-+-+-+");
        assert!(flapping.is && (flapping.share() - 100.0).abs() < 0.001);
        let looks = (1..).find(|_| flapping.add(true)).unwrap();
        assert!(!flapping.is && (14..=17).contains(&looks), "steady after {looks} looks");
    }
}
