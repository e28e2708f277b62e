//! The checker finds each breach when it is planted, and none in a run that is well.

use commissaire::testkit::{Event, Findings, Rules, Seen, check_events};

const RULES: fn() -> Rules =
    || Rules { max_attempts: 3, prefetch: 2, runs: Some(1), ordered: true, ..Rules::default() };

/// What the checker says of events a millisecond apart.
fn look(events: &[Seen]) -> Findings {
    let events: Vec<Event> =
        events.iter().enumerate().map(|(at, what)| Event { at: at as u64 * 1_000, what: *what }).collect();
    check_events(&events, &RULES())
}

/// Message `n` is published, delivered to consumer 1, run and acknowledged.
fn whole(n: u64) -> [Seen; 5] {
    [
        Seen::Publish { n },
        Seen::Published { n },
        Seen::Delivered { n, by: 1, attempt: 1 },
        Seen::Run { n, by: 1 },
        Seen::Acked { n, by: 1 },
    ]
}

fn breached(events: &[Seen], rule: &str) {
    let found = look(events);
    let rules: Vec<&str> = found.breaches.keys().copied().collect();
    assert_eq!(rules, [rule], "of {events:?}");
}

#[test]
fn a_run_that_is_well_has_no_breach() {
    let retried = [
        Seen::Publish { n: 3 },
        Seen::Unknown { n: 3 },
        Seen::Delivered { n: 3, by: 1, attempt: 1 },
        Seen::Resting { n: 3, by: 1 },
        Seen::Delivered { n: 3, by: 2, attempt: 2 },
        Seen::Buried { n: 3, by: 2 },
    ];
    let call = [Seen::Call { n: 9, limit: 5_000 }, Seen::Executed { n: 9, by: 1 }, Seen::Answered { n: 9 }];
    let refused = [Seen::Publish { n: 4 }, Seen::Refused { n: 4 }];
    let found = look(&[&whole(1)[..], &whole(2), &retried, &call, &refused].concat());
    assert!(found.well(), "{found:?}");
    assert_eq!((found.tried, found.published, found.refused, found.unknown), (4, 2, 1, 1));
    assert_eq!((found.delivered, found.recovered, found.duplicates), (3, 1, 0));
    assert_eq!((found.calls, found.answered), (1, 1));
}

#[test]
fn what_was_acknowledged_and_never_came_is_lost() {
    breached(&[Seen::Publish { n: 1 }, Seen::Published { n: 1 }], "lost");
}

#[test]
fn what_nobody_sent_is_unexpected() {
    breached(&[Seen::Delivered { n: 1, by: 1, attempt: 1 }], "unexpected");
    breached(&[Seen::Foreign { by: 1 }], "unexpected");
    breached(&[Seen::Answered { n: 1 }], "unexpected");
}

#[test]
fn what_was_said_not_to_be_sent_must_not_come() {
    let mut events = whole(1);
    events[1] = Seen::Refused { n: 1 };
    breached(&events, "delivered, said not sent");
}

#[test]
fn what_is_never_settled_is_stuck() {
    breached(&whole(1)[..4], "never settled");
    // A settlement whose answer was lost may have been carried out.
    let doubt = [&whole(1)[..4], &[Seen::Unsettled { n: 1, by: 1 }]].concat();
    assert!(look(&doubt).well(), "{doubt:?}");
    let again = [&doubt[..], &[Seen::Delivered { n: 1, by: 1, attempt: 1 }]].concat();
    breached(&again, "never settled");
}

#[test]
fn duplicates_need_a_fault_that_explains_them() {
    let again = [Seen::Delivered { n: 1, by: 2, attempt: 1 }, Seen::Acked { n: 1, by: 2 }];
    breached(&[&whole(1)[..], &again].concat(), "duplicates");
    let found = look(&[&whole(1)[..], &[Seen::Down, Seen::Up], &again].concat());
    assert!(found.well(), "{found:?}");
    assert_eq!((found.duplicates, found.explained), (1, 1));
    // An acknowledgement of more than a second ago is no excuse.
    let mut late: Vec<Event> = whole(1).iter().map(|what| Event { at: 0, what: *what }).collect();
    late.extend([Event { at: 2_000_000, what: Seen::Down }, Event { at: 2_000_001, what: Seen::Up }]);
    late.extend(again.iter().map(|what| Event { at: 2_000_002, what: *what }));
    assert!(check_events(&late, &RULES()).breaches.contains_key("duplicates"));
    // One of while the broker was down is, however long that took.
    let mut between: Vec<Event> = whole(1).iter().map(|what| Event { at: 1, what: *what }).collect();
    between.insert(0, Event { at: 0, what: Seen::Down });
    between.push(Event { at: 5_000_000, what: Seen::Up });
    between.extend(again.iter().map(|what| Event { at: 5_000_001, what: *what }));
    let found = check_events(&between, &RULES());
    assert!(found.well(), "{found:?}");
}

#[test]
fn a_handler_that_runs_again_needs_a_death() {
    let again =
        [Seen::Delivered { n: 1, by: 2, attempt: 1 }, Seen::Run { n: 1, by: 2 }, Seen::Acked { n: 1, by: 2 }];
    breached(&[&whole(1)[..4], &[Seen::Unsettled { n: 1, by: 1 }], &again].concat(), "ran again");
    let found = look(&[&whole(1)[..4], &[Seen::Died { by: 1 }], &again].concat());
    assert!(found.well(), "{found:?}");
}

#[test]
fn limits_are_held() {
    let delivered = |n, attempt| Seen::Delivered { n, by: 1, attempt };
    let acked = |n| Seen::Acked { n, by: 1 };
    let sent = |n| [Seen::Publish { n }, Seen::Published { n }];
    breached(&[&sent(1)[..], &[delivered(1, 4), acked(1)]].concat(), "attempts");
    let many =
        [&sent(1)[..], &sent(2), &sent(3), &[delivered(1, 1), delivered(2, 1), delivered(3, 1)]].concat();
    breached(&[&many[..], &[acked(1), acked(2), acked(3)]].concat(), "prefetch");
    let order = [&sent(1)[..], &sent(2), &[delivered(2, 1), acked(2), delivered(1, 1), acked(1)]].concat();
    breached(&order, "order");
}

#[test]
fn calls_end_once_in_time_and_tell_the_truth() {
    let (n, by) = (1, 1);
    let (call, run) = (Seen::Call { n, limit: 5_000 }, Seen::Executed { n, by });
    breached(&[call, run], "never ended");
    breached(&[call, run, Seen::Answered { n }, Seen::Answered { n }], "double reply");
    breached(&[call, run, run, Seen::Answered { n }], "executed twice");
    breached(&[call, Seen::Answered { n }], "answered, not executed");
    breached(&[call, run, Seen::Failed { n, maybe: false }], "executed, said not");
    let late = [Event { at: 0, what: call }, Event { at: 56_000, what: Seen::Failed { n, maybe: true } }];
    assert!(check_events(&late, &RULES()).breaches.contains_key("deadline"));
}
