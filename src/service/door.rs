//! Who is let in to a service, said in the log and in the metrics.

use std::sync::Arc;

use crate::{
    actor::{Actor, Admission, Refusal},
    address::Key,
    jsonrpc::RpcError,
    message::Message,
    metrics::Metrics,
};

/// Where audit records go: the target of their log events.
const AUDIT: &str = "commissaire::audit";

/// Decides who is let in. Without rules everybody is, under the name that the message claims.
#[derive(Debug, Clone)]
pub(super) struct Door {
    admission: Option<Arc<Admission>>,
    pub(super) metrics: Metrics,
}

/// What a refusal comes to.
pub(super) enum Refused {
    /// Who asks is told.
    Told(RpcError),
    /// Nobody is told: who asked has had the answer, and this is somebody else, or an accident.
    Silent,
}

impl Door {
    pub(super) fn new(admission: Option<Arc<Admission>>, metrics: Metrics) -> Self {
        Self { admission, metrics }
    }

    /// Who sent the call `message` to `key`.
    pub(super) fn call(&self, key: &Key, message: &Message) -> Result<Actor, Refused> {
        let Some(admission) = &self.admission else { return Ok(Actor::claimed(message)) };
        admission.call(message).map_err(|refusal| {
            let error = self.refuse(key, &Actor::claimed(message), &refusal);
            if refusal == Refusal::Replayed { Refused::Silent } else { Refused::Told(error) }
        })
    }

    /// Lets `actor` call `key`.
    pub(super) fn allow(&self, key: &Key, actor: &Actor) -> Result<(), RpcError> {
        if let Some(Err(refusal)) = self.admission.as_ref().map(|admission| admission.allow(key, actor)) {
            return Err(self.refuse(key, actor, &refusal));
        }
        tracing::debug!(target: AUDIT, %key, %actor, verified = verified(actor), "let in");
        Ok(())
    }

    /// Who sent the job `message` to the queue `key`, if that is allowed.
    pub(super) fn job(&self, key: &Key, message: &Message) -> Result<Actor, RpcError> {
        let Some(admission) = &self.admission else {
            let actor = Actor::claimed(message);
            return self.allow(key, &actor).map(|()| actor);
        };
        let actor = admission
            .stored(message)
            .map_err(|refusal| self.refuse(key, &Actor::claimed(message), &refusal))?;
        self.allow(key, &actor).map(|()| actor)
    }

    /// Who told the event `message`. Everybody may.
    pub(super) fn event(&self, message: &Message) -> Actor {
        let proved = self.admission.as_ref().and_then(|admission| admission.stored(message).ok());
        proved.unwrap_or_else(|| Actor::claimed(message))
    }

    /// Notes what was refused whoever sent it.
    pub(super) fn turn_away(&self, message: &Message, reason: &'static str) {
        let (to, actor) = (message.address(), Actor::claimed(message));
        tracing::warn!(target: AUDIT, %to, %actor, reason, "refused");
        self.metrics.count_refused(reason);
    }

    fn refuse(&self, key: &Key, actor: &Actor, refusal: &Refusal) -> RpcError {
        let reason = refusal.name();
        tracing::warn!(target: AUDIT, %key, %actor, verified = verified(actor), reason, "refused");
        self.metrics.count_refused(reason);
        RpcError::new(RpcError::FORBIDDEN, refusal.tell(key, actor))
    }
}

fn verified(actor: &Actor) -> &'static str {
    if actor.is_verified() { "verified" } else { "unverified" }
}
