//! Calls to a service: taken at once into a room of bounded size, handed over as there are places.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use async_nats::{Message as Raw, Subscriber};
use bytes::Bytes;
use commissaire::{Address, Feed, Key, Message, Place, Result, envelope};
use futures_util::StreamExt;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep},
};

use super::ear;
use crate::{
    bus::{BOUND, Core},
    call::{self, BUSY, TAKEN, UNREADABLE},
    clock::millis,
    fault::Fault,
    link::State,
};

/// What may wait for a place.
const MOST_CALLS: usize = 10_000;
const MOST_BYTES: usize = 64 << 20;
/// A call that is older than this by the server's time, or younger than it can be, is asked about before it is taken.
const ODD_AGE: Duration = Duration::from_secs(1);
/// The most calls that are asked about at one time, and how long that may take.
const MOST_ASKED: usize = 256;
const ASK: Duration = Duration::from_secs(2);
/// How long after its end a subscription looks for places for what it had taken, at most and in steps.
const LINGER: Duration = Duration::from_secs(10);
const STEP: Duration = Duration::from_millis(5);

/// One subscription.
struct Calls {
    core: Arc<Core>,
    feed: Feed,
    service: Key,
    subject: String,
    subscriber: Subscriber,
    waiting: VecDeque<Waits>,
    bytes: usize,
    asking: usize,
    asked: mpsc::Sender<Option<Waits>>,
}

/// A call that was taken.
struct Waits {
    message: Message,
    since: Instant,
    /// When it is of no use any more.
    until: Option<Instant>,
}

pub(crate) async fn start(core: &Arc<Core>, service: Key, feed: Feed, deadline: Instant) -> Result<()> {
    let subject = core.link.names.service(&service);
    let mut state = core.link.state();
    let generation = state.borrow_and_update().generation;
    let subscriber = ear::open(&core.link, &subject, Some("s"), deadline).await?;
    feed.consuming().set(true);
    let (asked, answers) = mpsc::channel(MOST_ASKED);
    let calls = Calls {
        core: core.clone(),
        feed,
        service,
        subject,
        subscriber,
        waiting: VecDeque::new(),
        bytes: 0,
        asking: 0,
        asked,
    };
    core.listening.spawn(calls.run(state, generation, answers));
    Ok(())
}

impl Calls {
    async fn run(
        mut self,
        mut state: watch::Receiver<State>,
        mut generation: u64,
        mut answers: mpsc::Receiver<Option<Waits>>,
    ) {
        loop {
            tokio::select! {
                biased;
                () = self.feed.closed() => break,
                () = self.core.closing.cancelled() => break,
                () = self.core.link.end.cancelled() => return,
                Ok(()) = state.changed() => {
                    let now = *state.borrow_and_update();
                    self.follow(now, &mut generation).await;
                }
                Some(answer) = answers.recv() => {
                    self.asking -= 1;
                    if let Some(waits) = answer {
                        self.admit(waits);
                    }
                }
                place = self.feed.place(), if !self.waiting.is_empty() => match place {
                    Some(place) => self.hand_over(place),
                    None => break,
                },
                raw = self.subscriber.next() => match raw {
                    Some(raw) => {
                        self.take(raw).await;
                        for _ in 0..ear::BURST {
                            let Some(raw) = ear::here(&mut self.subscriber) else { break };
                            self.take(raw).await;
                        }
                    }
                    None => break,
                },
            }
        }
        self.leave(&mut answers).await;
    }

    async fn follow(&mut self, state: State, generation: &mut u64) {
        if !state.up {
            self.feed.consuming().set(false);
            return;
        }
        if state.generation != *generation
            && let Ok(known) = ear::known(&self.core.link, &self.subject, Instant::now() + BOUND).await
        {
            *generation = known;
            self.feed.consuming().set(true);
        }
    }

    async fn take(&mut self, raw: Raw) {
        let link = &self.core.link;
        // A caller that names anything but its own place for answers gets none.
        let back = raw.reply.as_ref().map(ToString::to_string);
        let back = back.filter(|subject| link.names.read_back(subject).is_some());
        let message = match envelope::decode(raw.payload) {
            Ok(message) => message,
            Err(error) => {
                tracing::warn!(service = %self.service, %error, "a call that cannot be read was dropped");
                return self.say(back, UNREADABLE).await;
            }
        };
        let ours = match message.address() {
            Address::Service(key) => key.service().is_ok_and(|service| service == self.service),
            _ => false,
        };
        if !ours {
            tracing::warn!(service = %self.service, "a message that is no call of this service was dropped");
            return self.say(back, UNREADABLE).await;
        }
        if self.waiting.len() + self.asking >= MOST_CALLS || self.bytes >= MOST_BYTES {
            return self.say(back, BUSY).await;
        }
        let since = Instant::now();
        let until = message.ttl().map(|ttl| since + ttl);
        let waits = Waits { message, since, until };
        if let Some(back) = &back
            && self.is_odd(back, waits.message.ttl())
        {
            return self.doubt(waits, back.clone()).await;
        }
        if let Some(back) = back
            && !self.core.taken.note(link, &waits.message, &back)
        {
            link.post(back, TAKEN).await;
        }
        self.admit(waits);
    }

    /// Whether a call seems to have been on its way for long: its caller may have given it up.
    fn is_odd(&self, back: &str, ttl: Option<Duration>) -> bool {
        let sent = back.rsplit('-').next().and_then(|stamp| u64::from_str_radix(stamp, 16).ok());
        let Some(sent) = sent else { return true };
        let now = millis(self.core.clock.now());
        now.abs_diff(sent) > millis(ODD_AGE) || ttl.is_some_and(|ttl| now.saturating_sub(sent) >= millis(ttl))
    }

    /// Asks the caller, who alone knows.
    async fn doubt(&mut self, mut waits: Waits, back: String) {
        if self.asking >= MOST_ASKED {
            return self.say(Some(back), BUSY).await;
        }
        self.asking += 1;
        let (core, asked) = (self.core.clone(), self.asked.clone());
        tokio::spawn(async move {
            let answer = call::ask(&core.link, &back, Instant::now() + ASK).await;
            let taken = match answer {
                None => {
                    tracing::debug!("a call that came late was dropped: nobody waits for it");
                    None
                }
                Some(left) => {
                    let now = Instant::now();
                    waits.since = now;
                    if let Some(left) = left {
                        waits.until = Some(now + left);
                        waits.message = waits.message.with_ttl(left);
                    }
                    if !core.taken.note(&core.link, &waits.message, &back) {
                        core.link.post(back, TAKEN).await;
                    }
                    Some(waits)
                }
            };
            // Without a reader the subscription has ended, and its caller meets the deadline.
            let _ = asked.send(taken).await;
        });
    }

    fn admit(&mut self, waits: Waits) {
        if self.waiting.is_empty()
            && let Some(place) = self.feed.try_place()
        {
            waits.deliver(&self.feed, place);
            return;
        }
        self.bytes += waits.message.size();
        self.waiting.push_back(waits);
    }

    /// The next call that is still of use gets `place`, and those behind it what is free besides.
    fn hand_over(&mut self, place: Place) {
        let mut place = Some(place);
        while let Some(free) = place.take() {
            let Some(waits) = self.next() else { return };
            waits.deliver(&self.feed, free);
            place = self.feed.try_place();
        }
    }

    fn next(&mut self) -> Option<Waits> {
        let now = Instant::now();
        loop {
            let waits = self.waiting.pop_front()?;
            self.bytes -= waits.message.size();
            if waits.until.is_none_or(|until| until > now) {
                return Some(waits);
            }
        }
    }

    async fn say(&self, back: Option<String>, word: &'static str) {
        if let Some(back) = back {
            self.core.link.post(back, word).await;
        }
    }

    /// Leaves the service: what came until the server knew goes to others as it is, what was taken goes to others if
    /// there are any, and else comes out here.
    async fn leave(mut self, answers: &mut mpsc::Receiver<Option<Waits>>) {
        self.feed.consuming().set(false);
        for raw in ear::shut(&self.core.link, &mut self.subscriber, async {}).await {
            let subject = self.subject.as_str().into();
            let deadline = Instant::now() + ASK;
            // The answer, that nobody is there included, goes to the caller.
            let _ = self.core.link.send(subject, raw.reply, raw.headers, raw.payload, deadline).await;
        }
        while self.asking > 0 {
            let Some(answer) = answers.recv().await else { break };
            self.asking -= 1;
            if let Some(waits) = answer {
                self.admit(waits);
            }
        }
        // A bus that closes waits for nobody.
        let linger = if self.core.closing.is_cancelled() { Duration::ZERO } else { LINGER };
        let end = Instant::now() + linger;
        let passing = Instant::now() + LINGER / 2;
        let mut others = true;
        while let Some(waits) = self.next() {
            if others {
                let word = self.pass_on(&waits).await;
                others = word.is_ok() && Instant::now() < passing;
                if others {
                    continue;
                }
            }
            let place = loop {
                match self.feed.try_place() {
                    Some(place) => break Some(place),
                    None if Instant::now() >= end || self.core.link.end.is_cancelled() => break None,
                    None => sleep(STEP).await,
                }
            };
            match place {
                Some(place) => waits.deliver(&self.feed, place),
                None => return,
            }
        }
    }

    /// Gives a call that was taken to another instance.
    async fn pass_on(&self, waits: &Waits) -> Result<(), Fault> {
        let bytes = Bytes::from(envelope::encode(&waits.left()));
        let deadline = Instant::now() + ASK;
        let word = self.core.link.request(self.subject.as_str(), None, bytes, deadline).await?;
        if &*word.payload == TAKEN.as_bytes() { Ok(()) } else { Err(Fault::Nobody) }
    }
}

impl Waits {
    /// The message with what is left of its time.
    fn left(&self) -> Message {
        let message = self.message.clone();
        match message.ttl() {
            Some(ttl) => message.with_ttl(ttl.saturating_sub(self.since.elapsed())),
            None => message,
        }
    }

    fn deliver(self, feed: &Feed, place: Place) {
        feed.deliver_unsettled(place, self.left());
    }
}
