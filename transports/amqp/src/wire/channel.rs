//! A channel: asks and is answered in order, publishes, consumes with at most one consumer.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak},
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use lapin::options::{BasicAckOptions, BasicNackOptions, BasicPublishOptions};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, mpsc, oneshot},
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    ack::Ledger,
    begin,
    confirm::{self, Sent, Verdict},
    ears::{Delivered, Ears, listen},
    fault::Fault,
    method::{Answer, Ask},
    properties::Properties,
};

/// The most that one answer may take.
const ANSWER: Duration = Duration::from_secs(10);
/// The most that the answer to a farewell may take.
const GOOD_BYE: Duration = Duration::from_secs(5);
/// More than may be under way.
const UNDER_WAY: usize = 1 << 13;

/// A channel of a connection. Cheap to clone; closed when the last clone is dropped, which gives back what was
/// delivered and not settled.
#[derive(Clone)]
pub(crate) struct Channel(Arc<Handle>);

struct Handle(Arc<Inner>);

/// The channel as its tasks and its connection know it.
pub(super) struct Inner {
    lapin: lapin::Channel,
    ears: Arc<dyn Ears>,
    state: Mutex<State>,
    sent: mpsc::Sender<Sent>,
    settling: Notify,
    /// An exchange where nothing is bound to the empty key.
    probed: OnceLock<String>,
    gone: CancellationToken,
    lost: CancellationToken,
}

#[derive(Default)]
struct State {
    settled: Ledger,
    /// The number of the last message that was published.
    last: u64,
    /// Deliveries need no settling.
    unsettled: bool,
    /// Why it is gone.
    fault: Option<Fault>,
}

impl Channel {
    /// Opens one; deliveries go to `ears`.
    pub(super) async fn open(connection: &lapin::Connection, ears: Arc<dyn Ears>) -> Result<Self, Fault> {
        let opened = timeout(ANSWER, connection.create_channel()).await.map_err(|_| Fault::Late)?;
        let lapin = opened.map_err(|error| Fault::of(&error))?;
        let (sent, sending) = mpsc::channel(UNDER_WAY);
        let inner = Arc::new(Inner {
            lapin: lapin.clone(),
            ears,
            state: Mutex::default(),
            sent,
            settling: Notify::new(),
            probed: OnceLock::new(),
            gone: CancellationToken::new(),
            lost: CancellationToken::new(),
        });
        let (weak, lost) = (Arc::downgrade(&inner), inner.lost.clone());
        tokio::spawn(async move {
            let probe = || weak.upgrade().is_some_and(|inner| inner.probe());
            let all_entered = || {
                if let Some(inner) = weak.upgrade() {
                    drop(inner.state());
                }
            };
            if let Some(error) = confirm::tell(sending, lost, probe, all_entered).await
                && let Some(inner) = weak.upgrade()
            {
                inner.lose(Fault::of(&error));
            }
        });
        tokio::spawn(settle(Arc::downgrade(&inner), inner.lost.clone()));
        Ok(Self(Arc::new(Handle(inner))))
    }

    /// The channel as its connection knows it.
    pub(super) fn inner(&self) -> &Arc<Inner> {
        &self.0.0
    }

    /// Asks; the question is on its way when this returns, and questions are answered in their order.
    ///
    /// The channel stays until it has its answer, whoever waits for that: where our farewell meets the broker's refusal,
    /// which is one too, lapin takes what comes next for an error of the whole connection.
    pub(crate) fn call(&self, question: &Ask) -> impl Future<Output = Result<Answer, Fault>> + use<> {
        let inner = self.inner().clone();
        let fault = inner.state().fault.clone();
        if let Ask::Confirm { probe } = question {
            // Asked once.
            let _ = inner.probed.set(probe.clone());
        }
        let mut asking = Box::pin(question.clone().of(inner.lapin.clone()));
        let begun = if fault.is_none() { begin(asking.as_mut()) } else { Poll::Pending };
        let channel = self.clone();
        let answered = async move {
            let _channel = channel;
            if let Some(fault) = fault {
                return Err(fault);
            }
            let answer = match begun {
                Poll::Ready(answer) => answer,
                Poll::Pending => tokio::select! {
                    biased;
                    answer = timeout(ANSWER, asking) => answer.map_err(|_| Fault::Late)?,
                    () = inner.lost.cancelled() => {
                        return Err(inner.state().fault.clone().unwrap_or(Fault::Lost));
                    }
                },
            };
            match answer {
                Ok((answer, consumer)) => {
                    if let Some(consumer) = consumer {
                        tokio::spawn(listen(consumer, Arc::downgrade(&inner), inner.lost.clone()));
                    }
                    Ok(answer)
                }
                Err(error) => {
                    let fault = Fault::of(&error);
                    inner.lose(fault.clone());
                    Err(fault)
                }
            }
        };
        let answered = tokio::spawn(answered);
        async move { answered.await.unwrap_or(Err(Fault::Lost)) }
    }

    /// Publishes; the verdict comes only where the channel [confirms](super::method::confirm_select). Messages go out in
    /// the order of these calls.
    pub(crate) fn publish(
        &self,
        exchange: &str,
        key: &str,
        mandatory: bool,
        properties: Properties,
        body: &[u8],
        share: OwnedSemaphorePermit,
    ) -> Result<oneshot::Receiver<Verdict>, Fault> {
        self.inner().publish(exchange, key, mandatory, properties, body, Some(share))
    }

    /// Publishes where nothing confirms. What is asked after this returned comes to the broker later: lapin lets questions
    /// overtake what is published, until it is written.
    pub(crate) async fn post(&self, exchange: &str, key: &str, body: &[u8]) -> Result<(), Fault> {
        let posting = self.inner().post(exchange, key, true, &Properties::default(), body);
        match timeout(ANSWER, posting).await {
            Ok(posted) => posted.map(drop).map_err(|error| Fault::of(&error)),
            Err(_) => Err(Fault::Late),
        }
    }

    /// Whether something that was posted came back, as of the last answer.
    pub(crate) async fn has_returned(&self) -> bool {
        // Without confirmations there is nothing to wait for.
        self.inner().lapin.wait_for_confirms().await.is_ok_and(|returned| !returned.is_empty())
    }

    /// Deliveries will need no settling.
    pub(crate) fn unsettled(&self) {
        self.inner().state().unsettled = true;
    }

    /// The delivery of this tag is done; the broker is told soon. An error when it can no longer be told.
    pub(crate) fn ack(&self, tag: u64) -> Result<(), Fault> {
        let inner = self.inner();
        let mut state = inner.state();
        if state.fault.is_some() {
            return Err(Fault::NotSent);
        }
        if state.settled.ack(tag) {
            inner.settling.notify_one();
        }
        Ok(())
    }

    /// Gives the delivery of this tag back to its queue, if it is not settled.
    pub(crate) fn requeue(&self, tag: u64) {
        let inner = self.inner();
        let mut state = inner.state();
        if state.fault.is_none() && state.settled.over(tag) {
            // Without a connection it is back already.
            let options = BasicNackOptions { multiple: false, requeue: true };
            let _ = begin(std::pin::pin!(inner.lapin.basic_nack(tag, options)));
        }
    }

    /// Closes it: what was settled before is known to the broker when this returns, and the rest is given back.
    pub(crate) async fn close(&self) -> Result<(), Fault> {
        Inner::close(self.inner()).await
    }

    /// Is cancelled when nothing more is delivered: the channel is closed, or the broker ended the consumer.
    pub(crate) fn gone(&self) -> CancellationToken {
        self.inner().gone.clone()
    }

    /// Why the broker closed it, if it did.
    pub(crate) fn fault(&self) -> Option<Fault> {
        self.inner().state().fault.clone()
    }
}

impl Inner {
    fn publish(
        &self,
        exchange: &str,
        key: &str,
        mandatory: bool,
        mut properties: Properties,
        body: &[u8],
        share: Option<OwnedSemaphorePermit>,
    ) -> Result<oneshot::Receiver<Verdict>, Fault> {
        let mut state = self.state();
        if state.fault.is_some() {
            return Err(Fault::NotSent);
        }
        // There is room for as many as there are shares.
        let Ok(room) = self.sent.try_reserve() else { return Err(Fault::NotSent) };
        let number = state.last + 1;
        properties.correlation = number.to_string();
        let sending = self.post(exchange, key, mandatory, &properties, body);
        match confirm::send(number, sending) {
            Ok(speaking) => {
                state.last = number;
                let (who, verdict) = oneshot::channel();
                room.send(Sent { number, mandatory, who, share, speaking });
                Ok(verdict)
            }
            Err(error) => {
                drop(state);
                self.lose(Fault::of(&error));
                Err(Fault::NotSent)
            }
        }
    }

    /// Publishes what nobody wants, so that its confirmation tells that nothing more comes back; whether that went.
    fn probe(&self) -> bool {
        let exchange = self.probed.get().map(String::as_str).unwrap_or_default();
        self.publish(exchange, "", false, Properties::default(), b"", None).is_ok()
    }

    fn post(
        &self,
        exchange: &str,
        key: &str,
        mandatory: bool,
        properties: &Properties,
        body: &[u8],
    ) -> impl Future<Output = lapin::Result<lapin::PublisherConfirm>> + Send + use<> {
        let (channel, exchange, key) = (self.lapin.clone(), exchange.into(), key.into());
        let (properties, body) = (properties.to_lapin(), Bytes::copy_from_slice(body));
        let options = BasicPublishOptions { mandatory, immediate: false };
        async move { channel.basic_publish(exchange, key, options, &body, properties).await }
    }

    /// Takes a delivery.
    pub(super) fn hear(&self, delivery: lapin::message::Delivery) {
        let mut state = self.state();
        if !state.unsettled {
            state.settled.delivered();
        }
        drop(state);
        self.ears.delivered(Delivered::of(delivery));
    }

    /// Nothing more is delivered; what is in hand can still be settled.
    pub(super) fn deaf(&self) {
        self.gone.cancel();
    }

    /// It is gone; whoever waits is told why.
    pub(super) fn lose(&self, fault: Fault) {
        let mut state = self.state();
        if state.fault.is_none() {
            state.fault = Some(fault);
        }
        drop(state);
        self.gone.cancel();
        self.lost.cancel();
    }

    /// Says what was settled, at the `end` all of it; returns when to ask again.
    fn flush(&self, state: &mut State, end: bool) -> Option<Instant> {
        state.settled.flush(Instant::now(), end, |ack| {
            // Without a connection all comes again.
            let options = BasicAckOptions { multiple: ack.multiple };
            let _ = begin(std::pin::pin!(self.lapin.basic_ack(ack.tag, options)));
        })
    }

    /// Closes the channel; it is on its way when this returns. One that is closed already is well.
    pub(super) fn close(self: &Arc<Self>) -> impl Future<Output = Result<(), Fault>> + use<> {
        let inner = self.clone();
        let closing = self.leave();
        async move {
            let Some(mut closing) = closing else { return Ok(()) };
            let closed = match timeout(GOOD_BYE, closing.as_mut()).await {
                Ok(Ok(())) => Ok(()),
                Ok(Err(_)) => Err(Fault::Lost),
                Err(_) => Err(Fault::Late),
            };
            inner.lost.cancel();
            closed
        }
    }

    /// Begins to close it, if it is open.
    fn leave(&self) -> Option<Closing> {
        let mut state = self.state();
        if state.fault.is_some() {
            return None;
        }
        state.fault = Some(Fault::NotSent);
        self.flush(&mut state, true);
        let channel = self.lapin.clone();
        let mut closing: Closing = Box::pin(async move { channel.close(200, "OK".into()).await });
        let begun = begin(closing.as_mut());
        drop(state);
        self.gone.cancel();
        Some(match begun {
            Poll::Ready(closed) => Box::pin(std::future::ready(closed)),
            Poll::Pending => closing,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Closing = std::pin::Pin<Box<dyn Future<Output = lapin::Result<()>> + Send>>;

/// Tells the broker what was settled, much at one time.
async fn settle(inner: Weak<Inner>, lost: CancellationToken) {
    let mut later = None;
    loop {
        let Some(channel) = inner.upgrade() else { return };
        let due = async {
            match later {
                Some(due) => sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = channel.settling.notified() => {}
            () = due => {}
            () = lost.cancelled() => return,
        }
        // What is settled at the same moment goes together.
        tokio::task::yield_now().await;
        let mut state = channel.state();
        later = if state.fault.is_none() { channel.flush(&mut state, false) } else { None };
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // Without a connection it is closed already.
        drop(self.0.leave());
        self.0.lost.cancel();
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "channel {}", self.inner().lapin.id())
    }
}
