//! Working a queue.

use std::sync::Arc;

use serde_json::value::RawValue;

use super::{
    door::Door,
    router::{guarded, trace_of},
    runs::Runs,
};
use crate::{
    actor::Actor,
    address::{Address, Key},
    delivery::Delivery,
    handler::{Call, Handler},
    jsonrpc::{Incoming, RpcError, read_request},
    message::Message,
};

/// Who works one queue.
pub(super) struct Worker {
    key: Key,
    handler: Arc<dyn Handler>,
    door: Door,
    runs: Runs,
}

impl Worker {
    pub(super) fn new(key: Key, handler: Arc<dyn Handler>, door: Door, runs: Runs) -> Self {
        Self { key, handler, door, runs }
    }

    /// Runs one job and settles it.
    pub(super) async fn work(self: Arc<Self>, delivery: Delivery) {
        let (actor, params) = match self.read(delivery.message()) {
            Ok(read) => read,
            Err(error) => return self.runs.dead(delivery, "rejected", &error.message).await,
        };
        let call = Call {
            key: self.key.clone(),
            params,
            deadline: None,
            idempotent: true,
            attempt: delivery.attempt(),
            actor,
            trace: trace_of(delivery.message()),
        };
        let run = guarded(&self.handler, call);
        self.runs.carry_out(delivery, async { run.await.map(drop) }).await;
    }

    /// Who sent the job, and its parameters.
    fn read(&self, message: &Message) -> Result<(Actor, Option<Box<RawValue>>), RpcError> {
        // A message that was moved here from another queue is not what its sender wanted.
        if *message.address() != Address::Queue(self.key.clone()) {
            self.door.turn_away(message, "misaddressed");
            return Err(RpcError::new(RpcError::INVALID_REQUEST, "it was sent to another address"));
        }
        let actor = self.door.job(&self.key, message)?;
        Ok((actor, params(&self.key, message)?))
    }
}

/// The parameters of the notification that a job is.
fn params(key: &Key, message: &Message) -> Result<Option<Box<RawValue>>, RpcError> {
    let invalid = |text: &str| RpcError::new(RpcError::INVALID_REQUEST, text);
    match read_request(message.body()) {
        Ok(Incoming::One(Ok(request))) if request.method == key.last() => Ok(request.params),
        Ok(Incoming::One(Ok(_))) => Err(invalid("its method is not the last word of the queue's name")),
        Ok(Incoming::One(Err(bad))) | Err(bad) => Err(bad.error),
        Ok(Incoming::Batch(_)) => Err(invalid("a queue takes no batches")),
    }
}
