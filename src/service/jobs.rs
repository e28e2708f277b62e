//! Working a queue: run, and retry with back-off until it is done or a dead letter.

use std::{sync::Arc, time::Duration};

use serde_json::value::RawValue;
use tokio::sync::RwLock;

use super::router::{guarded, trace_of};
use crate::{
    address::Key,
    backoff::Backoff,
    delivery::Delivery,
    error::Error,
    handler::{Call, Handler},
    jsonrpc::{Incoming, RpcError, read_request},
    message::Message,
    metrics::Metrics,
};

/// When failed jobs and durable events are tried again, and when no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// How many runs may fail; after the last the message is a dead letter.
    pub max_attempts: u32,
    /// How often a message may come back from a consumer that died with it, before it is taken for the cause.
    pub max_crashes: u32,
    /// The rests between runs.
    pub backoff: Backoff,
}

impl Default for RetryPolicy {
    /// Five runs, resting about 1, 2, 4 and 8 s between them; ten crashes.
    fn default() -> Self {
        let backoff = Backoff { first: Duration::from_secs(1), most: Duration::from_secs(300) };
        Self { max_attempts: 5, max_crashes: 10, backoff }
    }
}

/// Who works one queue.
pub(super) struct Worker {
    key: Key,
    handler: Arc<dyn Handler>,
    gate: Gate,
    end: Ending,
}

/// Lets what came back from a consumer that died run alone: if it is what kills them, nothing else dies with it.
#[derive(Default)]
pub(super) struct Gate(RwLock<()>);

/// How a run's outcome settles its delivery.
#[derive(Clone)]
pub(super) struct Ending {
    pub(super) policy: RetryPolicy,
    pub(super) metrics: Metrics,
    pub(super) source: String,
}

impl Gate {
    /// Runs `work` beside others, or alone.
    pub(super) async fn pass<T>(&self, alone: bool, work: impl Future<Output = T>) -> T {
        if alone {
            let _alone = self.0.write().await;
            work.await
        } else {
            let _beside = self.0.read().await;
            work.await
        }
    }
}

impl Worker {
    pub(super) fn new(key: Key, handler: Arc<dyn Handler>, policy: RetryPolicy, metrics: Metrics) -> Self {
        let end = Ending { policy, metrics, source: format!("queue {key}") };
        Self { key, handler, gate: Gate::default(), end }
    }

    /// Runs one job and settles it.
    pub(super) async fn work(self: Arc<Self>, delivery: Delivery) {
        if self.end.crashed_too_often(&delivery) {
            return self.end.dead(delivery, "crashes", "its consumers died with it in hand").await;
        }
        let params = match read_job(&self.key, delivery.message()) {
            Ok(params) => params,
            Err(error) => return self.end.dead(delivery, "rejected", &error.message).await,
        };
        let call = Call {
            key: self.key.clone(),
            params,
            deadline: None,
            idempotent: true,
            attempt: delivery.attempt(),
            trace: trace_of(delivery.message()),
        };
        let outcome = self.gate.pass(delivery.redelivered() > 0, guarded(&self.handler, call)).await;
        self.end.settle(delivery, outcome.map(drop)).await;
    }
}

impl Ending {
    pub(super) fn crashed_too_often(&self, delivery: &Delivery) -> bool {
        delivery.redelivered() > self.policy.max_crashes
    }

    /// Acknowledges, lets rest or buries, as the outcome of a run says.
    pub(super) async fn settle(&self, delivery: Delivery, outcome: Result<(), Error>) {
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

/// The parameters of the notification that a job is.
fn read_job(key: &Key, message: &Message) -> Result<Option<Box<RawValue>>, RpcError> {
    let invalid = |text: &str| RpcError::new(RpcError::INVALID_REQUEST, text);
    match read_request(message.body()) {
        Ok(Incoming::One(Ok(request))) if request.method == key.last() => Ok(request.params),
        Ok(Incoming::One(Ok(_))) => Err(invalid("its method is not the last word of the queue's name")),
        Ok(Incoming::One(Err(bad))) | Err(bad) => Err(bad.error),
        Ok(Incoming::Batch(_)) => Err(invalid("a queue takes no batches")),
    }
}
