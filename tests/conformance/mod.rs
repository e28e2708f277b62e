//! The conformance scenarios fail when they should: each is run on a bus with a fault that it must find.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex},
    time::Duration,
};

use commissaire::{
    Bus, BusOptions, Token,
    testkit::{ChaosBus, Fault, Need, SCENARIOS, Scenario, Target, run},
};
use tempfile::TempDir;

/// Scenario, fault, and what the failure must say.
const FAULTS: &[(&str, Fault, &str)] = &[
    ("every_kind_of_address_carries_headers_and_bytes", Fault::Strips, "headers of a message"),
    ("every_kind_of_address_carries_headers_and_bytes", Fault::Garbles, "a body of"),
    ("every_byte_value_survives_in_a_body", Fault::Garbles, "a body of 256 bytes"),
    ("the_largest_message_passes_and_a_larger_one_is_refused", Fault::Cuts, "came as other 65536 bytes"),
    ("exchanges_do_not_see_each_other", Fault::Mixes, "reached another exchange"),
    ("patterns_match_as_the_table_says", Fault::Overhears, "was to come"),
    ("patterns_match_as_the_table_says", Fault::Loses, "nothing came"),
    ("patterns_that_overlap_deliver_a_message_once", Fault::Copies, "came"),
    ("every_subscription_gets_a_copy", Fault::Loses, "nothing came"),
    ("every_subscription_gets_a_copy", Fault::Doubles, "came more than once"),
    ("ephemeral_subscriptions_get_nothing_from_before", Fault::Remembers, "\"between\" came"),
    ("an_event_that_nobody_wants_is_well", Fault::Demands, "no_responders"),
    ("control_reaches_every_instance", Fault::Shares, "came"),
    ("an_inbox_gets_only_its_own", Fault::Confuses, "replies: "),
    ("a_durable_subscription_keeps_while_its_reader_is_away", Fault::Forgets, "nothing came"),
    ("readers_of_one_durable_name_share", Fault::Forgets, "came more than once"),
    ("a_durable_subscription_takes_the_new_patterns", Fault::Clings, "\"no longer wanted\" came"),
    ("a_durable_dead_letter_names_its_subscription", Fault::Buries, "nothing came"),
    ("competing_consumers_get_each_job_once", Fault::Doubles, "came more than once"),
    ("competing_consumers_get_each_job_once", Fault::Denies, "came more than once"),
    ("one_at_a_time_keeps_the_order", Fault::Reorders, "came where"),
    ("prefetch_is_never_exceeded", Fault::Grasps, "more came than was allowed"),
    ("a_queue_keeps_jobs_while_nobody_consumes", Fault::Loses, "nothing"),
    ("queues_do_not_mix", Fault::Folds, "came where"),
    ("a_retry_is_neither_early_nor_late", Fault::Hurries, "came early"),
    ("a_retry_is_neither_early_nor_late", Fault::Dawdles, "came late"),
    ("a_retry_counts_the_failed_run_and_says_why", Fault::Acquits, "is told that it is run 1"),
    ("a_retry_holds_up_nobody_else", Fault::Hurries, "\"resting\" came"),
    ("a_dead_letter_keeps_body_and_headers", Fault::Buries, "nothing had come"),
    ("a_dead_letter_that_is_acknowledged_is_gone", Fault::Denies, "came where \"end\""),
    ("a_dropped_delivery_comes_again", Fault::Swallows, "nothing came"),
    ("a_dropped_subscription_gives_back_what_it_held", Fault::Swallows, "nothing came"),
    ("a_cancelled_settlement_loses_nothing", Fault::Swallows, "nothing came"),
    ("a_cancelled_settlement_loses_nothing", Fault::Denies, "after its acknowledgement"),
    ("instances_of_a_service_share_the_calls", Fault::Doubles, "came more than once"),
    ("services_under_jobs_have_addresses_of_their_own", Fault::Pretends, "a call to nobody gave Ok"),
    ("a_call_to_nobody_fails_at_once", Fault::Pretends, "a call to nobody gave Ok"),
    ("a_call_to_nobody_fails_at_once", Fault::Hesitates, "to fail"),
    ("a_call_fails_at_once_when_the_last_instance_has_gone", Fault::Pretends, "in vain until"),
    ("a_call_fails_at_once_when_the_last_program_has_left", Fault::Stays, "a call to nobody gave Ok"),
    ("an_expired_call_is_never_delivered", Fault::Revives, "\"expired 0\" came"),
    ("a_service_with_too_many_calls_is_busy", Fault::Pretends, "took 20000 calls"),
    ("a_closed_subscription_yields_what_it_took_and_ends", Fault::Denies, "came more than once"),
    ("a_closed_bus_ends_its_subscriptions", Fault::Stays, "nothing came"),
    ("a_closed_bus_refuses_and_may_be_closed_again", Fault::Stays, "a closed bus gave"),
    ("a_closed_bus_gives_back_what_was_in_hand", Fault::Stays, "nothing came"),
    ("one_program_that_leaves_does_not_disturb_another", Fault::Loses, "nothing came"),
    ("comings_and_goings_lose_nothing", Fault::Loses, "came"),
    ("comings_and_goings_lose_nothing", Fault::Swallows, "came"),
    ("cancelled_futures_lose_nothing", Fault::Loses, "no end"),
    ("publishers_that_vanish_lose_nothing_acknowledged", Fault::Loses, "nothing came"),
    ("a_forged_reply_address_reaches_nobody", Fault::Obeys, "came where \"end\""),
    ("replies_that_nobody_awaits_disturb_nobody", Fault::Demands, "no_responders"),
    ("a_redriven_dead_letter_comes_back_as_new", Fault::Mislays, "came"),
    ("a_redriven_dead_letter_comes_back_as_new", Fault::Clones, "what came back 2 times"),
    ("a_redriven_event_reaches_its_own_subscription_only", Fault::Mislays, "nothing came"),
    ("a_redriven_event_reaches_its_own_subscription_only", Fault::Broadcasts, "came where \"end\""),
    ("only_a_dead_letter_can_be_redriven", Fault::Obliges, "no dead letter gave Ok"),
    ("jobs_that_always_fail_die_once_and_come_back_once", Fault::Acquits, "is told that it is run 1"),
    ("jobs_that_always_fail_die_once_and_come_back_once", Fault::Mislays, "nothing came"),
    ("jobs_that_always_fail_die_once_and_come_back_once", Fault::Clones, "never came"),
    ("a_connected_bus_says_so", Fault::Despairs, "a bus that works says Down"),
    ("a_survey_tells_what_is_declared", Fault::Miscounts, "a survey is wrong"),
    ("a_survey_changes_nothing", Fault::Rummages, "was awaited, after surveys"),
    ("a_removed_durable_subscription_is_gone", Fault::Clutches, "gave (true, true)"),
    ("a_removed_durable_subscription_is_gone", Fault::Mislays, "nothing came"),
    ("a_removed_durable_subscription_is_made_again_under_its_readers", Fault::Evicts, "in vain until"),
    ("only_an_idle_durable_subscription_is_removed", Fault::Hastens, "was removed under its reader"),
    ("only_an_idle_durable_subscription_is_removed", Fault::Clutches, "that never was is removed"),
    ("the_ledger_is_where_it_is_promised", Fault::Disowns, "is promised: true"),
    ("a_ledger_lets_one_holder_begin", Fault::Waves, "of 20 who asked"),
    ("a_ledger_knows_what_was_done", Fault::Unlearns, "where it is Done"),
];

#[test]
fn each_scenario_fails_on_a_bus_with_the_fault_that_it_is_to_find() {
    let todo = Mutex::new(FAULTS.iter());
    let wrong = Mutex::new(Vec::new());
    // They mostly wait.
    std::thread::scope(|threads| {
        for _ in 0..8 {
            threads.spawn(|| {
                while let Some((name, fault, says)) = { todo.lock().unwrap().next() } {
                    let failure = fails(name, *fault);
                    if !failure.as_ref().is_some_and(|failure| failure.contains(says)) {
                        wrong.lock().unwrap().push(format!("{name} with {fault:?}, {says:?}: {failure:?}"));
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_scenario_is_known_to_fail_with_some_fault() {
    let shown: BTreeSet<&str> = FAULTS.iter().map(|(name, ..)| *name).collect();
    let all = SCENARIOS.iter().filter(|scenario| scenario.needs != Need::Time).map(|scenario| scenario.name);
    assert_eq!(all.collect::<BTreeSet<_>>(), shown);
}

/// Why the scenario fails with `fault`; `None` when it does not.
fn fails(name: &str, fault: Fault) -> Option<String> {
    let scenario = SCENARIOS.iter().find(|scenario| scenario.name == name).expect("a scenario of this name");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let outcome = runtime.block_on(run(scenario, None, faulty(scenario, fault)));
    runtime.shutdown_background();
    outcome.err().map(|failure| failure.to_string())
}

/// A memory bus with a fault; one that is shared between connections where the scenario needs that.
fn faulty(scenario: &Scenario, fault: Fault) -> Target {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let owners: Arc<tokio::sync::Mutex<HashMap<Token, Arc<dyn Bus>>>> = Arc::default();
    let shared = scenario.needs == Need::Shared;
    let target = Target::new(move |options| {
        let (folder, owners, options) = (folder.clone(), owners.clone(), fault.options(options));
        Box::pin(async move {
            let mut owners = owners.lock().await;
            if let Some(owner) = owners.get(&options.exchange).filter(|_| !shared) {
                return Ok(owner.clone());
            }
            if !owners.contains_key(&options.exchange) {
                let listen = format!("memory://?listen={}", socket(&folder, &options));
                let owner = (commissaire_memory::DRIVER.connect)(listen.parse()?, options.clone()).await?;
                owners.insert(options.exchange.clone(), Arc::new(ChaosBus::new(owner, fault)));
            }
            if !shared {
                return Ok(owners[&options.exchange].clone());
            }
            let uri = format!("unix://{}", socket(&folder, &options)).parse()?;
            let bus = (commissaire_memory::UNIX_DRIVER.connect)(uri, options).await?;
            Ok(Arc::new(ChaosBus::new(bus, fault)) as Arc<dyn Bus>)
        })
    });
    target.patience(Duration::from_millis(1_500))
}

fn socket(folder: &TempDir, options: &BusOptions) -> String {
    folder.path().join(options.exchange.as_str()).display().to_string()
}
