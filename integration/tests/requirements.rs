//! What the bus must do whatever happens, and the tests that show it.

use std::{collections::BTreeSet, fs, path::Path};

use commissaire::testkit::SCENARIOS;
use commissaire_integration::{Failure, Outcome, ensure};

/// One requirement.
struct Requirement {
    name: &'static str,
    /// What must hold.
    holds: &'static str,
    /// The scenarios of the conformance suite that show it on every transport.
    scenarios: &'static [&'static str],
    /// Tests beside it: the file, and the function in it.
    tests: &'static [(&'static str, &'static str)],
}

const REQUIREMENTS: &[Requirement] = &[
    Requirement {
        name: "R1",
        holds: "what was acknowledged is delivered at least once, whatever is killed",
        scenarios: &["publishers_that_vanish_lose_nothing_acknowledged", "comings_and_goings_lose_nothing"],
        tests: &[
            ("integration/tests/campaign.rs", "killed_under_load"),
            ("integration/tests/disks.rs", "nothing_is_lost_when_a_broker_is_killed_whose_disk_is_slow"),
            ("integration/tests/disks.rs", "nothing_is_lost_when_the_disk_is_full"),
            (
                "integration/tests/survival.rs",
                "no_notification_is_lost_to_a_durable_listener_however_often_storage_is_killed",
            ),
        ],
    },
    Requirement {
        name: "R2",
        holds: "nothing comes that nobody sent, and everything comes whole",
        scenarios: &[
            "every_kind_of_address_carries_headers_and_bytes",
            "every_byte_value_survives_in_a_body",
        ],
        tests: &[("integration/tests/campaign.rs", "stopped_under_load")],
    },
    Requirement {
        name: "R3",
        holds: "twice only in a window that is declared; once with the dedup layer",
        scenarios: &["competing_consumers_get_each_job_once", "the_ledger_is_where_it_is_promised"],
        tests: &[
            ("tests/service/once.rs", "what_is_published_three_times_is_run_once"),
            ("integration/tests/once.rs", "no_job_runs_twice_however_often_the_broker_is_killed"),
            ("tests/faults/history.rs", "duplicates_need_a_fault_that_explains_them"),
        ],
    },
    Requirement {
        name: "R4",
        holds: "no more runs than there may be, then a dead letter that keeps all",
        scenarios: &[
            "jobs_that_always_fail_die_once_and_come_back_once",
            "a_dead_letter_keeps_body_and_headers",
            "a_retry_counts_the_failed_run_and_says_why",
        ],
        tests: &[
            ("tests/service/jobs.rs", "a_job_that_always_fails_runs_exactly_so_often_and_is_buried"),
            ("integration/tests/jobs.rs", "a_job_is_tried_again_with_growing_rests_and_then_a_dead_letter"),
        ],
    },
    Requirement {
        name: "R5",
        holds: "a retry is never early, and late by 250 ms or a tenth at the most",
        scenarios: &["a_retry_is_neither_early_nor_late", "a_retry_holds_up_nobody_else"],
        tests: &[("integration/tests/resting.rs", "fresh_jobs_pass_those_that_rest")],
    },
    Requirement {
        name: "R6",
        holds: "never more in hand than the prefetch",
        scenarios: &["prefetch_is_never_exceeded"],
        tests: &[],
    },
    Requirement {
        name: "R7",
        holds: "a call ends by its deadline, and nothing that comes later resolves anything",
        scenarios: &["an_expired_call_is_never_delivered", "replies_that_nobody_awaits_disturb_nobody"],
        tests: &[
            ("integration/tests/pauses.rs", "every_call_ends_in_time_while_the_broker_stands_still"),
            ("src/client/pending.rs", "forged_and_late_answers_are_dropped_and_counted"),
        ],
    },
    Requirement {
        name: "R8",
        holds: "nobody there is said within 50 ms",
        scenarios: &[
            "a_call_to_nobody_fails_at_once",
            "a_call_fails_at_once_when_the_last_instance_has_gone",
        ],
        tests: &[("integration/tests/calls.rs", "a_service_that_is_gone_is_exit_code_2_at_once")],
    },
    Requirement {
        name: "R9",
        holds: "a broker that is silent is noticed within 15 s, and found again within 5 s (amqp 10 s)",
        scenarios: &[],
        tests: &[
            ("integration/tests/health.rs", "a_service_is_ready_only_while_its_broker_hands_it_messages"),
            (
                "integration/tests/outage.rs",
                "everything_goes_on_by_itself_when_the_broker_is_back_and_nothing_acknowledged_is_lost",
            ),
            ("integration/tests/pauses.rs", "a_listener_that_stands_still_costs_nothing_but_time"),
            (
                "integration/tests/alarms.rs",
                "a_broker_without_room_stops_publishers_within_their_bound_and_nobody_else",
            ),
        ],
    },
    Requirement {
        name: "R10",
        holds: "what a program holds does not grow with what it has done",
        scenarios: &[],
        tests: &[
            ("integration/tests/upkeep.rs", "calls_that_nobody_answers_leave_nothing_behind"),
            ("integration/tests/upkeep.rs", "reconnects_leave_nothing_behind"),
            (
                "integration/tests/hostile.rs",
                "whatever_is_on_the_wire_a_service_answers_with_an_error_and_goes_on",
            ),
        ],
    },
    Requirement {
        name: "R11",
        holds: "who is told to end takes nothing new, finishes or gives back, and leaves in time",
        scenarios: &[
            "a_closed_bus_gives_back_what_was_in_hand",
            "a_closed_subscription_yields_what_it_took_and_ends",
        ],
        tests: &[
            ("tests/service/drain.rs", "what_was_begun_is_finished_and_nothing_new_is_taken"),
            ("tests/service/drain.rs", "the_grace_time_is_kept_and_jobs_that_were_cut_off_come_again"),
            ("integration/tests/up.rs", "up_ends_well_when_it_is_told_to"),
        ],
    },
    Requirement {
        name: "R12",
        holds: "an error tells what was not sent from what is unknown",
        scenarios: &["a_service_with_too_many_calls_is_busy", "a_closed_bus_refuses_and_may_be_closed_again"],
        tests: &[
            ("tests/service/calls.rs", "a_deadline_ends_the_call_and_says_maybe_executed"),
            ("integration/tests/campaign.rs", "killed_under_load"),
        ],
    },
    Requirement {
        name: "R13",
        holds: "a broker that is set up otherwise is named and refused",
        scenarios: &[],
        tests: &[
            ("transports/redis/tests/alone/refusal.rs", "strict_refuses_each_setting_by_name"),
            ("transports/nats/tests/alone/deletion.rs", "settings_that_differ_are_named_and_not_changed"),
            ("transports/amqp/tests/alone/refusal.rs", "a_queue_that_was_declared_otherwise_is_named"),
        ],
    },
    Requirement {
        name: "R14",
        holds: "the same is seen on every transport",
        scenarios: &["patterns_match_as_the_table_says"],
        tests: &[
            ("integration/tests/switching.rs", "the_same_script_prints_the_same_on_every_bus"),
            ("transports/memory/tests/programs/mod.rs", "random_programs_come_to_what_the_model_says"),
            ("transports/redis/tests/programs/mod.rs", "random_programs_come_to_what_the_model_says"),
        ],
    },
];

#[test]
fn every_requirement_is_shown_by_tests_that_there_are() -> Outcome {
    let wanted: BTreeSet<String> = (1..=14).map(|number| format!("R{number}")).collect();
    let found: BTreeSet<String> = REQUIREMENTS.iter().map(|one| one.name.to_owned()).collect();
    ensure!(wanted == found && REQUIREMENTS.len() == wanted.len(), "{found:?}");
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for Requirement { name, holds, scenarios, tests } in REQUIREMENTS {
        ensure!(!scenarios.is_empty() || !tests.is_empty(), "nothing shows {name}: {holds}");
        for scenario in *scenarios {
            let known = SCENARIOS.iter().any(|known| known.name == *scenario);
            ensure!(known, "{name}: there is no scenario {scenario}");
        }
        for (file, test) in *tests {
            let text = fs::read_to_string(top.join(file))
                .map_err(|e| Failure::new(format!("{name}: {file}: {e}")))?;
            ensure!(text.contains(&format!("fn {test}(")), "{name}: {file} has no test {test}");
        }
    }
    Ok(())
}
