//! Calls, and the replies to them.
//!
//! On each bus the bridge is an instance of those services that run on the other. A call goes over as it is, with its
//! reply address, and the bridge reads that address there; one of a program that joins replies to calls by the address alone
//! gets one of the bridge's own. Where a service runs on both buses, a call may come back to the bridge: then it goes on.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use commissaire::{
    Address, Delivery, Error, ErrorKind, Inbox, Key, Message, Received, Result, RpcError, Source,
    Subscription, Token, header,
    jsonrpc::{Id, Incoming, Response, read_request, write_response},
};
use serde_json::json;
use tokio::{
    sync::oneshot,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    Span,
    counters::{Outcome, What},
};

/// How many calls of a service, and how many replies, are in hand at one time.
const PREFETCH: u16 = 512;
/// The most often a call is passed on.
const MOST_HOPS: u32 = 64;
/// How long one that came back is held, and how often that is doubled: half a second at most.
const HOLD: Duration = Duration::from_millis(2);
const MOST_DOUBLED: u32 = 8;
const HOPS: &str = "x-bridge-hops";
/// The bus on which its reply address is read by who asked.
const HOME: &str = "x-bridge-home";
/// What marks a question whether anybody is there; and how often it is asked where the bridge itself may answer.
const PROBE: &str = "x-bridge-probe";
const PROBES: usize = 8;
/// How long after an instance was last seen its calls are still carried.
const LINGER: usize = 4;
/// How long a reply address is read after the last call from there, and how long a call counts that has no deadline.
const IDLE: Duration = Duration::from_secs(120);
const ENDLESS: Duration = Duration::from_secs(60);
/// How long the bridge's own answer to a question may take.
const ECHO: Duration = Duration::from_millis(200);

/// See the module.
pub(super) struct Calls {
    span: Arc<Span>,
    /// The bridge's own reply addresses.
    own: [Inbox; 2],
    state: Mutex<State>,
    /// One reply address is taken up at a time, and each once.
    hearing: tokio::sync::Mutex<()>,
    ending: CancellationToken,
}

#[derive(Default)]
struct State {
    /// By service, for each bus: its subscription there, and how often nobody was seen on the other since.
    served: [HashMap<Key, (CancellationToken, usize)>; 2],
    /// Reply addresses that are read, when one was last wanted, and what ends it.
    heard: [HashMap<Inbox, (Instant, CancellationToken)>; 2],
    /// Calls on their way, by correlation: until when, and whom to reply to if not the address that the reply names.
    waiting: HashMap<String, (Instant, Option<(usize, Inbox)>)>,
    probes: HashMap<String, oneshot::Sender<()>>,
}

impl Calls {
    pub(super) async fn new(span: Arc<Span>) -> Result<Arc<Self>> {
        let calls = Arc::new(Self {
            span,
            own: [Inbox::random(), Inbox::random()],
            state: Mutex::default(),
            hearing: tokio::sync::Mutex::default(),
            ending: CancellationToken::new(),
        });
        for at in 0..2 {
            calls.hear(at, calls.own[at]).await?;
        }
        Ok(calls)
    }

    /// Looks where `service` runs, and takes its calls on the bus where it may not.
    pub(super) async fn look(self: &Arc<Self>, service: &Key) {
        for at in 0..2 {
            let there = self.is_there(1 - at, service).await;
            let serving = {
                let mut state = self.lock();
                match (state.served[at].get_mut(service), there) {
                    (Some((_, missed)), Some(true)) => {
                        *missed = 0;
                        true
                    }
                    (Some((_, missed)), Some(false)) => {
                        *missed += 1;
                        let over = *missed >= LINGER;
                        if over && let Some((closing, _)) = state.served[at].remove(service) {
                            closing.cancel();
                        }
                        true
                    }
                    (Some(_), None) => true,
                    (None, there) => there != Some(true),
                }
            };
            if !serving && let Err(error) = self.serve(at, service).await {
                tracing::warn!(%service, %error, "its calls are not carried yet");
            }
        }
    }

    /// Whether an instance runs on the bus `at` that is not the bridge; `None` when that cannot be known.
    async fn is_there(&self, at: usize, service: &Key) -> Option<bool> {
        let own = self.lock().served[at].contains_key(service);
        for _ in 0..if own { PROBES } else { 1 } {
            let mark = Inbox::random().to_string();
            let (sender, echo) = oneshot::channel();
            self.lock().probes.insert(mark.clone(), sender);
            let published = match probe(service, &mark) {
                Ok(probe) => self.span.buses[at].publish(probe).await,
                Err(error) => Err(error),
            };
            let echoed = match &published {
                Ok(()) if own => timeout(ECHO, echo).await.is_ok(),
                _ => false,
            };
            self.lock().probes.remove(&mark);
            match published {
                Ok(()) if !echoed => return Some(true),
                Ok(()) => {}
                Err(error) if *error.kind() == ErrorKind::NoResponders => return Some(false),
                Err(_) => return None,
            }
        }
        Some(false)
    }

    /// Takes calls to `service` on the bus `at`.
    async fn serve(self: &Arc<Self>, at: usize, service: &Key) -> Result<()> {
        let bus = &self.span.buses[at];
        let calls = bus.subscribe(Source::Service(service.clone()), PREFETCH).await?;
        let control = bus.subscribe(Source::Control(service.clone()), 64).await?;
        let closing = self.span.closing.child_token();
        self.lock().served[at].insert(service.clone(), (closing.clone(), 0));
        tracing::info!(%service, bus = at, "its calls are carried from here");
        let (bridge, closed) = (self.clone(), closing.clone());
        self.span.tasks.spawn(async move {
            read(calls, closed, |delivery| {
                let bridge = bridge.clone();
                let tasks = bridge.span.tasks.clone();
                tasks.spawn(async move { bridge.carry(at, delivery).await });
            })
            .await;
        });
        let bridge = self.clone();
        self.span.tasks.spawn(async move {
            read(control, closing, |delivery| bridge.clone().pass_control(at, &delivery)).await;
        });
        Ok(())
    }

    /// Cancellations go to who was asked.
    fn pass_control(self: Arc<Self>, at: usize, delivery: &Delivery) {
        let message = delivery.message();
        if message.headers().get(HOPS).is_some() {
            return;
        }
        let Ok(message) = message.clone().with(HOPS, "1") else { return };
        let tasks = self.span.tasks.clone();
        tasks.spawn(async move {
            let _ = self.span.buses[1 - at].publish(message).await;
        });
    }

    /// Takes one call over, or back where it came from if nobody is there any more.
    async fn carry(self: Arc<Self>, at: usize, delivery: Delivery) {
        let message = delivery.message();
        if let Some(mark) = message.headers().get(PROBE)
            && let Some(echo) = self.lock().probes.remove(mark)
        {
            let _ = echo.send(());
            return;
        }
        let hops = message.headers().get(HOPS).and_then(|hops| hops.parse().ok()).unwrap_or(0_u32);
        // Where those who answer are busy, the bridge is who takes it: it is held, so that they come to it, and the more often
        // the longer. What is held counts against what the bridge takes.
        if hops > 0 {
            sleep(HOLD.saturating_mul(1 << hops.min(MOST_DOUBLED))).await;
        }
        let mut carried = Err(Error::new(ErrorKind::NoResponders, "nobody is there"));
        if hops < MOST_HOPS {
            for to in [1 - at, at] {
                carried = self.send(at, to, message, hops + 1).await;
                if !matches!(&carried, Err(error) if *error.kind() == ErrorKind::NoResponders) {
                    break;
                }
            }
        }
        match carried {
            Ok(()) => self.span.counters.count(What::Calls, at, Outcome::Carried),
            Err(error) => {
                self.span.counters.count(What::Calls, at, Outcome::Failed);
                tracing::warn!(to = %message.address(), %error, "a call was not carried");
                self.refuse(at, message, &error).await;
            }
        }
        let _ = delivery.ack().await;
    }

    async fn send(self: &Arc<Self>, at: usize, to: usize, message: &Message, hops: u32) -> Result<()> {
        let mut sent = message.clone().with(HOPS, hops.to_string())?;
        let until = Instant::now() + message.ttl().unwrap_or(ENDLESS);
        let home = match message.headers().get(HOME) {
            Some("0") => 0,
            Some("1") => 1,
            _ => at,
        };
        let mut noted = None;
        match (message.reply_to(), message.headers().get(header::CORRELATION)) {
            (None, _) => {}
            (Some(inbox), Some(correlation)) => {
                if to != home {
                    self.hear(to, inbox).await?;
                    noted = Some((correlation.to_owned(), None));
                }
                sent = sent.with(HOME, home.to_string())?;
            }
            (Some(inbox), None) => {
                let correlation = Inbox::random().to_string();
                sent = sent.with(header::REPLY, self.own[to].to_string())?;
                sent = sent.with(header::CORRELATION, correlation.as_str())?.with(HOME, to.to_string())?;
                noted = Some((correlation, Some((at, inbox))));
            }
        }
        let correlation = noted.as_ref().map(|(correlation, _)| correlation.clone());
        if let Some((correlation, whom)) = noted {
            self.lock().waiting.insert(correlation, (until, whom));
        }
        let published = self.span.buses[to].publish(sent).await;
        if published.is_err()
            && let Some(correlation) = correlation
        {
            self.lock().waiting.remove(&correlation);
        }
        published
    }

    /// Tells who asked that nothing came of it, and whether something may have.
    async fn refuse(&self, at: usize, message: &Message, error: &Error) {
        let Some(inbox) = message.reply_to() else { return };
        let id = match read_request(message.body()) {
            Ok(Incoming::One(Ok(request))) => match request.id {
                Some(id) => id,
                None => return,
            },
            Ok(Incoming::One(Err(invalid))) | Err(invalid) => invalid.id,
            Ok(Incoming::Batch(_)) => Id::null(),
        };
        let told = json!({"kind": error.kind().name(), "maybe_executed": error.may_have_executed()});
        let answer =
            RpcError::new(RpcError::UNAVAILABLE, "the bridge could not carry the call to the other bus")
                .with_data(told);
        let reply = Message::new(Address::Inbox(inbox), write_response(&Response::new(id, Err(answer))));
        let reply = match message.headers().get(header::CORRELATION) {
            Some(correlation) => reply.and_then(|reply| reply.with(header::CORRELATION, correlation)),
            None => reply,
        };
        if let Ok(reply) = reply {
            let _ = self.span.buses[at].publish(reply).await;
        }
    }

    /// Reads replies to `inbox` on the bus `at`, for the other.
    async fn hear(self: &Arc<Self>, at: usize, inbox: Inbox) -> Result<()> {
        let _one = self.hearing.lock().await;
        {
            let (mut state, now) = (self.lock(), Instant::now());
            let own = self.own;
            state.heard[at].retain(|known, (wanted, end)| {
                let keep = *known == inbox || own.contains(known) || now - *wanted < IDLE;
                if !keep {
                    end.cancel();
                }
                keep
            });
            if let Some((wanted, _)) = state.heard[at].get_mut(&inbox) {
                *wanted = now;
                return Ok(());
            }
        }
        let replies = self.span.buses[at].subscribe(Source::Inbox(inbox), PREFETCH).await?;
        let end = self.ending.child_token();
        self.lock().heard[at].insert(inbox, (Instant::now(), end.clone()));
        let bridge = self.clone();
        self.span.tasks.spawn(async move {
            read(replies, end, |delivery| {
                let (bridge, message) = (bridge.clone(), delivery.message().clone());
                let tasks = bridge.span.tasks.clone();
                tasks.spawn(async move {
                    bridge.pass_reply(at, inbox, message).await;
                    let _ = delivery.ack().await;
                });
            })
            .await;
        });
        Ok(())
    }

    /// Takes a reply that came to `inbox` on the bus `at` to who waits for it.
    async fn pass_reply(&self, at: usize, inbox: Inbox, message: Message) {
        let correlation = message.headers().get(header::CORRELATION).map(str::to_owned);
        let known = correlation.and_then(|correlation| self.lock().waiting.remove(&correlation));
        let (to, reply) = match known {
            Some((_, Some((to, whom)))) => {
                let mut headers = message.headers().clone();
                headers.remove(header::CORRELATION);
                (to, Message::from_parts(Address::Inbox(whom), headers, message.body().clone()))
            }
            // One to the bridge that no call waits for goes nowhere.
            _ if inbox == self.own[at] => return,
            _ => (1 - at, Ok(message)),
        };
        let published = match reply {
            Ok(reply) => self.span.buses[to].publish(reply).await,
            Err(error) => Err(error),
        };
        let outcome = if published.is_ok() { Outcome::Carried } else { Outcome::Failed };
        self.span.counters.count(What::Replies, at, outcome);
        if let Err(error) = published {
            tracing::warn!(%error, "a reply was not carried");
        }
    }

    /// Whether replies are still awaited.
    pub(super) fn waits(&self) -> bool {
        let mut state = self.lock();
        let now = Instant::now();
        state.waiting.retain(|_, (until, _)| *until > now);
        !state.waiting.is_empty()
    }

    /// No reply is read any more.
    pub(super) fn end(&self) {
        self.ending.cancel();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A question whether anybody answers to `service`: a notification of a method that there is not.
fn probe(service: &Key, mark: &str) -> Result<Message> {
    let key = match service.as_str().starts_with("jobs.") {
        true => service.clone(),
        false => service.join(&Token::new("bridge_probe")?)?,
    };
    let body = r#"{"jsonrpc":"2.0","method":"bridge_probe"}"#;
    Ok(Message::new(Address::Service(key), body)?.with(PROBE, mark)?.with_ttl(Duration::from_secs(1)))
}

/// Hands all deliveries to `take` until the subscription ends, which it does soon after `closing`.
pub(super) async fn read(
    mut subscription: Subscription,
    closing: CancellationToken,
    take: impl Fn(Delivery),
) {
    loop {
        let received = tokio::select! {
            received = subscription.next() => received,
            () = closing.cancelled() => break,
        };
        match received {
            Some(Received::Delivery(delivery)) => take(delivery),
            Some(Received::Gap(_)) => {}
            None => return,
        }
    }
    subscription.close();
    while let Some(received) = subscription.next().await {
        if let Received::Delivery(delivery) = received {
            take(delivery);
        }
    }
}
