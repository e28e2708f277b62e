//! What must hold for anything that the broker says, in functions as those of `commissaire::testkit::fuzz`.

use std::time::Duration;

use commissaire::testkit::fuzz;

use crate::{
    age::Ages,
    delay,
    registry::{Entry, View},
    wire::fuzz::{frame, version},
};

#[test]
fn what_the_broker_says_is_read_or_refused() {
    fuzz::check(&[
        ("amqp_stamp", stamp),
        ("amqp_entry", entry),
        ("amqp_frame", frame),
        ("amqp_version", version),
    ]);
}

/// Whatever its stamp says, a call has no more time than it was given.
fn stamp(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let ages = Ages::new();
    for ttl in [Duration::from_millis(1), Duration::from_secs(30), Duration::from_millis(u64::MAX)] {
        for _ in 0..2 {
            assert!(ages.left(text, ttl).is_none_or(|left| left <= ttl), "{text:?}");
        }
    }
    // What is said of a delay is as hostile as a stamp.
    let after =
        Duration::from_millis(text.split('.').next_back().and_then(|text| text.parse().ok()).unwrap_or(0));
    let step = delay::step(after);
    assert!(step >= after || after > Duration::from_millis(u64::from(u32::MAX) - 1), "{after:?} is {step:?}");
}

/// Entries of the registry, a line each: what cannot be read is passed over, and the last word holds.
fn entry(data: &[u8]) {
    let mut view = View::default();
    for line in data.split(|byte| *byte == b'\n') {
        if let Ok(entry) = serde_json::from_slice::<Entry>(line) {
            let written = serde_json::to_vec(&entry).expect("what was read can be written");
            assert!(serde_json::from_slice::<Entry>(&written).is_ok());
            view.apply(&entry);
        }
    }
    for durable in view.durables.values() {
        assert!(durable.patterns.iter().all(|pattern| !durable.past.contains(pattern)), "{durable:?}");
    }
}
