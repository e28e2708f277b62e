//! The calling side: calls, jobs and events over a bus.

mod pending;
mod remote;

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use rand::random;
use serde_json::value::RawValue;
use tokio::{sync::oneshot, time::Instant};

use crate::{
    actor::Actor,
    address::{Address, Key},
    bus::Bus,
    contract::{Event, Job, Method},
    error::{Error, Result},
    handler::{Call, Handler, Layer},
    jsonrpc::{check, to_params, write_request},
    message::{Message, MessageId, header},
    metrics::Metrics,
    time::from_now,
    trace::Trace,
};
use remote::Remote;

/// How long a call waits for its answer when nothing else is said.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// Calls services, enqueues jobs and announces events. Cheap to clone; clones share one inbox.
///
/// A call that is dropped is cancelled: the service is told, and its handler is dropped at its next await. A call ends
/// by its deadline, and the error tells whether it may have been executed.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// use commissaire::{BusOptions, Client, Context, RpcError, Service, connect};
/// # #[derive(serde::Serialize, serde::Deserialize)]
/// # pub struct AddParams { x: i64, y: i64 }
/// # commissaire::method! { /// Adds.
/// # pub Add = "simple.add": AddParams => i64, idempotent }
/// # let drivers = commissaire_transports::ALL;
/// let bus = connect(&"memory://".parse()?, &BusOptions::default(), drivers).await?;
/// async fn add(_: std::sync::Arc<()>, sum: AddParams, _: Context) -> Result<i64, RpcError> {
///     Ok(sum.x + sum.y)
/// }
/// let service = Service::new("simple", ()).method(Add, add).start(bus.clone()).await?;
/// assert_eq!(Client::new(bus).call(Add, &AddParams { x: 2, y: 3 }).await?, 5);
/// # service.drain(std::time::Duration::from_secs(1)).await;
/// # Ok::<(), commissaire::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone)]
pub struct Client {
    bus: Arc<dyn Bus>,
    handler: Arc<dyn Handler>,
    timeout: Duration,
    deadline: Option<Instant>,
    trace: Option<Trace>,
}

impl Client {
    /// A client on `bus`. Its inbox is made with the first call.
    pub fn new(bus: Arc<dyn Bus>) -> Self {
        Self::counted(bus, Metrics::default())
    }

    /// A client on `bus` that counts in `metrics` the answers that none of its calls waits for.
    pub fn counted(bus: Arc<dyn Bus>, metrics: Metrics) -> Self {
        let handler = Arc::new(Remote::new(bus.clone(), metrics));
        Self { bus, handler, timeout: DEFAULT_TIMEOUT, deadline: None, trace: None }
    }

    /// The same client, whose calls wait at most `timeout`.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The same client, whose calls pass through `layer` first.
    #[must_use]
    pub fn with_layer(mut self, layer: &impl Layer) -> Self {
        self.handler = layer.layer(self.handler);
        self
    }

    /// The same client within a call: its own calls end by that call's deadline, and belong to its trace.
    #[must_use]
    pub fn within(&self, deadline: Option<Instant>, trace: Trace) -> Self {
        Self { deadline, trace: Some(trace), ..self.clone() }
    }

    /// The bus that it is on.
    pub fn bus(&self) -> &Arc<dyn Bus> {
        &self.bus
    }

    /// Asks and waits.
    pub async fn call<M: Method>(&self, _method: M, params: &M::Params) -> Result<M::Output> {
        let call = self.prepare(Key::new(M::NAME)?, to_params(params)?, M::IDEMPOTENT)?;
        let answer = self.handler.call(call).await?;
        serde_json::from_str(answer.get()).map_err(|e| {
            Error::malformed(format!("the answer of {} is not what its contract says", M::NAME))
                .because(e)
                .maybe_executed()
        })
    }

    /// Asks by routing key, in JSON. Not sent again by a retry layer once it may have been executed.
    pub async fn call_raw(&self, key: Key, params: Option<Box<RawValue>>) -> Result<Box<RawValue>> {
        self.handler.call(self.prepare(key, params, false)?).await
    }

    /// Leaves a job to whoever can do it. Returns its id when the broker has it.
    pub async fn enqueue<J: Job>(&self, _job: J, params: &J::Params) -> Result<MessageId> {
        self.enqueue_raw(Key::new(J::NAME)?, to_params(params)?).await
    }

    /// Leaves a job by routing key, in JSON.
    pub async fn enqueue_raw(&self, key: Key, params: Option<Box<RawValue>>) -> Result<MessageId> {
        check_params(params.as_deref())?;
        let body = write_request(None, key.last(), params.as_deref());
        self.send(Address::Queue(key), body).await
    }

    /// Announces that something happened. Returns when every durable subscription has it.
    pub async fn announce<E: Event>(&self, event: &E) -> Result<MessageId> {
        let body = serde_json::to_vec(event)
            .map_err(|e| Error::malformed("the event cannot be written as JSON").because(e))?;
        self.send(Address::Topic(event.key()?), body).await
    }

    /// Announces by routing key, in JSON or anything else.
    pub async fn announce_raw(&self, key: Key, body: Vec<u8>) -> Result<MessageId> {
        self.send(Address::Topic(key), body).await
    }

    async fn send(&self, address: Address, body: Vec<u8>) -> Result<MessageId> {
        let id = MessageId::new();
        let trace = self.next_trace();
        let message = Message::with_id(id, address, body)?.with(header::TRACEPARENT, trace.to_string())?;
        self.bus.publish(message).await?;
        Ok(id)
    }

    fn prepare(&self, key: Key, params: Option<Box<RawValue>>, idempotent: bool) -> Result<Call> {
        check_params(params.as_deref())?;
        let own = from_now(self.timeout);
        let deadline = Some(self.deadline.map_or(own, |deadline| deadline.min(own)));
        let (actor, trace) = (Actor::default(), self.next_trace());
        Ok(Call { key, params, deadline, idempotent, attempt: 1, actor, trace })
    }

    fn next_trace(&self) -> Trace {
        self.trace.map_or_else(Trace::start, Trace::child)
    }
}

/// Refuses before the wire what every service would refuse.
fn check_params(params: Option<&RawValue>) -> Result<()> {
    let Some(params) = params else { return Ok(()) };
    check(params.get().as_bytes()).map_err(|e| Error::invalid(e.message))?;
    if params.get().starts_with(['{', '[']) {
        return Ok(());
    }
    Err(Error::invalid("params must be a JSON object or array"))
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("bus", &self.bus)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}
