//! The framework over a broker that is a model, in a time that is not real: everything that happens, and when, follows
//! from a seed, so that what goes wrong once goes wrong again.
//!
//! Services are started, drained, and killed at any await; connections break, the broker dies. Calls are made, jobs
//! enqueued and events announced meanwhile, and dead letters brought back. In the end all that was promised must have
//! come true.

mod broker;
mod bus;
mod check;
mod events;
mod site;
mod store;
mod world;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use self::events::Log;
use super::wait::{Failure, Outcome};

/// A bug that is planted, to see that it is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plant {
    /// None.
    Nothing,
    /// Jobs and events are acknowledged before they are begun.
    AcksFirst,
    /// What may have been sent is said not to have been.
    Denies,
    /// What is given back is gone.
    Swallows,
    /// Failed runs are not counted.
    Acquits,
    /// Some calls come twice.
    Doubles,
    /// More is delivered than there is room for.
    Grasps,
    /// Some events come to no ephemeral subscription, and no gap tells of it.
    Forgets,
    /// Dead letters are thrown away.
    Rots,
}

/// Runs the simulations of `seeds`; fails with the first that goes wrong, and what happened in it. The same seed gives
/// the same again.
pub fn simulate(seeds: std::ops::Range<u64>, plant: Plant) -> Outcome {
    for seed in seeds {
        let log = simulated(seed, plant)?;
        if let Err(why) = check::check(&log) {
            return Err(Failure::new(format!("COMMISSAIRE_SEED={seed}: {why}, in\n{log}")));
        }
    }
    Ok(())
}

/// All that happened in the simulation of `seed`, a line each.
pub fn simulation(seed: u64) -> Outcome<String> {
    simulated(seed, Plant::Nothing).map(|log| log.to_string())
}

fn simulated(seed: u64, plant: Plant) -> Outcome<Arc<Log>> {
    /// Far more than any simulation lasts.
    const LIMIT: Duration = Duration::from_secs(3600);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
    let run = || runtime.block_on(async { tokio::time::timeout(LIMIT, world::run(seed, plant)).await });
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(log)) => Ok(log),
        Ok(Err(_)) => Err(Failure::new(format!("COMMISSAIRE_SEED={seed}: it has no end"))),
        Err(_) => Err(Failure::new(format!("COMMISSAIRE_SEED={seed}: it panicked"))),
    }
}
