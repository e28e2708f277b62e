//! A channel: asks and is answered in order, publishes, consumes with at most one consumer.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use commissaire::message::MAX_RECEIVED;
use tokio::{
    sync::{OwnedSemaphorePermit, oneshot},
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    ack::Ledger,
    confirm::{Confirms, Verdict},
    connection::{Frame, Shared},
    fault::Fault,
    method::{self, Answer, Heard},
    properties::Properties,
    value::Malformed,
};

/// The most that one answer may take.
const ANSWER: Duration = Duration::from_secs(10);
/// The most that the answer to a farewell may take.
const GOOD_BYE: Duration = Duration::from_secs(5);
/// The largest body that is looked at: a message and its envelope.
const MOST: u64 = MAX_RECEIVED as u64 + 64 * 1024;

/// A channel of a connection. Cheap to clone; closed when the last clone is dropped, which gives back what was
/// delivered and not settled.
#[derive(Clone)]
pub(crate) struct Channel(Arc<Handle>);

struct Handle(Arc<Inner>);

/// The channel as its connection knows it.
pub(super) struct Inner {
    id: u16,
    connection: Arc<Shared>,
    ears: Arc<dyn Ears>,
    state: Mutex<State>,
    gone: CancellationToken,
}

/// What is done with deliveries. Called by the connection's reader: must not wait.
pub(crate) trait Ears: Send + Sync {
    fn delivered(&self, delivered: Delivered);
}

/// Ears of a channel that consumes nothing.
pub(crate) struct Silent;

/// A message of a queue.
#[derive(Debug)]
pub(crate) struct Delivered {
    pub(crate) tag: u64,
    /// The broker may have handed it out before.
    pub(crate) redelivered: bool,
    pub(crate) properties: Properties,
    /// Empty when it was larger than a message can be.
    pub(crate) body: Bytes,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<oneshot::Sender<Result<Answer, Fault>>>,
    closing: Option<oneshot::Sender<()>>,
    confirms: Confirms,
    settled: Ledger,
    /// The writer knows that there is something to settle.
    settling: bool,
    /// Deliveries need no settling.
    unsettled: bool,
    /// Something published without a confirmation came back.
    returned: bool,
    content: Option<Content>,
    /// Why it is gone.
    fault: Option<Fault>,
}

struct Content {
    /// Of a delivery its tag, and whether it was delivered before; nothing of what came back.
    delivery: Option<(u64, bool)>,
    properties: Option<Properties>,
    body: BytesMut,
    left: u64,
    kept: bool,
}

impl Channel {
    /// Opens one on `connection`; deliveries go to `ears`.
    pub(super) async fn open(connection: &Arc<Shared>, ears: Arc<dyn Ears>) -> Result<Self, Fault> {
        let inner = connection.enter(|id| {
            Arc::new(Inner {
                id,
                connection: connection.clone(),
                ears,
                state: Mutex::default(),
                gone: CancellationToken::new(),
            })
        })?;
        let channel = Self(Arc::new(Handle(inner)));
        channel.call(&method::channel_open()).await?;
        Ok(channel)
    }

    /// Asks; the question is on its way when this returns, and questions are answered in their order.
    pub(crate) fn call(&self, question: &[u8]) -> impl Future<Output = Result<Answer, Fault>> + use<> {
        let inner = &self.0.0;
        let (who, answer) = oneshot::channel();
        let mut state = inner.state();
        let asked = match &state.fault {
            Some(fault) => Err(fault.clone()),
            None => inner.connection.say(inner.id, question),
        };
        if asked.is_ok() {
            state.waiting.push_back(who);
        }
        drop(state);
        async move {
            asked?;
            match timeout(ANSWER, answer).await {
                Ok(answer) => answer.unwrap_or(Err(Fault::Lost)),
                Err(_) => Err(Fault::Late),
            }
        }
    }

    /// Publishes; the verdict comes only where the channel [confirms](method::confirm_select). Messages go out in the
    /// order of these calls.
    pub(crate) fn publish(
        &self,
        exchange: &str,
        key: &str,
        mandatory: bool,
        mut properties: Properties,
        body: &[u8],
        share: OwnedSemaphorePermit,
    ) -> Result<oneshot::Receiver<Verdict>, Fault> {
        let inner = &self.0.0;
        let mut state = inner.state();
        if state.fault.is_some() {
            return Err(Fault::NotSent);
        }
        properties.correlation = state.confirms.next().to_string();
        let method = method::publish(exchange, key, mandatory);
        inner.connection.say_content(inner.id, &method, &properties.write(body.len()), body)?;
        Ok(state.confirms.sent(Some(share)))
    }

    /// Publishes where nothing confirms.
    pub(crate) fn post(&self, exchange: &str, key: &str, body: &[u8]) -> Result<(), Fault> {
        let inner = &self.0.0;
        let method = method::publish(exchange, key, true);
        inner.connection.say_content(inner.id, &method, &Properties::default().write(body.len()), body)
    }

    /// Whether something that was posted came back, as of the last answer.
    pub(crate) fn has_returned(&self) -> bool {
        self.0.0.state().returned
    }

    /// Deliveries will need no settling.
    pub(crate) fn unsettled(&self) {
        self.0.0.state().unsettled = true;
    }

    /// The delivery of this tag is done; the broker is told soon. An error when it can no longer be told.
    pub(crate) fn ack(&self, tag: u64) -> Result<(), Fault> {
        let inner = &self.0.0;
        let mut state = inner.state();
        if state.fault.is_some() {
            return Err(Fault::NotSent);
        }
        if state.settled.ack(tag) && !state.settling {
            state.settling = true;
            inner.connection.settle_soon(inner.clone());
        }
        Ok(())
    }

    /// Gives the delivery of this tag back to its queue, if it is not settled.
    pub(crate) fn requeue(&self, tag: u64) {
        let inner = &self.0.0;
        let mut state = inner.state();
        if state.fault.is_none() && state.settled.over(tag) {
            // Without a connection it is back already.
            let _ = inner.connection.say(inner.id, &method::requeue(tag));
        }
    }

    /// Closes it: what was settled before is known to the broker when this returns, and the rest is given back.
    pub(crate) async fn close(&self) -> Result<(), Fault> {
        Inner::close(&self.0.0).await
    }

    /// Is cancelled when nothing more is delivered: the channel is closed, or the broker ended the consumer.
    pub(crate) fn gone(&self) -> CancellationToken {
        self.0.0.gone.clone()
    }

    /// Why the broker closed it, if it did.
    pub(crate) fn fault(&self) -> Option<Fault> {
        self.0.0.state().fault.clone()
    }
}

impl Inner {
    /// Takes a frame of this channel.
    pub(super) fn hear(self: &Arc<Self>, frame: Frame) -> Result<(), Malformed> {
        match frame.kind {
            1 => self.heard(method::read(frame.payload)?),
            2 => self.header(frame.payload),
            3 => self.body(&frame.payload),
            _ => Err(Malformed),
        }
    }

    fn heard(self: &Arc<Self>, heard: Heard) -> Result<(), Malformed> {
        let mut state = self.state();
        match heard {
            Heard::Answer(answer) => {
                if let Some(who) = state.waiting.pop_front() {
                    // Whoever asked may have left.
                    let _ = who.send(Ok(answer));
                }
            }
            Heard::Confirm { tag, multiple, stored } => state.confirms.confirm(tag, multiple, stored),
            Heard::Deliver { tag, redelivered } => {
                if !state.unsettled {
                    state.settled.delivered();
                }
                state.content = Some(Content::of(Some((tag, redelivered))));
            }
            Heard::Return => state.content = Some(Content::of(None)),
            Heard::Cancelled => self.gone.cancel(),
            Heard::Flow { active } => {
                drop(state);
                let _ = self.connection.say(self.id, &method::flow_ok(active));
            }
            Heard::ChannelClose { code, text } => {
                drop(state);
                let _ = self.connection.say(self.id, &method::channel_close_ok());
                self.lose(&Fault::Refused { code, text });
                self.connection.left(self.id);
            }
            Heard::ChannelCloseOk => {
                if let Some(who) = state.closing.take() {
                    let _ = who.send(());
                }
                drop(state);
                self.connection.left(self.id);
            }
            _ => return Err(Malformed),
        }
        Ok(())
    }

    fn header(&self, payload: Bytes) -> Result<(), Malformed> {
        let mut state = self.state();
        let content = state.content.as_mut().ok_or(Malformed)?;
        let (size, properties) = Properties::read(payload)?;
        content.kept = content.delivery.is_some() && size <= MOST;
        if content.kept {
            content.body.reserve(size as usize);
        }
        content.left = size;
        content.properties = Some(properties);
        self.whole(state);
        Ok(())
    }

    fn body(&self, payload: &Bytes) -> Result<(), Malformed> {
        let mut state = self.state();
        let content = state.content.as_mut().ok_or(Malformed)?;
        content.left = content.left.checked_sub(payload.len() as u64).ok_or(Malformed)?;
        if content.kept {
            content.body.extend_from_slice(payload);
        }
        self.whole(state);
        Ok(())
    }

    /// Hands the content on if all of it is there.
    fn whole(&self, mut state: MutexGuard<'_, State>) {
        let Some(content) = state.content.take_if(|content| content.left == 0) else { return };
        let properties = content.properties.unwrap_or_default();
        match content.delivery {
            Some((tag, redelivered)) => {
                drop(state);
                let body = content.body.freeze();
                self.ears.delivered(Delivered { tag, redelivered, properties, body });
            }
            None => match properties.correlation.parse() {
                Ok(number) => state.confirms.returned(number),
                Err(_) => state.returned = true,
            },
        }
    }

    /// It is gone; whoever waits is told why.
    pub(super) fn lose(&self, fault: &Fault) {
        let mut state = self.state();
        if state.fault.is_none() {
            state.fault = Some(fault.clone());
        }
        state.confirms.clear();
        state.closing = None;
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        for who in waiting {
            let _ = who.send(Err(fault.clone()));
        }
        self.gone.cancel();
    }

    /// Says what was settled, at the `end` all of it; returns when to ask again.
    fn flush(&self, state: &mut State, end: bool) -> Option<Instant> {
        state.settled.flush(Instant::now(), end, |ack| {
            // Without a connection all comes again.
            let _ = self.connection.say(self.id, &method::ack(ack.tag, ack.multiple));
        })
    }

    /// Says what was settled; returns when to ask again.
    pub(super) fn settle(&self) -> Option<Instant> {
        let mut state = self.state();
        let later = if state.fault.is_none() { self.flush(&mut state, false) } else { None };
        state.settling = later.is_some();
        later
    }

    /// Closes the channel; it is on its way when this returns. One that is closed already is well.
    pub(super) fn close(self: &Arc<Self>) -> impl Future<Output = Result<(), Fault>> + use<> {
        let (who, closed) = oneshot::channel();
        let left = self.leave(Some(who));
        async move {
            if left.is_err() {
                return Ok(());
            }
            match timeout(GOOD_BYE, closed).await {
                Ok(closed) => closed.map_err(|_| Fault::Lost),
                Err(_) => Err(Fault::Late),
            }
        }
    }

    fn leave(self: &Arc<Self>, who: Option<oneshot::Sender<()>>) -> Result<(), Fault> {
        let mut state = self.state();
        if state.fault.is_some() {
            return Err(Fault::NotSent);
        }
        state.closing = who;
        state.fault = Some(Fault::NotSent);
        self.flush(&mut state, true);
        let said = self.connection.say(self.id, &method::channel_close());
        drop(state);
        self.gone.cancel();
        said
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Content {
    fn of(delivery: Option<(u64, bool)>) -> Self {
        Self { delivery, properties: None, body: BytesMut::new(), left: 0, kept: false }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // Without a connection it is closed already.
        let _ = self.0.leave(None);
    }
}

impl Ears for Silent {
    fn delivered(&self, _: Delivered) {}
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "channel {}", self.0.0.id)
    }
}
