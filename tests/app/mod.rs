//! What every program does, over `memory://`.

mod config;
mod expiry;
mod letters;

use std::time::Duration;

use commissaire::time::span;

#[test]
fn a_span_of_time_is_told_in_its_two_largest_units() {
    let days = |days: u64| Duration::from_secs(days * 86_400);
    for (given, told) in [
        (Duration::ZERO, "0 ms"),
        (Duration::from_millis(250), "250 ms"),
        (Duration::from_millis(2_900), "2 s"),
        (Duration::from_secs(90), "1 min 30 s"),
        (Duration::from_secs(3_600), "1 h"),
        (Duration::from_secs(3_659), "1 h"),
        (Duration::from_secs(5_400), "1 h 30 min"),
        (days(7), "7 d"),
        (days(1) + Duration::from_secs(7_200), "1 d 2 h"),
    ] {
        assert_eq!(span(given), told);
    }
}
