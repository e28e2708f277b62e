//! Runs of jobs and durable events: one at a time or beside others, once or again, and the verdict.

use std::{future::Future, time::Duration};

use tokio::{
    sync::{RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::timeout,
};

use super::{
    RetryPolicy,
    once::{Once, Verdict},
};
use crate::{
    delivery::{Delivery, Settlement},
    error::{Error, ErrorKind},
    jsonrpc::RpcError,
    metrics::Metrics,
};

/// How deliveries of one source are run and settled.
pub(super) struct Runs {
    pub(super) policy: RetryPolicy,
    pub(super) metrics: Metrics,
    pub(super) source: String,
    /// How long a message may be in hand, if the broker sets a limit.
    pub(super) longest: Option<Duration>,
    /// The dedup layer, if it is asked for.
    pub(super) once: Option<Once>,
    pub(super) gate: Gate,
}

/// Lets what came back from a consumer that died run alone: if it is what kills them, nothing else dies with it.
#[derive(Default)]
pub(super) struct Gate(RwLock<()>);

/// Leave to run; held while running.
enum Turn<'a> {
    Beside(#[allow(dead_code, reason = "held, not read")] RwLockReadGuard<'a, ()>),
    Alone(#[allow(dead_code, reason = "held, not read")] RwLockWriteGuard<'a, ()>),
}

impl Gate {
    /// Waits until there is leave to run.
    async fn enter(&self, alone: bool) -> Turn<'_> {
        if alone { Turn::Alone(self.0.write().await) } else { Turn::Beside(self.0.read().await) }
    }
}

impl Runs {
    /// Runs `run` for `delivery`, at most so long and, with the dedup layer, at most once, and settles it.
    pub(super) async fn carry_out(&self, delivery: Delivery, run: impl Future<Output = Result<(), Error>>) {
        if delivery.redelivered() > self.policy.max_crashes {
            return self.dead(delivery, "crashes", "its consumers died with it in hand").await;
        }
        let run = async {
            let _turn = self.turn(&delivery).await?;
            let most = self.policy.max_run;
            Some(timeout(most, run).await.unwrap_or_else(|_| {
                Err(Error::new(ErrorKind::Timeout, format!("ran longer than {most:?}, which is max_run")))
            }))
        };
        let verdict = match &self.once {
            None => Verdict::Ended(run.await),
            Some(once) => once.run(&delivery, run).await,
        };
        match verdict {
            Verdict::Ended(Some(outcome)) => self.settle(delivery, outcome).await,
            Verdict::Ended(None) => drop(delivery),
            Verdict::Done => {
                tracing::debug!(source = %self.source, id = ?delivery.message().id(), "it was done already");
                self.metrics.count_delivery(&self.source, "deduplicated");
                self.settled(delivery.ack().await);
            }
            Verdict::Wait(after) => {
                self.metrics.count_delivery(&self.source, "waited");
                let message = delivery.message().clone();
                self.settled(delivery.settle(Settlement::Retry { after, message }).await);
            }
            Verdict::Unknowable => self.dead(delivery, "rejected", "it has no id to know it by").await,
        }
    }

    /// Leave to run `delivery`; `None` when that took so long that the run might end after the broker has taken the
    /// message back. Then it comes again, and no failed run is counted.
    async fn turn(&self, delivery: &Delivery) -> Option<Turn<'_>> {
        let turn = self.gate.enter(delivery.redelivered() > 0);
        match self.longest {
            None => Some(turn.await),
            Some(longest) => timeout(longest.saturating_sub(self.policy.max_run), turn).await.ok(),
        }
    }

    /// Whether a run that took so long, one of `others` that wait in hand for their turn, takes them too near to the time
    /// when the broker takes them back: if all were as long, the last could begin too late for a run of the longest kind.
    pub(super) fn is_long_beside(&self, took: Duration, others: u16) -> bool {
        self.longest
            .is_some_and(|longest| took * u32::from(others) > longest.saturating_sub(self.policy.max_run))
    }

    /// Acknowledges, lets rest or buries, as the outcome of a run says.
    async fn settle(&self, delivery: Delivery, outcome: Result<(), Error>) {
        let attempt = delivery.attempt();
        match outcome {
            Ok(()) => {
                self.metrics.count_delivery(&self.source, "ok");
                self.settled(delivery.ack().await);
            }
            Err(error) if error.remote().is_some_and(|remote| remote.code == RpcError::INVALID_PARAMS) => {
                self.dead(delivery, "rejected", &error.to_string()).await;
            }
            Err(error) if attempt >= self.policy.max_attempts => {
                self.dead(delivery, "attempts", &error.to_string()).await;
            }
            Err(error) => {
                let after = self.policy.backoff.after(attempt);
                tracing::info!(source = %self.source, attempt, ?after, %error, "a run failed and is tried again");
                self.metrics.count_delivery(&self.source, "retry");
                self.settled(delivery.nack(after, &error.to_string()).await);
            }
        }
    }

    /// Buries `delivery`.
    pub(super) async fn dead(&self, delivery: Delivery, cause: &'static str, reason: &str) {
        tracing::warn!(source = %self.source, attempt = delivery.attempt(), cause, reason, "dead letter");
        self.metrics.count_delivery(&self.source, "dead");
        self.settled(delivery.term(cause, reason).await);
    }

    fn settled(&self, outcome: Result<(), Error>) {
        if let Err(error) = outcome {
            tracing::warn!(source = %self.source, %error, "a delivery was not settled and comes again");
        }
    }
}
