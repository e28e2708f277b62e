//! Publishing, by the kind of address.

use std::{sync::Arc, time::Duration};

use async_nats::{HeaderMap, StatusCode, Subject};
use bytes::Bytes;
use commissaire::{Address, Error, ErrorKind, Inbox, Key, Message, Origin, Result, envelope, header};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout_at},
};

use crate::{
    bus::{BOUND, Core},
    call::{BUSY, TAKEN, correlation},
    clock::millis,
    declare::Stream,
    fault::Fault,
    link::State,
    mux::Heard,
};

/// For how long after our connection was made again services may still be making theirs, and how often to look.
const COME_BACK: Duration = Duration::from_secs(3);
const BLINK: Duration = Duration::from_millis(50);
/// How long an event may be unconfirmed before we look whether what stores it is there.
const DOUBT: Duration = Duration::from_secs(1);

pub(crate) struct Publisher {
    core: Arc<Core>,
    state: watch::Receiver<State>,
    events: Stream,
}

impl Publisher {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self { state: core.link.state(), events: Stream::events(&core.link), core }
    }

    pub(crate) async fn publish(&self, message: &Message) -> Result<()> {
        let limit = message.ttl().map_or(BOUND, |ttl| ttl.min(BOUND));
        let deadline = Instant::now() + limit;
        let bytes = Bytes::from(envelope::encode(message));
        let names = &self.core.link.names;
        let sent = match message.address() {
            Address::Service(key) => return self.call(key, message, bytes, deadline).await,
            Address::Queue(key) => self.enqueue(key, message, &bytes, deadline).await,
            Address::Topic(key) => self.announce(key, message, &bytes, deadline).await,
            Address::Control(service) => self.tell(names.control(service), bytes, deadline).await,
            Address::Inbox(inbox) => self.reply(*inbox, message, bytes, deadline).await,
        };
        sent.map_err(|fault| fault.into_error(&format!("publishing to {}", message.address())))
    }

    async fn tell(&self, subject: String, bytes: Bytes, deadline: Instant) -> Result<(), Fault> {
        self.core.link.send(subject.into(), None, None, bytes, deadline).await
    }

    async fn reply(
        &self,
        inbox: Inbox,
        message: &Message,
        bytes: Bytes,
        deadline: Instant,
    ) -> Result<(), Fault> {
        let (link, taken) = (&self.core.link, &self.core.taken);
        let prefix = taken.prefix(inbox);
        let subject = link.names.inbox(prefix.as_deref().unwrap_or(&link.prefix), &inbox);
        let sent = self.tell(subject, bytes, deadline).await;
        if sent.is_ok() {
            taken.replied(message, inbox);
        }
        sent
    }

    async fn call(&self, key: &Key, message: &Message, bytes: Bytes, deadline: Instant) -> Result<()> {
        let what = || format!("call {key}");
        let service = key.service()?;
        let subject = Subject::from(self.core.link.names.service(&service));
        let until = message.ttl().map(|ttl| Instant::now() + ttl);
        loop {
            let started = Instant::now();
            let heard = self.once(&subject, message, &bytes, until, deadline).await;
            match heard {
                Ok(Heard::Replied) => return Ok(()),
                Ok(Heard::Message(raw)) if raw.status == Some(StatusCode::NO_RESPONDERS) => {
                    // Those who answer may be making their connections again, as we did just now.
                    if self.is_new_again(started) && Instant::now() + BLINK < deadline {
                        sleep(BLINK).await;
                        continue;
                    }
                    return Err(Error::no_responders(&service));
                }
                Ok(Heard::Message(raw)) => {
                    return match std::str::from_utf8(&raw.payload) {
                        Ok(TAKEN) => Ok(()),
                        Ok(BUSY) => Err(Error::new(
                            ErrorKind::Busy,
                            format!(
                                "service {service} has too many calls waiting: try again later, or start more \
                                 instances"
                            ),
                        )),
                        _ => Err(Error::malformed(format!("service {service} cannot read the call"))),
                    };
                }
                Err(fault) => return Err(fault.into_error(&what())),
            }
        }
    }

    /// Sends a call once and waits for a word on it.
    async fn once(
        &self,
        subject: &Subject,
        message: &Message,
        bytes: &Bytes,
        until: Option<Instant>,
        deadline: Instant,
    ) -> Result<Heard, Fault> {
        let link = &self.core.link;
        link.up(deadline).await?;
        // Only a reply to an inbox of this process would be seen.
        let correlation = message.reply_to().and_then(|_| correlation(message));
        let mut waiting = link.mux.enter_call(subject.clone(), correlation, until);
        let reply = format!("{}-{:x}", link.word(&waiting), millis(self.core.clock.now()));
        link.send(subject.clone(), Some(reply.into()), None, bytes.clone(), deadline).await?;
        timeout_at(deadline, waiting.heard()).await.map_err(|_| Fault::Late)?
    }

    /// Whether the connection took the place of a lost one not long ago.
    fn is_new_again(&self, now: Instant) -> bool {
        let state = *self.state.borrow();
        state.generation > 1 && self.core.link.since(now) < COME_BACK
    }

    async fn enqueue(
        &self,
        key: &Key,
        message: &Message,
        bytes: &Bytes,
        deadline: Instant,
    ) -> Result<(), Fault> {
        let origin = Origin::Queue(key.clone());
        let subject = Subject::from(self.core.link.names.work(&origin));
        let stream = || Stream::work(&self.core.link, &origin);
        store(
            &self.core,
            &subject,
            message.headers().get(header::ID),
            HeaderMap::new(),
            bytes,
            deadline,
            stream,
        )
        .await
    }

    /// An event is sent once: those who hear it now must not hear it twice.
    async fn announce(
        &self,
        key: &Key,
        message: &Message,
        bytes: &Bytes,
        deadline: Instant,
    ) -> Result<(), Fault> {
        let link = &self.core.link;
        let subject = Subject::from(link.names.event(key));
        let id = message.headers().get(header::ID);
        let mut known = self.core.events_since.borrow().clone();
        loop {
            let mut storing = std::pin::pin!(link.store(&subject, id, HeaderMap::new(), bytes, deadline));
            let first = tokio::select! {
                biased;
                stored = &mut storing => Some(stored),
                () = sleep(DOUBT) => None,
            };
            let gone = match first {
                Some(Err(Fault::Nobody)) => true,
                Some(stored) => return stored.map(drop),
                // Somebody hears it, but maybe nobody who stores it.
                None => false,
            };
            match self.events.since(link, deadline).await {
                // One that was made since it was sent has not got it.
                Ok(since) if gone || since != known => known = since,
                Ok(_) => return storing.await.map(drop),
                Err(error) if gone => return Err(Fault::Unmade(error.kind().clone(), error.to_string())),
                Err(_) => return storing.await.map(drop),
            }
            if Instant::now() >= deadline {
                return Err(if gone { Fault::Nobody } else { Fault::Late });
            }
        }
    }
}

/// Stores a message, as often as is needed: the server recognises its id. `stream` is where it goes, made if it is not there.
pub(crate) async fn store(
    core: &Core,
    subject: &Subject,
    id: Option<&str>,
    headers: HeaderMap,
    bytes: &Bytes,
    deadline: Instant,
    stream: impl Fn() -> Stream,
) -> Result<(), Fault> {
    let mut lost = false;
    loop {
        let stored = core.link.store(subject, id, headers.clone(), bytes, deadline).await;
        match stored {
            Ok(_) => return Ok(()),
            Err(Fault::Nobody) => {
                let made = stream().ensure(&core.link, deadline).await;
                let late = Instant::now() + BLINK >= deadline;
                match made {
                    _ if late && made.is_ok() => return Err(Fault::Nobody),
                    Ok(true) => {}
                    // The server has just started, and does not listen there yet.
                    Ok(false) => sleep(BLINK).await,
                    Err(error)
                        if late || matches!(error.kind(), ErrorKind::Topology | ErrorKind::Forbidden) =>
                    {
                        return Err(Fault::Unmade(error.kind().clone(), error.to_string()));
                    }
                    Err(_) => sleep(BLINK).await,
                }
            }
            // It has nothing to be recognised by: whether it was stored is not known.
            Err(fault) if id.is_none() => return Err(fault),
            Err(fault) if fault.passes() && Instant::now() + BLINK < deadline => {
                lost = lost || fault == Fault::Lost;
                sleep(BLINK).await;
            }
            Err(Fault::NotSent) if lost => return Err(Fault::Lost),
            Err(fault) => return Err(fault),
        }
    }
}
