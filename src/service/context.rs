//! What a handler knows beside its parameters.

use tokio::time::Instant;

use crate::{actor::Actor, address::Key, client::Client, trace::Trace};

/// The circumstances of one call, job or event.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Context {
    /// To call others from within: such calls end by this one's deadline and belong to its trace.
    pub client: Client,
    /// The routing key.
    pub key: Key,
    /// When nobody waits for the answer any more; jobs and events have none.
    pub deadline: Option<Instant>,
    /// Which run this is, counted from 1; of a call always 1.
    pub attempt: u32,
    /// Who asks, or who told the event.
    pub actor: Actor,
    /// Where it belongs.
    pub trace: Trace,
}
