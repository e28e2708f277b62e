//! Hearing events.

use std::{future::Future, panic::AssertUnwindSafe, sync::Arc};

use bytes::Bytes;
use futures_util::{FutureExt, future::BoxFuture};
use tokio::time::Instant;

use super::{Context, door::Door, router::trace_of, runs::Runs};
use crate::{
    actor::Actor,
    client::Client,
    contract::Event,
    delivery::Delivery,
    jsonrpc::RpcError,
    subscription::{Gap, Received, Subscription},
};

/// How many events are in hand at one time; one is worked on.
pub(super) const PREFETCH: u16 = 64;

/// What an event handler gets.
#[derive(Debug)]
pub enum Notice<E> {
    /// Something happened.
    Event(E),
    /// Events may be missing before the next: look at the source of truth.
    Gap(Gap),
}

/// A handler of events before the service runs.
pub(super) struct Listener {
    pub(super) pattern: &'static str,
    pub(super) durable: Option<&'static str>,
    hear: Hear,
}

type Hear = Arc<dyn Fn(Notice<Bytes>, Context) -> BoxFuture<'static, Result<(), RpcError>> + Send + Sync>;

/// A handler of events at work.
pub(super) struct Ear {
    listener: Listener,
    client: Client,
    door: Door,
    runs: Runs,
}

pub(super) fn listener<S, E, F, R>(
    pattern: &'static str,
    durable: Option<&'static str>,
    state: Arc<S>,
    handler: F,
) -> Listener
where
    S: Send + Sync + 'static,
    E: Event,
    F: Fn(Arc<S>, Notice<E>, Context) -> R + Send + Sync + 'static,
    R: Future<Output = Result<(), RpcError>> + Send + 'static,
{
    let hear = move |notice: Notice<Bytes>, context: Context| {
        let notice = match notice {
            Notice::Gap(gap) => Ok(Notice::Gap(gap)),
            Notice::Event(body) => serde_json::from_slice(&body).map(Notice::Event).map_err(|e| {
                let text = format!(
                    "the event is not what its contract says, at line {} column {}",
                    e.line(),
                    e.column()
                );
                RpcError::new(RpcError::INVALID_PARAMS, text)
            }),
        };
        let ready = notice.map(|notice| handler(state.clone(), notice, context));
        async move { ready?.await }.boxed()
    };
    Listener { pattern, durable, hear: Arc::new(hear) }
}

impl Ear {
    pub(super) fn new(listener: Listener, client: Client, door: Door, runs: Runs) -> Self {
        Self { listener, client, door, runs }
    }

    /// Hears one event after another until the subscription ends.
    pub(super) fn listen(self, mut heard: Subscription) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let closing = heard.closer();
            while let Some(received) = heard.next().await {
                // What was taken and not begun goes back: it is somebody else's now.
                if closing.is_cancelled() {
                    break;
                }
                let began = Instant::now();
                match received {
                    Received::Delivery(delivery) => self.hear(delivery).await,
                    Received::Gap(gap) => self.miss(gap).await,
                }
                if self.runs.is_long_beside(began.elapsed(), PREFETCH) {
                    // Those that waited meanwhile come again, and the broker counts their time in hand from new. All
                    // are taken before the first is given back, or it would be taken again.
                    let waiting = std::iter::from_fn(|| heard.next().now_or_never().flatten());
                    let waiting: Vec<Received> = waiting.take(usize::from(PREFETCH)).collect();
                    tracing::debug!(source = %self.runs.source, count = waiting.len(), "given back after a long run");
                }
            }
        })
    }

    async fn miss(&self, gap: Gap) {
        tracing::info!(source = %self.runs.source, reason = gap.reason, "events may be missing");
        let trace = crate::trace::Trace::start();
        let client = self.client.within(None, trace);
        // A gap has no routing key; the pattern's words that are exact would not name one either.
        let Ok(key) = crate::address::Key::new("gap") else { return };
        let context = Context { client, key, deadline: None, attempt: 1, actor: Actor::default(), trace };
        if let Err(error) = self.run(Notice::Gap(gap), context).await {
            tracing::warn!(source = %self.runs.source, %error, "a gap was not handled");
        }
    }

    async fn hear(&self, delivery: Delivery) {
        let message = delivery.message();
        let Some(key) = message.address().key().cloned() else { return };
        let trace = trace_of(message);
        let client = self.client.within(None, trace);
        let (attempt, actor) = (delivery.attempt(), self.door.event(message));
        let context = Context { client, key, deadline: None, attempt, actor, trace };
        let run = self.run(Notice::Event(message.body().clone()), context);
        if self.listener.durable.is_some() {
            return self.runs.carry_out(delivery, async { Ok(run.await?) }).await;
        }
        if let Err(error) = run.await {
            tracing::warn!(source = %self.runs.source, %error, "an event was not handled");
        }
    }

    async fn run(&self, notice: Notice<Bytes>, context: Context) -> Result<(), RpcError> {
        let run = AssertUnwindSafe(async { (self.listener.hear)(notice, context).await });
        run.catch_unwind().await.unwrap_or_else(|_| {
            tracing::error!(source = %self.runs.source, "an event handler panicked");
            Err(RpcError::internal())
        })
    }
}
