//! The answering side: a service is a table of methods, jobs and events over shared state.

mod cancel;
mod context;
mod door;
mod events;
mod jobs;
mod once;
mod policy;
mod router;
mod running;
mod runs;

use std::{collections::BTreeMap, future::Future, sync::Arc, time::Duration};

use tokio::time::timeout;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    address::{Key, Origin, Token},
    bus::Bus,
    client::Client,
    contract::{Event, Job, Method},
    delivery::Delivery,
    error::Result,
    handler::{Handler, Layer},
    jsonrpc::RpcError,
    ledger::LocalLedger,
    metrics::Metrics,
    pattern::Pattern,
    subscription::Source,
};
pub use context::Context;
pub use events::Notice;
pub use policy::RetryPolicy;
pub use running::{Drained, Running};

/// How many calls and jobs a service works on at one time when nothing else is said.
pub const DEFAULT_CONCURRENCY: u16 = 64;
/// How long messages that were carried out are remembered by the [dedup layer](Service::dedup) where nothing speaks
/// for another time: longer than any broker or publisher takes to hand the same message out again.
pub const DEFAULT_DEDUP: Duration = Duration::from_secs(600);

/// A service in the making: what it answers, over state that its handlers share.
///
/// * A **method** gets a call and answers it. A handler that panics answers −32603 without the panic's text. It is dropped
///   at the call's deadline, or when the caller has gone.
/// * A **job** handler gets a job; `Ok` is done, an error is tried again by the [`RetryPolicy`], and in the end the job
///   is a dead letter. Parameters that do not fit are a dead letter at once.
/// * An **event** handler gets what is announced; see [`event`](Self::event) and [`durable_event`](Self::durable_event).
///
/// Instances of one service share calls, jobs and durable events out among them.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// use std::sync::Arc;
/// use commissaire::{Context, RpcError, Service};
///
/// #[derive(serde::Serialize, serde::Deserialize)]
/// pub struct Greet { name: String }
/// commissaire::method! {
///     /// Greets.
///     pub Hello = "greeter.hello": Greet => String, idempotent
/// }
///
/// async fn hello(greeting: Arc<String>, who: Greet, _: Context) -> Result<String, RpcError> {
///     Ok(format!("{greeting}, {}", who.name))
/// }
///
/// let greeter = Service::new("greeter", "Hello".to_owned()).method(Hello, hello);
/// # let drivers = commissaire_transports::ALL;
/// let bus = commissaire::connect(&"memory://".parse()?, &Default::default(), drivers).await?;
/// let running = greeter.start(bus.clone()).await?;
/// running.drain(std::time::Duration::from_secs(5)).await;
/// # Ok::<(), commissaire::Error>(())
/// # }).unwrap();
/// ```
#[must_use = "a service does nothing until it is started"]
pub struct Service<S> {
    name: &'static str,
    state: Arc<S>,
    methods: Vec<(&'static str, router::Build)>,
    jobs: Vec<(&'static str, router::Build)>,
    events: Vec<events::Listener>,
    layers: Vec<Box<dyn Layer + Send + Sync>>,
    concurrency: u16,
    retry: RetryPolicy,
    dedup: Option<Duration>,
    metrics: Metrics,
}

impl<S: Send + Sync + 'static> Service<S> {
    /// A service called `name` in logs and metrics, whose handlers share `state`.
    pub fn new(name: &'static str, state: impl Into<Arc<S>>) -> Self {
        Self {
            name,
            state: state.into(),
            methods: Vec::new(),
            jobs: Vec::new(),
            events: Vec::new(),
            layers: Vec::new(),
            concurrency: DEFAULT_CONCURRENCY,
            retry: RetryPolicy::default(),
            dedup: None,
            metrics: Metrics::default(),
        }
    }

    /// Answers the calls of `M` with `handler`.
    pub fn method<M, F, R>(mut self, _method: M, handler: F) -> Self
    where
        M: Method,
        F: Fn(Arc<S>, M::Params, Context) -> R + Send + Sync + 'static,
        R: Future<Output = Result<M::Output, RpcError>> + Send + 'static,
    {
        self.methods.push((M::NAME, router::typed(self.state.clone(), handler)));
        self
    }

    /// Does the jobs of `J` with `handler`.
    pub fn job<J, F, R>(mut self, _job: J, handler: F) -> Self
    where
        J: Job,
        F: Fn(Arc<S>, J::Params, Context) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), RpcError>> + Send + 'static,
    {
        self.jobs.push((J::NAME, router::typed(self.state.clone(), handler)));
        self
    }

    /// Hears the events of `E` that are announced while this instance is connected, one at a time, in order. Each
    /// instance hears all. Where some may be missing it gets [`Notice::Gap`]: then look at the source of truth.
    pub fn event<E, F, R>(mut self, handler: F) -> Self
    where
        E: Event,
        F: Fn(Arc<S>, Notice<E>, Context) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), RpcError>> + Send + 'static,
    {
        self.events.push(events::listener(E::PATTERN, None, self.state.clone(), handler));
        self
    }

    /// Hears all events of `E` since the subscription `name` was first made, at least once, shared out among all who
    /// use the name; in order but for retries. Errors are retried as with jobs.
    pub fn durable_event<E, F, R>(mut self, name: &'static str, handler: F) -> Self
    where
        E: Event,
        F: Fn(Arc<S>, Notice<E>, Context) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), RpcError>> + Send + 'static,
    {
        self.events.push(events::listener(E::PATTERN, Some(name), self.state.clone(), handler));
        self
    }

    /// Puts `layer` around every method and job; the last one stands outermost.
    pub fn layer(mut self, layer: impl Layer + Send + Sync + 'static) -> Self {
        self.layers.push(Box::new(layer));
        self
    }

    /// How many calls, and how many jobs of each queue, are worked on at one time.
    pub fn concurrency(mut self, at_once: u16) -> Self {
        self.concurrency = at_once.max(1);
        self
    }

    /// When failed jobs and durable events are tried again, and when no more.
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.retry = policy;
        self
    }

    /// Runs each job and each durable event once: one that was done is acknowledged without a run when it comes again
    /// within `window` ([`DEFAULT_DEDUP`] suits most), known by its id; one that runs elsewhere waits until that run is
    /// over. Twice it runs only when an instance dies in the middle of a run, or loses its ledger for a minute: then the
    /// run is dropped, and the message comes again. While the ledger does not answer, messages wait.
    ///
    /// The ledger is that of the bus, for all processes ([`Guarantees::shared_ledger`](crate::Guarantees)), else one in
    /// this process. Costs two requests to the ledger a message.
    pub fn dedup(mut self, window: Duration) -> Self {
        self.dedup = Some(window);
        self
    }

    /// Counts into `metrics`.
    pub fn metrics(mut self, metrics: Metrics) -> Self {
        self.metrics = metrics;
        self
    }

    /// Starts answering on `bus`. Returns when the broker knows of every subscription.
    pub async fn start(self, bus: Arc<dyn Bus>) -> Result<Running> {
        if !self.jobs.is_empty() || self.events.iter().any(|listener| listener.durable.is_some()) {
            self.retry.check(self.name, &bus.guarantees())?;
        }
        let client = Client::counted(bus.clone(), self.metrics.clone());
        let door = door::Door::new(bus.admission(), self.metrics.clone());
        let ledger = self.dedup.map(|window| (bus.ledger().unwrap_or_else(LocalLedger::of_process), window));
        let runs = |source: String, place: Option<Origin>| runs::Runs {
            policy: self.retry,
            metrics: self.metrics.clone(),
            source,
            longest: bus.guarantees().longest_run.filter(|_| place.is_some()),
            once: ledger
                .clone()
                .zip(place)
                .map(|((ledger, window), place)| once::Once::new(ledger, place, window)),
            gate: runs::Gate::default(),
        };
        let mut running = Running::new(self.name, self.metrics.clone());
        let layered = |handler: Arc<dyn Handler>| {
            let metered = crate::layer::Metered(self.metrics.clone()).layer(handler);
            self.layers.iter().fold(metered, |inner, layer| layer.layer(inner))
        };
        let mut addresses: BTreeMap<Key, router::Table> = BTreeMap::new();
        for (name, build) in self.methods {
            let key = Key::new(name)?;
            addresses
                .entry(key.service()?)
                .or_default()
                .insert(key.last().to_owned(), layered(build(&client)));
        }
        for (address, table) in addresses {
            let calls = cancel::InFlight::default();
            let control = bus.subscribe(Source::Control(address.clone()), 64).await?;
            running.spawn(control, format!("control {address}"), cancel::listen(calls.clone()));
            let requests = bus.subscribe(Source::Service(address.clone()), self.concurrency).await?;
            let source = format!("service {address}");
            let router =
                Arc::new(router::Router { address, table, bus: bus.clone(), calls, door: door.clone() });
            running.serve(requests, source, move |delivery| router.clone().answer(delivery));
        }
        for (name, build) in self.jobs {
            let key = Key::new(name)?;
            let jobs = bus.subscribe(Source::Queue(key.clone()), self.concurrency).await?;
            let source = format!("queue {key}");
            let runs = runs(source.clone(), Some(Origin::Queue(key.clone())));
            let worker = Arc::new(jobs::Worker::new(key, layered(build(&client)), door.clone(), runs));
            running.serve(jobs, source, move |delivery| worker.clone().work(delivery));
        }
        for listener in self.events {
            let patterns = vec![Pattern::new(listener.pattern)?];
            let (source, place) = match listener.durable {
                Some(name) => {
                    let name = Token::new(name)?;
                    (Source::Durable(name.clone(), patterns), Some(Origin::Durable(name)))
                }
                None => (Source::Topic(patterns), None),
            };
            let name = source.to_string();
            let heard = bus.subscribe(source, events::PREFETCH).await?;
            let runs = runs(name.clone(), place);
            let ear = events::Ear::new(listener, client.clone(), door.clone(), runs);
            running.spawn(heard, name, move |heard| ear.listen(heard));
        }
        Ok(running)
    }
}
