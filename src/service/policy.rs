//! How often, and for how long, a job or a durable event is tried.

use std::time::Duration;

use crate::{
    backoff::Backoff,
    bus::Guarantees,
    error::{Error, Result},
};

/// When failed jobs and durable events are tried again, when no more, and how long a run may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// How many runs may fail; after the last the message is a dead letter.
    pub max_attempts: u32,
    /// How often a message may come back from a consumer that died with it, before it is taken for the cause.
    pub max_crashes: u32,
    /// How long a run may take. A handler that takes longer is dropped at its next await, and the run has failed. A
    /// service does not start on a bus that takes messages back sooner ([`Guarantees::longest_run`]).
    pub max_run: Duration,
    /// The rests between runs.
    pub backoff: Backoff,
}

impl Default for RetryPolicy {
    /// Five runs of at most 20 minutes, resting about 1, 2, 4 and 8 s between them; ten crashes.
    fn default() -> Self {
        let backoff = Backoff { first: Duration::from_secs(1), most: Duration::from_secs(300) };
        Self { max_attempts: 5, max_crashes: 10, max_run: Duration::from_secs(20 * 60), backoff }
    }
}

impl RetryPolicy {
    /// Whether runs of `service` fit what the bus promises.
    pub(super) fn check(&self, service: &str, promised: &Guarantees) -> Result<()> {
        match promised.longest_run {
            Some(longest) if self.max_run > longest => Err(Error::config(format!(
                "jobs and durable events of service {service} may run for {:?} (max_run), and this bus leaves a message in \
                 hand for {longest:?} only: let the job write down what is to be done, take a lease and acknowledge, and \
                 work on from there; or set a shorter max_run",
                self.max_run
            ))),
            _ => Ok(()),
        }
    }
}
