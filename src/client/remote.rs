//! The handler on the calling side: a request to the service, its answer from the inbox.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::{
    sync::OnceCell,
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{DEFAULT_TIMEOUT, pending::Pending};
use crate::{
    address::{Address, Inbox, Key},
    bus::Bus,
    error::{Error, Result},
    handler::{Call, Handler, Outcome},
    jsonrpc::{Id, read_response, write_request},
    message::{Message, header},
    metrics::Metrics,
    subscription::{Received, Source, Subscription},
};

/// How many answers are in hand at one time.
const PREFETCH: u16 = 1024;

pub(super) struct Remote {
    bus: Arc<dyn Bus>,
    pending: Pending,
    inbox: OnceCell<(Inbox, CancellationToken)>,
}

impl Remote {
    pub(super) fn new(bus: Arc<dyn Bus>, metrics: Metrics) -> Self {
        Self { bus, pending: Pending::new(metrics), inbox: OnceCell::new() }
    }

    async fn inbox(&self) -> Result<Inbox> {
        let open = || async {
            let inbox = Inbox::random();
            let answers = self.bus.subscribe(Source::Inbox(inbox), PREFETCH).await?;
            let closer = answers.closer();
            tokio::spawn(read(answers, self.pending.clone()));
            Ok((inbox, closer))
        };
        self.inbox.get_or_try_init(open).await.map(|(inbox, _)| *inbox)
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        if let Some((_, closer)) = self.inbox.get() {
            closer.cancel();
        }
    }
}

/// Hands answers to those who wait, until the bus closes.
async fn read(mut answers: Subscription, pending: Pending) {
    while let Some(received) = answers.next().await {
        match received {
            Received::Gap(_) => pending.fail_all(),
            Received::Delivery(delivery) => {
                let message = delivery.message();
                let correlation = message.headers().get(header::CORRELATION);
                let correlation = correlation.and_then(|text| u128::from_str_radix(text, 16).ok());
                pending.answer(correlation, message.body().clone());
            }
        }
    }
    pending.fail_all();
}

#[async_trait]
impl Handler for Remote {
    async fn call(&self, call: Call) -> Outcome {
        let started = Instant::now();
        let deadline = call.deadline.unwrap_or(started + DEFAULT_TIMEOUT);
        // To the millisecond: what was asked for, not what a timer measured.
        let limit = Duration::from_millis((deadline - started).as_micros().div_ceil(1000) as u64);
        let timed_out = || Error::timeout(format_args!("call {}", call.key), limit);
        let inbox = timeout_at(deadline, self.inbox()).await.map_err(|_| timed_out())??;
        let mut waiting = self.pending.enter();
        let correlation = format!("{:032x}", waiting.correlation);
        let id = Id::number(waiting.correlation as u64 >> 11); // below 2^53: exact in every JSON reader
        let body = write_request(Some(&id), call.key.last(), call.params.as_deref());
        let message = Message::new(Address::Service(call.key.clone()), body)?
            .with(header::REPLY, inbox.to_string())?
            .with(header::CORRELATION, correlation.clone())?
            .with(header::TRACEPARENT, call.trace.to_string())?
            .with_ttl(deadline.saturating_duration_since(Instant::now()));
        let mut cancel = Cancel { bus: &self.bus, service: call.key.service()?, correlation, armed: true };
        let published = timeout_at(deadline, self.bus.publish(message)).await;
        match published {
            Err(_) => return Err(timed_out().maybe_executed()),
            Ok(Err(error)) => {
                cancel.armed = error.may_have_executed();
                return Err(error);
            }
            Ok(Ok(())) => {}
        }
        let answer = timeout_at(deadline, waiting.answer()).await;
        // At its deadline the service drops the call by itself.
        cancel.armed = false;
        match answer {
            Ok(Some(body)) => read_response(&body),
            Ok(None) => {
                let what = format!("the answer of {} may be lost: the connection to the bus was", call.key);
                Err(Error::unavailable(what).maybe_executed())
            }
            Err(_) => Err(timed_out().maybe_executed()),
        }
    }
}

/// Tells the service that nobody waits any more, when the call is dropped before its end.
struct Cancel<'a> {
    bus: &'a Arc<dyn Bus>,
    service: Key,
    correlation: String,
    armed: bool,
}

impl Drop for Cancel<'_> {
    fn drop(&mut self) {
        // Without a runtime the program is ending, and the call's deadline does the rest.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if !self.armed {
            return;
        }
        let message = Message::new(Address::Control(self.service.clone()), "cancel")
            .and_then(|message| message.with(header::CORRELATION, std::mem::take(&mut self.correlation)));
        let bus = self.bus.clone();
        runtime.spawn(async move {
            let sent = match message {
                Ok(message) => bus.publish(message).await,
                Err(error) => Err(error),
            };
            if let Err(error) = sent {
                tracing::debug!(%error, "a cancellation was not sent: the call ends at its deadline");
            }
        });
    }
}
