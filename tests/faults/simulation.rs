//! The framework over a model of a broker, in a time that is not real, for thousands of seeds.

use std::{io::Write, ops::Range};

use commissaire::testkit::{Plant, simulate, simulation};

/// So many seeds find any planted bug.
const FEW: u64 = 50;

/// Which seeds: the one in `COMMISSAIRE_SEED`, else as many as there is time for, from a random one on.
fn seeds() -> Range<u64> {
    if let Ok(seed) = std::env::var("COMMISSAIRE_SEED") {
        let seed = seed.parse().unwrap();
        return seed..seed + 1;
    }
    let many = if std::env::var_os("COMMISSAIRE_LONG").is_some() { 100_000 } else { 500 };
    let first: u32 = rand::random();
    u64::from(first)..u64::from(first) + many
}

#[test]
fn whatever_happens_all_that_was_promised_comes_true() {
    let seeds = seeds();
    let half = seeds.start + (seeds.end - seeds.start) / 2;
    let (one, other) = (seeds.start..half, half..seeds.end);
    let other = std::thread::spawn(move || simulate(other, Plant::Nothing));
    for outcome in [simulate(one, Plant::Nothing), other.join().unwrap()] {
        if let Err(failure) = outcome {
            panic!("{failure}");
        }
    }
}

#[test]
fn a_seed_gives_the_same_history_again() {
    for seed in 0..50 {
        let history = || {
            let history = simulation(seed).unwrap();
            let mut lines: Vec<String> = history.lines().map(str::to_owned).collect();
            // Calls that fail together do so in no order: their places are found by random numbers.
            lines.sort();
            lines
        };
        let (one, again) = (history(), history());
        let differs = one.iter().zip(&again).find(|(one, again)| one != again);
        assert_eq!(differs, None, "simulation {seed} differs from itself");
        assert_eq!(one.len(), again.len());
    }
}

#[test]
fn what_happens_is_worth_looking_at() {
    let all: String = (0..50).map(|seed| simulation(seed).unwrap()).collect();
    let mut missing = Vec::new();
    for what in [
        "Enqueued",
        "NotEnqueued",
        "Announce",
        "Heard",
        "Missed",
        "Redriven",
        "Begin",
        "Resume",
        "Done",
        "Fail",
        "Cut",
        "Acked",
        "Buried",
        "Undone",
        "Answered",
        "\"no_responders\"",
        "\"timeout\"",
        "\"unavailable\"",
        "Forsaken",
        "Served",
        "Dropped",
        "Drained",
        "NotStarted",
        "Kill",
        "Down",
        "Crash",
        "alone: true",
        "attempt: 3",
        "\"attempts\"",
    ] {
        let count = all.matches(what).count();
        writeln!(std::io::stderr(), "{count:>6} {what}").unwrap();
        if count == 0 {
            missing.push(what);
        }
    }
    assert!(missing.is_empty(), "never seen: {missing:?}");
}

#[test]
fn a_planted_bug_is_found() {
    for (plant, says) in [
        (Plant::AcksFirst, &["acknowledged and never done"] as &[_]),
        (Plant::Denies, &["said not to be"]),
        // Whichever shows first.
        (Plant::Swallows, &["lost", "has no end"]),
        (Plant::Acquits, &[""]),
        (Plant::Doubles, &["executed twice"]),
        (Plant::Grasps, &["more jobs run"]),
        (Plant::Forgets, &["never heard"]),
        (Plant::Rots, &["dead letters are lost"]),
    ] {
        let found = simulate(0..FEW, plant).map_err(|failure| failure.to_string());
        let told = found.as_ref().is_err_and(|found| says.iter().any(|says| found.contains(says)));
        assert!(told, "{plant:?}: {found:?}");
    }
}
