//! Carrying a program out on a bus, and writing down what came of it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    hands::{Held, Slot},
    order::Order,
};
use crate::{
    address::{Address, Key, Origin, Token},
    bus::Bus,
    driver::BusOptions,
    error::ErrorKind,
    message::Message,
    subscription::Source,
    testkit::{
        model::{Account, Model},
        program::{End, Letter, Program, Step, origin_of},
        target::Target,
        wait::{Failure, Outcome, ensure, until, within},
    },
};

/// How long a step waits for what need not come.
const SHORTLY: Duration = Duration::from_millis(20);
/// What was settled so long before its death is known to any broker; what was settled later may come again. In so many
/// parts, in each of which it stores something: time in which a loaded machine does nothing is none of the broker's.
const KNOWN: Duration = Duration::from_secs(1);
const PARTS: u32 = 10;
/// How early a retry may seem to come: the clocks of brokers count in milliseconds.
pub(super) const GRAIN: Duration = Duration::from_millis(2);
/// The header in which a letter's number stands a second time.
pub(super) const NUMBER: &str = "x-number";

/// One program on its way.
pub(super) struct Performance {
    pub(super) program: Arc<Program>,
    pub(super) target: Arc<Target>,
    exchange: Token,
    /// How long to wait for a message that must come.
    pub(super) patience: Duration,
    pub(super) buses: Vec<Arc<dyn Bus>>,
    pub(super) slots: BTreeMap<usize, Slot>,
    pub(super) hand: Vec<Held>,
    /// When a retry may come at the earliest.
    pub(super) resting: BTreeMap<(String, u32), Instant>,
    pub(super) order: Order,
    lives: usize,
    pub(super) model: Model,
    pub(super) seen: Account,
}

/// Carries `program` out on an exchange of its own; fails where the bus does what the model does not.
pub(super) async fn perform(program: Arc<Program>, target: Arc<Target>, shared: bool) -> Outcome {
    let exchange = Token::new(format!("t{:016x}", rand::random::<u64>()))?;
    let mut performance = Performance {
        program: program.clone(),
        patience: target.bound(),
        target,
        exchange,
        buses: Vec::new(),
        slots: BTreeMap::new(),
        hand: Vec::new(),
        resting: BTreeMap::new(),
        order: Order::default(),
        lives: 0,
        model: Model::default(),
        seen: Account::default(),
    };
    for _ in 0..if shared { 2 } else { 1 } {
        performance.buses.push(performance.join().await?);
    }
    for (at, step) in program.whole().enumerate() {
        let done = performance.step(&step).await;
        done.map_err(|failure| failure.in_step(format_args!("step {}, {step:?}", at + 1)))?;
    }
    performance.end().await
}

impl Performance {
    async fn step(&mut self, step: &Step) -> Outcome {
        if let Step::Exhume { origin, .. } = step {
            self.drain(origin).await?;
        }
        self.model.step(step);
        match step {
            Step::Publish { by, letter } => self.publish(*by, letter).await,
            Step::Subscribe { by, slot, source, prefetch } => {
                if self.slots.contains_key(slot) {
                    return Ok(());
                }
                self.lives += 1;
                self.subscribe(*slot, self.lives, *by, source.clone(), *prefetch).await
            }
            Step::Take { origin, most } => self.take(origin, *most).await,
            Step::Drain { origin } => self.drain(origin).await,
            Step::Hear { slot } => self.hear(*slot).await,
            Step::Exhume { origin, then } => self.exhume(origin, *then).await,
            Step::Close { slot } => self.leave(*slot, true).await,
            Step::Drop { slot } => self.leave(*slot, false).await,
            Step::Reopen { by } => self.reopen(*by).await,
            Step::Restart => self.restart().await,
        }
    }

    async fn join(&self) -> Outcome<Arc<dyn Bus>> {
        let options = BusOptions {
            exchange: self.exchange.clone(),
            client_name: "differential".into(),
            ..BusOptions::default()
        };
        self.target.open(options).await
    }

    async fn publish(&self, by: usize, letter: &Letter) -> Outcome {
        let message = Message::new(letter.to.clone(), self.program.body(letter))?;
        let message = message.with(NUMBER, letter.n.to_string())?;
        within("publishing", self.target.bound(), self.buses[by].publish(message)).await??;
        Ok(())
    }

    async fn subscribe(
        &mut self,
        slot: usize,
        life: usize,
        by: usize,
        source: Source,
        prefetch: u16,
    ) -> Outcome {
        let subscribing = self.buses[by].subscribe(source.clone(), prefetch);
        let subscription = within("subscribing", self.target.bound(), subscribing).await??;
        if let Some(origin) = origin_of(&source) {
            let alone = self.slots.values().all(|other| origin_of(&other.source).as_ref() != Some(&origin));
            self.order.joined(&origin.to_string(), life, alone && prefetch == 1);
        } else {
            self.seen.heard.insert(life, Vec::new());
        }
        self.slots.insert(slot, Slot { life, by, source, prefetch, subscription });
        Ok(())
    }

    async fn take(&mut self, origin: &Origin, most: usize) -> Outcome {
        for _ in 0..most {
            let Some((slot, received)) = Slot::any(&mut self.slots, origin, SHORTLY).await else { break };
            self.received(slot, received).await?;
        }
        Ok(())
    }

    /// Takes all that is in `origin` until it is as the model says; with a reader of its own where there is none.
    pub(super) async fn drain(&mut self, origin: &Origin) -> Outcome {
        const OWN: usize = usize::MAX;
        let Some(source) = self.model.source(origin) else { return Ok(()) };
        let expected = self.model.drained(origin);
        let name = origin.to_string();
        let read = self.slots.values().any(|slot| origin_of(&slot.source).as_ref() == Some(origin));
        if !read && self.seen.stored.get(&name) != Some(&expected) && !expected.is_empty() {
            self.subscribe(OWN, OWN, 0, source, 4).await?;
        }
        loop {
            let seen = self.seen.stored.get(&name);
            let mut due =
                expected.iter().filter(|(n, fate)| seen.and_then(|seen| seen.get(*n)) != Some(*fate));
            let Some((n, fate)) = due.next() else { break };
            let (n, fate) = (*n, fate.clone());
            let in_hand = |n: &u32| self.hand.iter().any(|held| held.is(&name, *n));
            if in_hand(&n) && due.all(|(n, _)| in_hand(n)) {
                self.settle_held(|held| held.origin == name).await?;
                continue;
            }
            let Some((slot, received)) = Slot::any(&mut self.slots, origin, self.patience).await else {
                let seen = self.seen.stored.get(&name).and_then(|seen| seen.get(&n));
                return Err(Failure::new(format!(
                    "nothing came of {name} for {:?}: message {n} comes to {fate:?}, and came to {seen:?}",
                    self.patience
                )));
            };
            self.received(slot, received).await?;
        }
        self.order.drained(&name);
        if self.slots.remove(&OWN).is_some() {
            self.order.left(&name, false);
            self.order.may_linger(&name, 0);
        }
        let mut readers = self.slots.values().filter(|slot| origin_of(&slot.source).as_ref() == Some(origin));
        if let (Some(Slot { life, prefetch: 1, .. }), None) = (readers.next(), readers.next()) {
            self.order.joined(&name, *life, true);
        }
        Ok(())
    }

    /// Reads what an ephemeral subscription was to hear.
    async fn hear(&mut self, slot: usize) -> Outcome {
        let Some(hearing) = self.slots.get_mut(&slot).filter(|slot| origin_of(&slot.source).is_none()) else {
            return Ok(());
        };
        let life = hearing.life;
        let expected = self.model.account().heard.get(&life).map_or(0, Vec::len);
        loop {
            let Some(hearing) = self.slots.get_mut(&slot) else { return Ok(()) };
            let enough = self.seen.heard[&life].len() >= expected;
            // What is more than enough has come with the rest.
            let patience = if enough { Duration::ZERO } else { self.target.bound() };
            match hearing.next(patience).await {
                Some(received) => self.received(slot, received).await?,
                None => break,
            }
        }
        let mut heard = self.seen.heard[&life].clone();
        heard.sort_unstable();
        let expected = self.model.account().heard.get(&life);
        ensure!(Some(&heard) == expected, "heard {heard:?} where {expected:?} was to be heard");
        Ok(())
    }

    async fn leave(&mut self, slot: usize, read: bool) -> Outcome {
        self.hear(slot).await?;
        if let Some(Slot { by, source, .. }) = self.slots.get(&slot)
            && let Some(origin) = origin_of(source)
        {
            self.order.may_linger(&origin.to_string(), *by);
        }
        if read && let Some(closing) = self.slots.get_mut(&slot) {
            closing.subscription.close();
            while let Some(closing) = self.slots.get_mut(&slot) {
                let next = tokio::time::timeout(self.target.bound(), closing.subscription.next()).await;
                let Ok(next) = next else {
                    return Err(Failure::new("a closed subscription did not end"));
                };
                let Some(next) = next else { break };
                self.received(slot, Some(next)).await?;
            }
        }
        self.forget(slot);
        Ok(())
    }

    fn forget(&mut self, slot: usize) {
        let Some(slot) = self.slots.remove(&slot) else { return };
        if let Some(origin) = origin_of(&slot.source) {
            let name = origin.to_string();
            let seen = self.seen.stored.get(&name).cloned().unwrap_or_default();
            self.order.left(&name, seen != self.model.drained(&origin));
        }
    }

    /// What is to be settled late is settled; the rest is in hand when the program leaves.
    async fn reopen(&mut self, by: usize) -> Outcome {
        self.settle_held(|held| held.end != End::Drop).await?;
        let slots: Vec<usize> =
            self.slots.iter().filter(|(_, slot)| slot.by == by).map(|(at, _)| *at).collect();
        for slot in &slots {
            self.hear(*slot).await?;
        }
        let fresh = self.join().await?;
        let old = std::mem::replace(&mut self.buses[by], fresh);
        within("closing", self.target.bound(), old.close()).await??;
        self.hand.retain(|held| held.by != by);
        for slot in slots {
            self.forget(slot);
        }
        self.order.closed(by);
        let late = Message::new(Address::Queue(Key::new("jobs.late")?), "too late")?;
        match within("publishing too late", self.target.bound(), old.publish(late)).await? {
            Err(error) if *error.kind() == ErrorKind::Closed && !error.may_have_executed() => Ok(()),
            other => Err(Failure::new(format!("publishing on a closed bus gave {other:?}"))),
        }
    }

    /// Nothing is in hand and nobody reads while the broker is started again.
    async fn restart(&mut self) -> Outcome {
        let mut again = Vec::new();
        for at in self.slots.keys().copied().collect::<Vec<_>>() {
            if let Some(Slot { life, by, source, prefetch, .. }) = self.slots.get(&at) {
                again.push((at, *life, *by, source.clone(), *prefetch));
            }
            // What was taken is settled, so that little is given back: a broker that dies with that under way may
            // give it to others only after its lease.
            self.leave(at, true).await?;
        }
        self.settle_held(|_| true).await?;
        self.patience = self.target.bound() + self.target.longest_lease();
        for _ in 0..PARTS {
            tokio::time::sleep(KNOWN / PARTS).await;
            for bus in &self.buses {
                within("storing a probe", self.target.bound(), probe(&**bus)).await??;
            }
        }
        self.target.restart().await?;
        for bus in &self.buses {
            let again = async || probe(&**bus).await.is_ok();
            until("messages go through again", self.target.bound() * 2, again).await?;
        }
        for (at, life, by, source, prefetch) in again {
            let source = match origin_of(&source) {
                Some(origin) => self.model.source(&origin).unwrap_or(source),
                None => source,
            };
            let heard = self.seen.heard.get(&life).cloned();
            self.subscribe(at, life, by, source, prefetch).await?;
            if let Some(heard) = heard {
                self.seen.heard.insert(life, heard);
            }
        }
        Ok(())
    }

    /// Nothing more comes, and all leave.
    async fn end(mut self) -> Outcome {
        for (at, slot) in &mut self.slots {
            if let Some(more) = slot.next(Duration::ZERO).await {
                return Err(Failure::new(format!("in the end slot {at} got {more:?} too")));
            }
        }
        ensure!(
            self.seen.stored == self.model.account().stored,
            "in the end the model says {:?}, and {:?} came",
            self.model.account().stored,
            self.seen.stored
        );
        self.slots.clear();
        for bus in self.buses {
            within("closing", self.target.bound(), bus.close()).await??;
        }
        Ok(())
    }
}

/// Stores a message that nobody reads.
async fn probe(bus: &dyn Bus) -> Outcome {
    bus.publish(Message::new(Address::Queue(Key::new("jobs.probe")?), "")?).await?;
    Ok(())
}
