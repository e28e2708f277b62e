//! Queues, durable subscriptions and dead letters: at least once. One task a subscription asks the server for as many
//! messages as there are places, and looks every few seconds whether what it reads is still there.

use std::{collections::VecDeque, future::poll_fn, sync::Arc, task::Poll, time::Duration};

use async_nats::{Message as Raw, Subscriber};
use commissaire::{Address, ErrorKind, Feed, Message, Place, Result, Source, envelope};
use futures_util::{StreamExt, future::join_all};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval},
};

use super::{
    ear,
    plan::{Plan, Role},
    pulls::{Tap, Word},
    rest,
    sweep::Sweep,
    unreadable,
};
use crate::{
    bus::{BOUND, Core},
    declare::Stream,
    door::Door,
    fault::Fault,
    hand::Held,
    link::State,
    registry,
    settle::{Entry, Token},
};

/// How often to look after pulls, and after the server.
const TICK: Duration = Duration::from_millis(250);
const LOOK: Duration = Duration::from_secs(3);
/// How soon to look again where something was amiss.
const SOON: Duration = Duration::from_millis(500);
/// How many resting retries are looked at at one time, and how many repeated ones asked for.
const MOST_RESTING: usize = 256;
const MOST_AGAIN: usize = 32;
/// How long a delivery without a place waits for one before another process may have it.
const PATIENCE: Duration = Duration::from_secs(1);

/// One subscription.
struct Reader {
    core: Arc<Core>,
    feed: Feed,
    plan: Arc<Plan>,
    door: Arc<Door>,
    prefetch: usize,
    taps: Vec<Tap>,
    /// Changes of what a durable subscription wants.
    records: Option<Subscriber>,
    /// Places that a message may come for.
    places: VecDeque<Place>,
    /// Deliveries without a place.
    surplus: VecDeque<(Instant, Message, Token, Held)>,
    /// The connection of which it is known that all is there.
    sure: Option<u64>,
    sweep: Sweep,
    look: Option<JoinHandle<Result<(bool, Sweep)>>>,
    next_look: Instant,
    next_beat: Instant,
    complained: bool,
}

pub(super) async fn start(
    core: &Arc<Core>,
    source: Source,
    feed: Feed,
    prefetch: u16,
    deadline: Instant,
) -> Result<()> {
    let what = format!("subscribing to {source}");
    let plan = Arc::new(Plan::new(source)?);
    let link = &core.link;
    let mut state = link.state();
    let generation = state.borrow_and_update().generation;
    let mut records = None;
    if let Some(wanted) = &plan.wanted {
        // Those who read it already must know what is wanted before anything of it comes.
        wanted.write(core, deadline).await.map_err(|fault| fault.into_error(&what))?;
        records = Some(ear::open(link, &link.names.record(&wanted.name), None, deadline).await?);
    }
    let (_, first) = plan.ensure(core, deadline).await?;
    let mut taps = Vec::new();
    for (role, consumer) in plan.consumers(core) {
        taps.push(Tap::open(link, role, &consumer, deadline).await?);
    }
    feed.consuming().set(true);
    let now = Instant::now();
    let reader = Reader {
        core: core.clone(),
        door: Arc::new(Door::new(feed.closing(), prefetch <= 1)),
        feed,
        prefetch: usize::from(prefetch.max(1)),
        taps,
        records,
        places: VecDeque::new(),
        surplus: VecDeque::new(),
        sure: Some(generation),
        sweep: Sweep::Due,
        look: None,
        next_look: now + LOOK,
        next_beat: now + registry::beat(core.idle_expiry),
        complained: false,
        plan,
    };
    core.listening.spawn(reader.run(state));
    if let Some(first) = first {
        first.acknowledged(core).await;
    }
    Ok(())
}

impl Reader {
    async fn run(mut self, mut state: watch::Receiver<State>) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut records_since = self.core.records_since.subscribe();
        let (closing, end) = (self.core.closing.clone(), self.core.link.end.clone());
        loop {
            self.ask().await;
            tokio::select! {
                biased;
                () = closing.cancelled() => break,
                () = end.cancelled() => return self.door.open(&self.core),
                Ok(()) = state.changed() => {
                    let now = *state.borrow_and_update();
                    self.follow(now);
                }
                () = self.door.through.notified() => {}
                looked = looked(&mut self.look) => self.looked(looked),
                (tap, raw) = next(&mut self.taps) => match raw {
                    Some(raw) => {
                        self.take(tap, raw).await;
                        for _ in 0..ear::BURST {
                            let more = self.taps.get_mut(tap).and_then(|tap| ear::here(&mut tap.subscriber));
                            let Some(raw) = more else { break };
                            self.take(tap, raw).await;
                        }
                    }
                    None => break,
                },
                Some(record) = record(&mut self.records) => {
                    if let Some(wanted) = &self.plan.wanted {
                        wanted.take(&record.payload);
                    }
                }
                place = self.feed.place() => match place {
                    Some(place) => self.free(place),
                    None => break,
                },
                Ok(()) = records_since.changed() => self.next_beat = Instant::now(),
                _ = tick.tick() => self.care(),
            }
        }
        self.leave().await;
    }

    /// Asks for as many messages as there are places.
    async fn ask(&mut self) {
        if self.sure.is_none() || !self.surplus.is_empty() || self.door.is_busy() {
            return;
        }
        let free = self.places.len();
        for tap in &mut self.taps {
            let standing = tap.outstanding();
            let batch = match tap.role {
                // Not one request a message: more are asked for when half of them have come.
                Role::First if free > standing && standing <= free - standing => free - standing,
                Role::Again if free > 0 && standing == 0 => free.min(MOST_AGAIN),
                Role::Rest if standing <= MOST_RESTING / 2 => MOST_RESTING - standing,
                _ => continue,
            };
            tap.pull(&self.core.link, batch).await;
        }
    }

    fn follow(&mut self, state: State) {
        if state.up && self.sure == Some(state.generation) {
            return;
        }
        self.doubt();
        self.sweep = Sweep::Due;
        if state.up {
            self.next_look = Instant::now();
            self.look();
        }
    }

    /// It is not known any more that all is there.
    fn doubt(&mut self) {
        self.sure = None;
        self.feed.consuming().set(false);
        for tap in &mut self.taps {
            tap.clear();
        }
    }

    fn care(&mut self) {
        if self.taps.iter().any(Tap::is_deaf) {
            tracing::debug!(origin = %self.plan.spot.origin, "a consumer is silent");
            self.doubt();
            self.next_look = Instant::now();
        }
        while self.surplus.front().is_some_and(|(since, ..)| since.elapsed() > PATIENCE) {
            if let Some((_, _, token, held)) = self.surplus.pop_front() {
                drop(held);
                self.core.hand.give_back(token.stored, token.ack);
            }
        }
        self.look();
        if Instant::now() >= self.next_beat {
            self.next_beat = Instant::now() + registry::beat(self.core.idle_expiry);
            if let Some(wanted) = self.plan.wanted.clone() {
                let core = self.core.clone();
                tokio::spawn(async move {
                    if let Err(fault) = wanted.write(&core, Instant::now() + BOUND).await {
                        tracing::debug!(?fault, "a durable subscription's record was not written");
                    }
                });
            }
        }
    }

    /// Begins to look whether all is there, when it is time.
    fn look(&mut self) {
        if self.look.is_some() || Instant::now() < self.next_look || !self.core.link.state().borrow().up {
            return;
        }
        let (core, plan, unsure, sweep) =
            (self.core.clone(), self.plan.clone(), self.sure.is_none(), self.sweep);
        self.look = Some(tokio::spawn(async move {
            let deadline = Instant::now() + BOUND / 2;
            if unsure && let Some(wanted) = &plan.wanted {
                Stream::records(&core.link).ensure(&core.link, deadline).await?;
                if let Err(fault) = wanted.refresh(&core, deadline).await {
                    tracing::debug!(?fault, "a durable subscription's record was not read");
                }
            }
            let (made, _) = plan.ensure(&core, deadline).await?;
            // Not in the way of going on.
            if unsure {
                return Ok((made, sweep));
            }
            let swept = sweep.go_on(&core, &plan, deadline).await;
            Ok((made, swept.unwrap_or_else(|fault| {
                tracing::debug!(?fault, origin = %plan.spot.origin, "what was acknowledged was not removed");
                if matches!(fault, Fault::Forbidden(_)) { Sweep::Over } else { sweep }
            })))
        }));
        self.next_look = Instant::now() + LOOK;
    }

    fn looked(&mut self, looked: Option<Result<(bool, Sweep)>>) {
        self.look = None;
        let state = *self.core.link.state().borrow();
        match looked {
            Some(Ok((made, sweep))) => {
                // One that began before the connection was lost says nothing of what is left.
                if self.sure == Some(state.generation) {
                    self.sweep = sweep;
                }
                if made {
                    tracing::warn!(origin = %self.plan.spot.origin, "what is read here was gone and was made again");
                    self.doubt();
                    // Its record may be gone as well.
                    self.next_beat = Instant::now();
                }
                if state.up {
                    self.complained = false;
                    self.sure = Some(state.generation);
                    self.feed.consuming().set(true);
                }
            }
            Some(Err(error)) => {
                if !std::mem::replace(&mut self.complained, true) {
                    tracing::warn!(origin = %self.plan.spot.origin, %error, "what is to be read here is not fit");
                }
                self.doubt();
                let soon = if *error.kind() == ErrorKind::Topology { LOOK } else { SOON };
                self.next_look = Instant::now() + soon;
            }
            None => {}
        }
    }

    /// A place is free, and maybe more.
    fn free(&mut self, place: Place) {
        self.places.push_back(place);
        while self.places.len() < self.prefetch
            && let Some(place) = self.feed.try_place()
        {
            self.places.push_back(place);
        }
        while !self.surplus.is_empty()
            && let Some(place) = self.places.pop_front()
            && let Some((_, message, token, held)) = self.surplus.pop_front()
        {
            self.deliver(place, message, token, held);
        }
    }

    async fn take(&mut self, tap: usize, raw: Raw) {
        let Some(tap) = self.taps.get_mut(tap) else { return };
        let role = tap.role;
        tap.hear(&self.core.hand);
        let token = match tap.read(&raw) {
            Word::Message(token) => token,
            Word::Well => return,
            Word::Doubt(text) => {
                tracing::debug!(origin = %self.plan.spot.origin, text, "the server ended a request");
                self.doubt();
                // A server that is removing a stream removes the files of one that is made again too soon.
                self.next_look = self.next_look.min(Instant::now() + SOON);
                return;
            }
        };
        if role == Role::Rest {
            return rest::look(&self.core, &self.plan.spot, raw, token).await;
        }
        let held = self.core.hand.hold(token.stored.clone(), token.ack.clone());
        let message = match envelope::decode(raw.payload.clone()) {
            Ok(message) => message,
            Err(error) => {
                tracing::warn!(origin = %self.plan.spot.origin, %error, "what cannot be read becomes a dead letter");
                return unreadable::bury(&self.core, &self.plan, &raw.payload, token, held);
            }
        };
        if role == Role::First
            && let Some(wanted) = &self.plan.wanted
            && !matches!(message.address(), Address::Topic(key) if wanted.matches(key))
        {
            // The server filters less finely than the patterns.
            drop(held);
            return self.core.link.post(token.ack, "+ACK").await;
        }
        match self.places.pop_front() {
            Some(place) => self.deliver(place, message, token, held),
            None => self.surplus.push_back((Instant::now(), message, token, held)),
        }
    }

    fn deliver(&self, place: Place, message: Message, token: Token, held: Held) {
        let returned = u64::from(self.core.hand.returned(&token.stored));
        let redelivered = u32::try_from(token.delivered.saturating_sub(1 + returned)).unwrap_or(u32::MAX);
        let (core, spot, door) = (self.core.clone(), self.plan.spot.clone(), self.door.clone());
        let entry = Entry { core, spot, token, held, door };
        self.feed.deliver(place, message, redelivered, Box::new(entry));
    }

    /// Gives back what came until the server knew that we leave.
    async fn leave(mut self) {
        self.feed.consuming().set(false);
        let core = &self.core;
        let left = join_all(self.taps.iter_mut().map(|tap| tap.shut(&core.link))).await;
        self.door.open(core);
        for token in left.into_iter().flatten() {
            core.hand.give_back(token.stored, token.ack);
        }
        for (_, _, token, held) in self.surplus.drain(..) {
            drop(held);
            core.hand.give_back(token.stored, token.ack);
        }
        if let Some(look) = self.look.take() {
            look.abort();
        }
    }
}

/// The next message of any of the taps, the first of them first.
async fn next(taps: &mut [Tap]) -> (usize, Option<Raw>) {
    poll_fn(|cx| {
        for (at, tap) in taps.iter_mut().enumerate() {
            if let Poll::Ready(raw) = tap.subscriber.poll_next_unpin(cx) {
                return Poll::Ready((at, raw));
            }
        }
        Poll::Pending
    })
    .await
}

async fn looked(look: &mut Option<JoinHandle<Result<(bool, Sweep)>>>) -> Option<Result<(bool, Sweep)>> {
    match look {
        Some(look) => look.await.ok(),
        None => std::future::pending().await,
    }
}

async fn record(records: &mut Option<Subscriber>) -> Option<Raw> {
    match records {
        Some(records) => records.next().await,
        None => std::future::pending().await,
    }
}
