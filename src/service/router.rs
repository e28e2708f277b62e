//! From a request to the method that answers it, and back to who asked.

use std::{collections::HashMap, future::Future, panic::AssertUnwindSafe, sync::Arc};

use async_trait::async_trait;
use futures_util::{FutureExt, future::join_all};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{
    json,
    value::{RawValue, to_raw_value},
};
use tokio::time::{Instant, sleep_until};

use super::{
    Context,
    cancel::InFlight,
    door::{Door, Refused},
};
use crate::{
    actor::Actor,
    address::{Address, Key, Token},
    bus::Bus,
    client::Client,
    delivery::Delivery,
    error::{Error, ErrorKind, Result},
    handler::{Call, Handler, Outcome},
    jsonrpc::{
        Id, Incoming, Invalid, Request, Response, RpcError, from_foreign_params, from_params, read_request,
        write_batch, write_response,
    },
    message::{Message, header},
    trace::Trace,
};

/// Makes a handler once there is a client for its [`Context`].
pub(super) type Build = Box<dyn FnOnce(&Client) -> Arc<dyn Handler> + Send>;
/// Methods by the last word of their routing keys.
pub(super) type Table = HashMap<String, Arc<dyn Handler>>;

/// The methods of one service address.
pub(super) struct Router {
    pub(super) address: Key,
    pub(super) table: Table,
    pub(super) bus: Arc<dyn Bus>,
    pub(super) calls: InFlight,
    pub(super) door: Door,
}

impl Router {
    /// Answers what `delivery` asks, unless its caller has gone or its deadline passes first.
    pub(super) async fn answer(self: Arc<Self>, delivery: Delivery) {
        let message = delivery.message();
        let correlation = message.headers().get(header::CORRELATION);
        let Some(key) = self.key_of(message) else { return settle(delivery).await };
        if delivery.redelivered() > 0 {
            self.door.turn_away(message, "redelivered");
            let body = answer_error(message, maybe_executed());
            self.reply(message, correlation, body).await;
            return settle(delivery).await;
        }
        let deadline = message.ttl().map(|ttl| Instant::now() + ttl);
        let Some(entered) = self.calls.enter(correlation) else { return settle(delivery).await };
        let response = tokio::select! {
            biased;
            () = entered.cancelled() => None,
            response = self.respond(key, message, deadline) => response,
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => None,
        };
        self.reply(message, correlation, response).await;
        drop(entered);
        settle(delivery).await;
    }

    /// The routing key of a call that can be answered: one to this address, whose reply goes to an inbox or nowhere.
    /// What was moved here from another address is not what its sender asked, and a reply to anything but an inbox
    /// would be a request by this service to somebody else.
    fn key_of<'a>(&self, message: &'a Message) -> Option<&'a Key> {
        let reason = match message.address() {
            Address::Service(key) if key.service().is_ok_and(|address| address == self.address) => {
                if message.headers().get(header::REPLY).is_none() || message.reply_to().is_some() {
                    return Some(key);
                }
                "reply_address"
            }
            _ => "misaddressed",
        };
        self.door.turn_away(message, reason);
        None
    }

    /// The body of the response, if there is to be one.
    async fn respond(&self, key: &Key, message: &Message, deadline: Option<Instant>) -> Option<Vec<u8>> {
        let actor = match self.door.call(key, message) {
            Ok(actor) => actor,
            Err(Refused::Told(error)) => return answer_error(message, error),
            Err(Refused::Silent) => return None,
        };
        let asked = Asked { key, actor, trace: trace_of(message), deadline };
        match read_request(message.body()) {
            Err(Invalid { id, error }) => Some(write_response(&Response::new(id, Err(error)))),
            Ok(Incoming::One(request)) => {
                let response = self.run(&asked, request, false).await?;
                Some(write_response(&response))
            }
            Ok(Incoming::Batch(_)) if key.last() != "batch" => {
                let text = "invalid request: a batch goes to SERVICE.batch";
                let error = RpcError::new(RpcError::INVALID_REQUEST, text);
                Some(write_response(&Response::new(Id::null(), Err(error))))
            }
            Ok(Incoming::Batch(requests)) => {
                let runs = requests.into_iter().map(|request| self.run(&asked, request, true));
                let responses: Vec<Response> = join_all(runs).await.into_iter().flatten().collect();
                (!responses.is_empty()).then(|| write_batch(&responses))
            }
        }
    }

    /// The response to one request; a notification has none.
    async fn run(
        &self,
        asked: &Asked<'_>,
        request: std::result::Result<Request, Invalid>,
        batch: bool,
    ) -> Option<Response> {
        let request = match request {
            Ok(request) => request,
            Err(Invalid { id, error }) => return Some(Response::new(id, Err(error))),
        };
        let outcome = self.call(asked, &request.method, request.params, batch).await;
        request.id.map(|id| Response::new(id, outcome))
    }

    async fn call(
        &self,
        asked: &Asked<'_>,
        method: &str,
        params: Option<Box<RawValue>>,
        batch: bool,
    ) -> std::result::Result<Box<RawValue>, RpcError> {
        let key = asked.key;
        if !batch && key.last() != method {
            let text =
                format!("invalid request: member method must be the last word of the routing key {key}");
            return Err(RpcError::new(RpcError::INVALID_REQUEST, text));
        }
        let unknown =
            || RpcError::new(RpcError::METHOD_NOT_FOUND, format!("method not found: {}", shown(method)));
        // A member of a batch has a key of its own.
        let own = match (batch, key.parent()) {
            (true, Some(prefix)) => Token::new(method).and_then(|method| prefix.join(&method)),
            _ => Ok(key.clone()),
        };
        let key = own.map_err(|_| unknown())?;
        // Who may not ask is not told what there is.
        self.door.allow(&key, &asked.actor)?;
        let handler = self.table.get(method).ok_or_else(unknown)?;
        let (deadline, actor, trace) = (asked.deadline, asked.actor.clone(), asked.trace);
        let call = Call { key: key.clone(), params, deadline, idempotent: false, attempt: 1, actor, trace };
        match guarded(handler, call).await {
            Ok(result) => Ok(result),
            Err(error) => {
                let answer = match error.kind() {
                    // The handler's own word, as it is.
                    ErrorKind::Remote(remote) => return Err(remote.clone()),
                    ErrorKind::Busy => RpcError::new(RpcError::BUSY, "the service is busy"),
                    _ => {
                        let inside = error.chain();
                        tracing::warn!(%key, %trace, error = %inside, "a call failed inside the service");
                        RpcError::from(error)
                    }
                };
                Err(answer)
            }
        }
    }

    /// Sends `body`, if there is one, to who waits for it, if anybody does.
    async fn reply(&self, request: &Message, correlation: Option<&str>, body: Option<Vec<u8>>) {
        let (Some(body), Some(inbox)) = (body, request.reply_to()) else { return };
        let answer = |body: Vec<u8>| {
            let message = Message::new(Address::Inbox(inbox), body)?;
            match correlation {
                Some(correlation) => message.with(header::CORRELATION, correlation),
                None => Ok(message),
            }
        };
        let message = answer(body).or_else(|error| match error.kind() {
            ErrorKind::TooLarge => {
                let text = "the answer is larger than the bus carries: ask for less at a time";
                let error = RpcError::new(RpcError::TOO_LARGE, text);
                answer(answer_error(request, error).unwrap_or_default())
            }
            _ => Err(error),
        });
        let sent = match message {
            Ok(message) => self.bus.publish(message).await,
            Err(error) => Err(error),
        };
        if let Err(error) = sent {
            tracing::warn!(%error, "an answer was not sent");
        }
    }
}

/// What all requests of one message have in common.
struct Asked<'a> {
    key: &'a Key,
    actor: Actor,
    trace: Trace,
    deadline: Option<Instant>,
}

/// The body that answers `message` as a whole with `error`; a notification gets none.
fn answer_error(message: &Message, error: RpcError) -> Option<Vec<u8>> {
    let id = match read_request(message.body()) {
        Ok(Incoming::One(Ok(request))) => request.id?,
        Ok(Incoming::One(Err(invalid))) | Err(invalid) => invalid.id,
        Ok(Incoming::Batch(_)) => Id::null(),
    };
    Some(write_response(&Response::new(id, Err(error))))
}

/// The answer to a call that came a second time: whoever had it first may have carried it out.
fn maybe_executed() -> RpcError {
    let text = "the connection of the instance that had this call broke: it may have been carried out";
    RpcError::new(RpcError::UNAVAILABLE, text)
        .with_data(json!({"kind": "unavailable", "maybe_executed": true}))
}

/// Runs `handler`; a panic is an internal error, and its text stays here.
pub(super) async fn guarded(handler: &Arc<dyn Handler>, call: Call) -> Outcome {
    let key = call.key.clone();
    match AssertUnwindSafe(handler.call(call)).catch_unwind().await {
        Ok(outcome) => {
            tracing::debug!(%key, well = outcome.is_ok(), "carried out");
            outcome
        }
        Err(_) => {
            tracing::error!(%key, "a handler panicked");
            Err(RpcError::internal().into())
        }
    }
}

/// The trace that `message` belongs to.
pub(super) fn trace_of(message: &Message) -> Trace {
    message.headers().get(header::TRACEPARENT).and_then(Trace::parse).map_or_else(Trace::start, Trace::child)
}

/// The handler of a method or a job: parameters from JSON, `handler`, and its output as JSON.
pub(super) fn typed<P, O, S, F, R>(state: Arc<S>, handler: F) -> Build
where
    P: DeserializeOwned + Send + 'static,
    O: Serialize + 'static,
    S: Send + Sync + 'static,
    F: Fn(Arc<S>, P, Context) -> R + Send + Sync + 'static,
    R: Future<Output = std::result::Result<O, RpcError>> + Send + 'static,
{
    Box::new(move |client| {
        let client = client.clone();
        Arc::new(Typed(move |call: Call| {
            let read = if call.actor.is_foreign() { from_foreign_params } else { from_params };
            let ready = read(call.params.as_deref())
                .map(|params| handler(state.clone(), params, context(&client, &call)));
            async move {
                let output = ready?.await?;
                to_raw_value(&output)
                    .map_err(|e| Error::malformed("the answer cannot be written as JSON").because(e))
            }
        }))
    })
}

fn context(client: &Client, call: &Call) -> Context {
    let client = client.within(call.deadline, call.trace);
    Context {
        client,
        key: call.key.clone(),
        deadline: call.deadline,
        attempt: call.attempt,
        actor: call.actor.clone(),
        trace: call.trace,
    }
}

/// A handler made of a function.
struct Typed<F>(F);

#[async_trait]
impl<F, R> Handler for Typed<F>
where
    F: Fn(Call) -> R + Send + Sync + 'static,
    R: Future<Output = Result<Box<RawValue>>> + Send + 'static,
{
    async fn call(&self, call: Call) -> Outcome {
        (self.0)(call).await
    }
}

async fn settle(delivery: Delivery) {
    if let Err(error) = delivery.ack().await {
        tracing::debug!(%error, "a call was not acknowledged");
    }
}

/// What a caller sent, safe to show and short.
fn shown(text: &str) -> String {
    text.escape_default().take(64).collect()
}
