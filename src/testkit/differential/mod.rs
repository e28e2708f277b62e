//! Random programs on a bus and on a model of the contract, which must come to the same.

mod hands;
mod order;
mod perform;
mod receive;
mod shrink;

use std::{io::Write, sync::Arc, time::Duration};

use futures_util::{StreamExt, stream};

use self::perform::perform;
use super::{
    program::{Abilities, Program},
    target::{Target, job, key, token},
    wait::{Failure, Outcome, within},
};
use crate::{address::Origin, bus::Bus, driver::BusOptions, error::ErrorKind, subscription::Source};

/// Random programs of publishers and consumers, to be run on a bus: what comes of each must be what a small model of the
/// contract says. One that fails is made as short as it can be, and shown with its seed.
#[derive(Debug, Clone)]
pub struct Differential {
    /// How many programs. Default 100, or 2,000 with `COMMISSAIRE_LONG=1`.
    pub programs: u64,
    /// How many at one time, each on an exchange of its own. Default 16.
    pub at_once: usize,
    /// How many on one server: what they leave behind makes it slow. Default all.
    pub a_server: u64,
    /// Whether the target's server is killed and started again, once in each program.
    pub restarts: bool,
    /// How long a program that fails is made shorter. Default 60 s.
    pub shrinking: Duration,
}

/// Runs a hundred random programs on the target that `open` gives, as a test: panics when one does not come to what the
/// contract says.
pub fn differential<F>(open: impl Fn() -> F)
where
    F: Future<Output = Outcome<Target>>,
{
    Differential::default().check(open);
}

impl Default for Differential {
    fn default() -> Self {
        let programs = if std::env::var_os("COMMISSAIRE_LONG").is_some() { 2_000 } else { 100 };
        Self {
            programs,
            at_once: 16,
            a_server: u64::MAX,
            restarts: false,
            shrinking: Duration::from_secs(60),
        }
    }
}

impl Differential {
    /// The target's server is killed and started again in the middle of each program. A tenth of the programs, one at a
    /// time.
    pub fn restarting() -> Self {
        let all = Self::default();
        Self { programs: all.programs / 10, at_once: 1, restarts: true, ..all }
    }

    /// Runs it as a test, from the seed in `COMMISSAIRE_SEED` or from a random one, and says how many came to the same.
    pub fn check<F>(&self, open: impl Fn() -> F)
    where
        F: Future<Output = Outcome<Target>>,
    {
        let outcome = super::scenario::runtime().and_then(|runtime| {
            let outcome = runtime.block_on(async {
                let (seed, mut done) = (super::scenario::seed()?, 0);
                while done < self.programs {
                    let some = Self { programs: self.a_server.min(self.programs - done), ..self.clone() };
                    some.run(open().await?, seed.wrapping_add(done)).await?;
                    done += some.programs;
                    writeln!(std::io::stderr(), "differential: {done} programs from seed {seed}: equal")?;
                }
                Ok(())
            });
            runtime.shutdown_timeout(Duration::from_secs(1));
            outcome
        });
        if let Err(failure) = outcome {
            panic!("{failure}");
        }
    }

    /// Runs the programs of `seed` and the numbers after it.
    pub async fn run(&self, target: Target, seed: u64) -> Outcome {
        let target = Arc::new(target);
        let can = self.abilities(&target).await?;
        if !can.redrive {
            // Not by `eprintln!`, which the test harness would swallow.
            writeln!(std::io::stderr(), "differential: excluded: this bus cannot redrive dead letters yet")?;
        }
        if !can.change {
            let what = "this bus drops what only the old patterns of a durable subscription wanted";
            writeln!(std::io::stderr(), "differential: excluded: {what}")?;
        }
        let runs = (0..self.programs).map(|number| {
            let program = Arc::new(Program::random(seed.wrapping_add(number), can));
            let target = target.clone();
            async move {
                let outcome = carry_out(program.clone(), target, can).await;
                (program, outcome)
            }
        });
        let mut runs = stream::iter(runs).buffer_unordered(self.at_once.max(1));
        while let Some((program, outcome)) = runs.next().await {
            let Err(failure) = outcome else { continue };
            drop(runs);
            let (program, failure) = shrink::shrink(program, failure, &target, can, self.shrinking).await;
            return Err(Failure::new(format!(
                "COMMISSAIRE_SEED={}: {failure}, in the program of {} steps\n{program}",
                program.seed,
                program.steps.len()
            )));
        }
        Ok(())
    }

    /// Finds out what the bus can do.
    async fn abilities(&self, target: &Target) -> Outcome<Abilities> {
        let exchange = token(&format!("t{:016x}", rand::random::<u64>()));
        let bus = target.open(BusOptions { exchange, ..BusOptions::default() }).await?;
        let redrive = within("finding out whether it redrives", target.bound(), redrives(&*bus)).await??;
        let shared = bus.guarantees().shared;
        within("closing", target.bound(), bus.close()).await??;
        Ok(Abilities { shared, redrive, restart: self.restarts, change: target.keeps_all() })
    }
}

async fn redrives(bus: &dyn Bus) -> Outcome<bool> {
    let ended = || Failure::new("a subscription ended at once");
    let queue = key("jobs.probe");
    let mut jobs = bus.subscribe(Source::Queue(queue.clone()), 1).await?;
    bus.publish(job("jobs.probe", "dies")).await?;
    jobs.next_delivery().await.ok_or_else(ended)?.term("rejected", "to see whether it comes back").await?;
    let mut dead = bus.subscribe(Source::DeadLetters(Origin::Queue(queue)), 1).await?;
    match dead.next_delivery().await.ok_or_else(ended)?.redrive().await {
        Ok(()) => Ok(true),
        Err(error) if *error.kind() == ErrorKind::Invalid => Ok(false),
        Err(error) => Err(error.into()),
    }
}

async fn carry_out(program: Arc<Program>, target: Arc<Target>, can: Abilities) -> Outcome {
    let limit = target.bound() * 8 + target.longest_lease();
    within("the whole program", limit, perform(program, target, can.shared)).await?
}
