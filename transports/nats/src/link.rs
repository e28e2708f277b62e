//! The one connection: kept up by the client library, watched here, so that nothing is handed to it while it is down
//! and everybody learns when it was made again.

use std::{
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::Duration,
};

use async_nats::{
    Client, HeaderMap, Message, ServerAddr, StatusCode, Subject, Subscriber, connection::State as Wire,
};
use bytes::Bytes;
use commissaire::{Connectivity, Error, Result};
use futures_util::{FutureExt, StreamExt};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

use crate::{
    bus::BOUND,
    events::{BAIT, Events},
    fault::Fault,
    mux::{Heard, Mux, Waiting},
    names::Names,
    options::Options,
    refused::refused,
};

/// A silent server is asked so often; after three in vain it is taken for dead.
const PING: Duration = Duration::from_secs(4);
/// The least between two dials, and what is added by chance.
const DIAL: Duration = Duration::from_secs(1);
const JITTER_MS: u64 = 250;
/// How soon a change is seen whose event was lost.
const LOOK: Duration = Duration::from_millis(250);
/// How long we wait for what the server has said already, and the library has not told yet.
const TOLD: Duration = Duration::from_secs(2);

/// What holds of the connection now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) up: bool,
    /// Counts connections: another number means that messages may have been missed.
    pub(crate) generation: u64,
}

pub(crate) struct Link {
    client: Client,
    pub(crate) mux: Arc<Mux>,
    pub(crate) names: Names,
    /// What our inboxes stand below.
    pub(crate) prefix: String,
    back: String,
    state: watch::Sender<State>,
    pub(crate) connectivity: Connectivity,
    /// Counts messages that the library dropped, because nobody took them in time.
    pub(crate) dropped: watch::Sender<u64>,
    events: Arc<Events>,
    /// When the connection was made that is there now.
    since: Mutex<Instant>,
    pub(crate) end: CancellationToken,
}

impl Link {
    /// Connects, once. From then on the connection is made again whenever it is lost.
    pub(crate) async fn connect(
        options: Options,
        names: Names,
        name: &str,
        end: CancellationToken,
    ) -> Result<Arc<Self>> {
        let id = format!("{:032x}", rand::random::<u128>());
        let back = names.back(&options.prefix, &id);
        let (looks, events) = (Arc::new(Notify::new()), Arc::new(Events::new(&back)));
        let (pace, heard, look) = (Arc::new(Mutex::new(None)), events.clone(), looks.clone());
        let connect = options
            .connect
            .name(name)
            .ping_interval(PING)
            .ignore_discovered_servers()
            .skip_subject_validation(false)
            .reconnect_delay_callback(move |_| pause(&pace))
            .event_callback(move |event| {
                heard.take(event);
                look.notify_one();
                std::future::ready(())
            });
        let (place, secure) = (options.place, options.servers.iter().any(ServerAddr::tls_required));
        let dialled = timeout(BOUND, connect.connect(&options.servers[..])).await;
        let client = dialled
            .map_err(|_| Error::timeout(format_args!("connecting to {place}"), BOUND))?
            .map_err(|error| refused(&place, secure, &error))?;
        let answers = client
            .subscribe(format!("{back}.*"))
            .await
            .map_err(|_| Error::unavailable(format!("the connection to {place} broke at once")))?;
        let link = Arc::new(Self {
            client,
            mux: events.mux.clone(),
            names,
            prefix: options.prefix,
            back,
            state: watch::Sender::new(State { up: true, generation: 1 }),
            connectivity: Connectivity::new(place),
            dropped: watch::Sender::new(0),
            events,
            since: Mutex::new(Instant::now()),
            end,
        });
        tokio::spawn(listen(link.clone(), answers));
        tokio::spawn(watch_over(link.clone(), looks));
        link.echo(Instant::now() + BOUND)
            .await
            .map_err(|fault| fault.into_error("asking the NATS server for an echo of our own"))?;
        Ok(link)
    }

    /// The client library, to subscribe with and to look at.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// This connection among those of the exchange.
    pub(crate) fn id(&self) -> &str {
        self.back.rsplit('.').next().unwrap_or_default()
    }

    /// What holds of the connection, now and from now on.
    pub(crate) fn state(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// The generation, once the connection is up.
    pub(crate) async fn up(&self, deadline: Instant) -> Result<u64, Fault> {
        if self.end.is_cancelled() {
            return Err(Fault::Closed);
        }
        let up = |state: &State| state.up && self.client.connection_state() == Wire::Connected;
        let now = *self.state.borrow();
        if up(&now) {
            return Ok(now.generation);
        }
        let mut state = self.state.subscribe();
        tokio::select! {
            biased;
            () = self.end.cancelled() => Err(Fault::Closed),
            waited = timeout_at(deadline, state.wait_for(up)) => match waited {
                Ok(Ok(state)) => Ok(state.generation),
                _ => Err(Fault::NotSent),
            },
        }
    }

    /// Hands a message to the connection once it is up. `Ok` does not mean that it was sent.
    pub(crate) async fn send(
        &self,
        subject: Subject,
        reply: Option<Subject>,
        headers: Option<HeaderMap>,
        payload: Bytes,
        deadline: Instant,
    ) -> Result<(), Fault> {
        self.up(deadline).await?;
        let handed = async {
            match (reply, headers) {
                (None, None) => self.client.publish(subject, payload).await,
                (Some(reply), None) => self.client.publish_with_reply(subject, reply, payload).await,
                (None, Some(headers)) => self.client.publish_with_headers(subject, headers, payload).await,
                (Some(reply), Some(headers)) => {
                    self.client.publish_with_reply_and_headers(subject, reply, headers, payload).await
                }
            }
        };
        match timeout_at(deadline, handed).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => match error.kind() {
                async_nats::PublishErrorKind::Send => Err(Fault::Closed),
                kind => Err(Fault::Odd(kind.to_string())),
            },
            // Handing over is one step: it has happened or not.
            Err(_) => Err(Fault::NotSent),
        }
    }

    /// Sends where nobody waits for anything, if that is possible without waiting long.
    pub(crate) async fn post(&self, subject: impl Into<Subject>, payload: impl Into<Bytes>) {
        let deadline = Instant::now() + Duration::from_secs(2);
        if let Err(fault) = self.send(subject.into(), None, None, payload.into(), deadline).await {
            tracing::debug!(?fault, "a word to NATS was not sent");
        }
    }

    /// Sends at once, before anything that is sent later, or not at all: for those who cannot wait.
    pub(crate) fn post_now(&self, subject: &Subject, payload: impl Into<Bytes>) -> bool {
        // However much this task has done without a pause.
        let sent = tokio::task::unconstrained(self.client.publish(subject.clone(), payload.into()));
        self.state.borrow().up && !self.end.is_cancelled() && matches!(sent.now_or_never(), Some(Ok(())))
    }

    /// Asks and waits for the one answer.
    pub(crate) async fn request(
        &self,
        subject: impl Into<Subject>,
        headers: Option<HeaderMap>,
        payload: impl Into<Bytes>,
        deadline: Instant,
    ) -> Result<Message, Fault> {
        let subject = subject.into();
        self.up(deadline).await?;
        let mut waiting = self.mux.enter(subject.clone());
        let reply = self.word(&waiting).into();
        self.send(subject, Some(reply), headers, payload.into(), deadline).await?;
        match timeout_at(deadline, waiting.heard()).await {
            Err(_) => Err(Fault::Late),
            Ok(Err(fault)) => Err(fault),
            Ok(Ok(Heard::Replied)) => Err(Fault::Odd("a reply to no call".to_owned())),
            Ok(Ok(Heard::Message(message))) if message.status == Some(StatusCode::NO_RESPONDERS) => {
                Err(Fault::Nobody)
            }
            Ok(Ok(Heard::Message(message))) => Ok(message),
        }
    }

    /// The subject that ends `waiting`.
    pub(crate) fn word(&self, waiting: &Waiting) -> String {
        format!("{}.{:x}", self.back, waiting.id())
    }

    /// Sends a message to ourselves: when it is back, the server has done all that was sent before it, and all that it
    /// sent us until then is here.
    pub(crate) async fn echo(&self, deadline: Instant) -> Result<u64, Fault> {
        let generation = self.up(deadline).await?;
        let mut waiting = self.mux.enter(self.back.as_str().into());
        self.send(self.word(&waiting).into(), None, None, Bytes::new(), deadline).await?;
        timeout_at(deadline, waiting.heard()).await.map_err(|_| Fault::Late)??;
        Ok(generation)
    }

    /// Like [`echo`](Self::echo), and the library has told by then whatever the server had to say of subscriptions.
    ///
    /// It tells so beside the messages, by a task of its own, so that an echo may overtake a refusal. What it tells
    /// keeps its order, though: so this subscribes to what no server takes, and waits until that is told.
    pub(crate) async fn settled(&self, deadline: Instant) -> Result<u64, Fault> {
        let one = timeout_at(deadline, self.events.one.lock()).await.map_err(|_| Fault::Late)?;
        let mut told = self.events.told.subscribe();
        self.up(deadline).await?;
        let bait = self.client.subscribe(format!("{}{BAIT}", self.back)).await;
        let bait = bait.map_err(|_| Fault::Closed)?;
        let generation = self.echo(deadline).await?;
        // A server that says nothing at all has taken it.
        if timeout(TOLD, told.changed()).await.is_err() {
            tracing::debug!("the NATS server accepts a subject that is none");
        }
        drop((bait, one));
        Ok(generation)
    }

    /// How old the connection is at `now`.
    pub(crate) fn since(&self, now: Instant) -> Duration {
        now.saturating_duration_since(*self.since.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether the server has refused a subscription to `subject`.
    pub(crate) fn is_refused(&self, subject: &str) -> bool {
        self.events.is_refused(subject)
    }
}

/// A pause before the next dial, so that there is at most one a second.
fn pause(last: &Mutex<Option<Instant>>) -> Duration {
    let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
    let now = Instant::now();
    let next = match *last {
        None => now,
        Some(last) => {
            let jitter = Duration::from_millis(rand::random_range(0..JITTER_MS));
            now.max(last + DIAL) + jitter
        }
    };
    *last = Some(next);
    next - now
}

/// Hands answers to those who wait.
async fn listen(link: Arc<Link>, mut answers: Subscriber) {
    loop {
        let message = tokio::select! {
            biased;
            message = answers.next() => message,
            () = link.end.cancelled() => None,
        };
        let Some(message) = message else { break };
        let subject = message.subject.clone();
        let word = subject.rsplit('.').next().unwrap_or_default();
        if &*message.payload == b"?" {
            crate::call::answer(&link, word, &message).await;
        } else {
            link.mux.heard(word, message);
        }
    }
    link.mux.fail_all();
}

/// Follows the connection.
async fn watch_over(link: Arc<Link>, looks: Arc<Notify>) {
    let connects = link.client.statistics();
    let mut seen = connects.connects.load(Ordering::Relaxed);
    while !link.end.is_cancelled() {
        tokio::select! {
            () = looks.notified() => {}
            () = sleep(LOOK) => {}
            () = link.end.cancelled() => break,
        }
        let slow = link.events.slow.swap(0, Ordering::Relaxed);
        if slow > 0 {
            link.dropped.send_modify(|count| *count += slow);
        }
        let up = link.client.connection_state() == Wire::Connected;
        let count = connects.connects.load(Ordering::Relaxed);
        let now = *link.state.borrow();
        if now.up && (!up || count != seen) {
            link.state.send_replace(State { up: false, ..now });
            link.mux.fail_all();
            link.connectivity.down("the connection to the NATS server broke");
        }
        if up && !link.state.borrow().up {
            seen = count;
            *link.since.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
            link.state.send_modify(|state| *state = State { up: true, generation: state.generation + 1 });
            link.connectivity.up();
        }
    }
}
