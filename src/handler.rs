//! Handlers: whatever answers a call.
//!
//! A client's way to the bus, a service's method and every layer between them are handlers, so one [`Layer`] serves both
//! sides, and a service can be tested with no bus at all.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use serde_json::value::RawValue;
use tokio::time::Instant;

use crate::{actor::Actor, address::Key, error::Error, trace::Trace};

/// What a call comes to: a result as JSON, or an error of the bus or of the callee.
pub type Outcome = Result<Box<RawValue>, Error>;

/// A call on its way.
#[derive(Clone)]
pub struct Call {
    /// The routing key.
    pub key: Key,
    /// An object or an array, or nothing.
    pub params: Option<Box<RawValue>>,
    /// When nobody waits for the answer any more. It travels as a remaining duration and shrinks over hops.
    pub deadline: Option<Instant>,
    /// Whether carrying it out twice is the same as once.
    pub idempotent: bool,
    /// Which run this is, counted from 1; more than 1 only for jobs.
    pub attempt: u32,
    /// Who asks; nobody on the calling side, where it is the program itself.
    pub actor: Actor,
    /// Where it belongs.
    pub trace: Trace,
}

/// Whatever answers a call.
///
/// Dropping the future cancels the call: a handler must leave things in order at every await.
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    /// Answers `call`.
    async fn call(&self, call: Call) -> Outcome;
}

/// Something put around a handler.
pub trait Layer {
    /// `inner`, with this layer around it.
    fn layer(&self, inner: Arc<dyn Handler>) -> Arc<dyn Handler>;
}

/// Shows which call it is, never the parameters: they may hold a secret.
impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("key", &self.key)
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}
