//! The table of scenarios, and how one is run.

use std::{io::Write, sync::Arc, time::Duration};

use futures_util::future::LocalBoxFuture;

use super::{
    scenarios::{
        calling, carrying, durable, fanout, leaving, ledger, operating, queues, redriving, replying,
        settling, stress,
    },
    target::{Stage, Target},
    wait::{Failure, Outcome, ensure, within},
};
use crate::bus::Guarantees;

/// One promise of the contract of [`Bus`](crate::Bus), as a test.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    /// The promise.
    pub name: &'static str,
    /// What a bus must have for the scenario to make sense.
    pub needs: Need,
    /// Runs it.
    pub run: fn(Arc<Stage>) -> LocalBoxFuture<'static, Outcome>,
}

/// What a scenario needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Any bus.
    Nothing,
    /// Connections that come and go on their own ([`Guarantees::shared`]).
    Shared,
    /// A ledger for all processes ([`Guarantees::shared_ledger`]).
    Ledger,
    /// Minutes of time: `COMMISSAIRE_LONG=1`.
    Time,
}

impl Need {
    /// What is missing, if something is.
    pub fn missing(self, guarantees: &Guarantees) -> Option<&'static str> {
        match self {
            Self::Shared if !guarantees.shared => Some("needs a bus that is shared between processes"),
            Self::Ledger if !guarantees.shared_ledger => Some("needs a ledger beside the queue"),
            Self::Time if std::env::var_os("COMMISSAIRE_LONG").is_none() => {
                Some("needs time: COMMISSAIRE_LONG=1")
            }
            _ => None,
        }
    }
}

/// Makes the table, and the macro that makes a `#[test]` of each row.
macro_rules! scenarios {
    ($d:tt $($group:ident { $($name:ident: $need:ident),* $(,)? })*) => {
        /// All scenarios.
        pub const SCENARIOS: &[Scenario] = &[$($(
            Scenario {
                name: stringify!($name),
                needs: Need::$need,
                run: |stage| Box::pin($group::$name(stage)),
            },
        )*)*];

        /// One `#[test]` for each of the [`SCENARIOS`](crate::testkit::SCENARIOS): the first argument is an async
        /// function that gives a fresh [`Target`](crate::testkit::Target), the second the
        /// [`Guarantees`](crate::Guarantees) that its bus must report.
        #[macro_export]
        macro_rules! conformance {
            ($d target:path, $d guarantees:expr) => {
                $($(
                    #[test]
                    fn $name() {
                        $crate::testkit::check(stringify!($name), $d guarantees, $d target);
                    }
                )*)*
            };
        }
    };
}

scenarios! { $
    carrying {
        every_kind_of_address_carries_headers_and_bytes: Nothing,
        every_byte_value_survives_in_a_body: Nothing,
        the_largest_message_passes_and_a_larger_one_is_refused: Nothing,
        exchanges_do_not_see_each_other: Nothing,
    }
    fanout {
        patterns_match_as_the_table_says: Nothing,
        patterns_that_overlap_deliver_a_message_once: Nothing,
        every_subscription_gets_a_copy: Nothing,
        ephemeral_subscriptions_get_nothing_from_before: Nothing,
        an_event_that_nobody_wants_is_well: Nothing,
        control_reaches_every_instance: Nothing,
        an_inbox_gets_only_its_own: Nothing,
    }
    durable {
        a_durable_subscription_keeps_while_its_reader_is_away: Nothing,
        readers_of_one_durable_name_share: Nothing,
        a_durable_subscription_takes_the_new_patterns: Nothing,
        a_durable_dead_letter_names_its_subscription: Nothing,
    }
    queues {
        competing_consumers_get_each_job_once: Nothing,
        one_at_a_time_keeps_the_order: Nothing,
        prefetch_is_never_exceeded: Nothing,
        a_queue_keeps_jobs_while_nobody_consumes: Nothing,
        queues_do_not_mix: Nothing,
    }
    settling {
        a_retry_is_neither_early_nor_late: Nothing,
        a_retry_counts_the_failed_run_and_says_why: Nothing,
        a_retry_holds_up_nobody_else: Nothing,
        a_dead_letter_keeps_body_and_headers: Nothing,
        a_dead_letter_that_is_acknowledged_is_gone: Nothing,
        a_dropped_delivery_comes_again: Nothing,
        a_dropped_subscription_gives_back_what_it_held: Nothing,
        a_cancelled_settlement_loses_nothing: Nothing,
        a_long_run_is_not_given_to_another: Time,
    }
    calling {
        instances_of_a_service_share_the_calls: Nothing,
        services_under_jobs_have_addresses_of_their_own: Nothing,
        a_call_to_nobody_fails_at_once: Nothing,
        a_call_fails_at_once_when_the_last_instance_has_gone: Nothing,
        a_call_fails_at_once_when_the_last_program_has_left: Shared,
        an_expired_call_is_never_delivered: Nothing,
        a_service_with_too_many_calls_is_busy: Nothing,
    }
    replying {
        a_forged_reply_address_reaches_nobody: Nothing,
        replies_that_nobody_awaits_disturb_nobody: Nothing,
    }
    redriving {
        a_redriven_dead_letter_comes_back_as_new: Nothing,
        a_redriven_event_reaches_its_own_subscription_only: Nothing,
        only_a_dead_letter_can_be_redriven: Nothing,
        jobs_that_always_fail_die_once_and_come_back_once: Nothing,
    }
    operating {
        a_connected_bus_says_so: Nothing,
        a_survey_tells_what_is_declared: Nothing,
        a_survey_changes_nothing: Nothing,
        a_removed_durable_subscription_is_gone: Nothing,
        a_removed_durable_subscription_is_made_again_under_its_readers: Nothing,
        only_an_idle_durable_subscription_is_removed: Nothing,
    }
    ledger {
        the_ledger_is_where_it_is_promised: Nothing,
        a_ledger_lets_one_holder_begin: Ledger,
        a_ledger_knows_what_was_done: Ledger,
    }
    leaving {
        a_closed_subscription_yields_what_it_took_and_ends: Nothing,
        a_closed_bus_ends_its_subscriptions: Nothing,
        a_closed_bus_refuses_and_may_be_closed_again: Nothing,
        a_closed_bus_gives_back_what_was_in_hand: Shared,
        one_program_that_leaves_does_not_disturb_another: Shared,
    }
    stress {
        comings_and_goings_lose_nothing: Nothing,
        cancelled_futures_lose_nothing: Nothing,
        publishers_that_vanish_lose_nothing_acknowledged: Shared,
    }
}

/// Runs the scenario called `name` on a target that `open` gives, as a test: panics when it fails, or when the bus does
/// not report `guarantees`.
pub fn check<F>(name: &str, guarantees: Guarantees, open: impl FnOnce() -> F)
where
    F: Future<Output = Outcome<Target>>,
{
    let outcome = SCENARIOS
        .iter()
        .find(|scenario| scenario.name == name)
        .ok_or_else(|| Failure::new("there is no scenario of this name"))
        .and_then(|scenario| match scenario.needs.missing(&guarantees) {
            Some(missing) => {
                // Not by `eprintln!`, which the test harness would swallow.
                writeln!(std::io::stderr(), "{name}: excluded: {missing}").map_err(Failure::from)
            }
            None => runtime()?.block_on(async { run(scenario, Some(guarantees), open().await?).await }),
        });
    if let Err(failure) = outcome {
        panic!("{name}: {failure}");
    }
}

/// Runs `scenario` on `target`; with `guarantees`, the bus must report just these.
pub async fn run(scenario: &Scenario, guarantees: Option<Guarantees>, target: Target) -> Outcome {
    let seed = seed()?;
    let stage = Arc::new(Stage::new(target, seed)?);
    if let Some(promised) = guarantees {
        let found = stage.bus().await?.guarantees();
        ensure!(found == promised, "the bus reports {found:?}, its page promises {promised:?}");
    }
    let limit = stage.patience() * 8 + stage.lease().unwrap_or(Duration::ZERO) * 4;
    let outcome = async {
        within("the whole scenario", limit, (scenario.run)(stage.clone())).await??;
        stage.close().await
    };
    outcome.await.map_err(|failure| failure.in_step(format_args!("with COMMISSAIRE_SEED={seed}")))
}

/// The seed of everything random in this run.
pub(super) fn seed() -> Outcome<u64> {
    match std::env::var("COMMISSAIRE_SEED") {
        Ok(text) => text.parse().map_err(|e| Failure::new(format!("COMMISSAIRE_SEED {text:?}: {e}"))),
        Err(_) => Ok(rand::random()),
    }
}

pub(super) fn runtime() -> Outcome<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?)
}
