//! A broker that is a model: it keeps the contract, and nothing more than the contract.

use std::{
    future::pending,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rand::RngExt;
use tokio::{sync::Notify, time::Instant};

use super::{
    Plant,
    events::{Event, Log},
    store::{Job, Place, Reader, State, Taken, Then, number, place_of},
};
use crate::{
    address::{Address, Key, Origin},
    error::{Error, Result},
    message::Message,
    pattern::Pattern,
    subscription::Source,
};

/// The process of the client, which does not die.
pub(super) const CLIENT: u32 = 0;
/// How long ago an acknowledgement is that a death of the broker may undo.
const RECENT: Duration = Duration::from_secs(1);

/// The broker, and the chance that rules it all.
#[derive(Debug)]
pub(super) struct Broker {
    state: Mutex<State>,
    /// Something changed for those who read what is stored, for those who serve calls, and for all others.
    changed: [Notify; 3],
    died: Notify,
    pub(super) log: Arc<Log>,
    pub(super) plant: Plant,
}

impl Broker {
    pub(super) fn new(seed: u64, plant: Plant) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State::new(seed)),
            changed: Default::default(),
            died: Notify::new(),
            log: Arc::default(),
            plant,
        })
    }

    /// What tells a reader of `source` that there may be something for it.
    pub(super) fn changed(&self, source: &Source) -> &Notify {
        match source {
            source if place_of(source).is_some() => &self.changed[0],
            Source::Service(_) => &self.changed[1],
            _ => &self.changed[2],
        }
    }

    fn all_changed(&self) {
        self.changed.iter().for_each(Notify::notify_waiters);
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Up to `most` of rest, most often little or none. Who of those that do not rest goes on first is chance as well.
    pub(super) async fn rest(&self, most: Duration) {
        let (rest, turns) = {
            let dice = &mut self.lock().dice;
            let rest = match dice.random_range(0..10) {
                0..4 => Duration::ZERO,
                4..9 => Duration::from_millis(dice.random_range(0..=most.as_millis() as u64 / 10)),
                _ => Duration::from_millis(dice.random_range(0..=most.as_millis() as u64)),
            };
            (rest, dice.random_range(0..4))
        };
        if !rest.is_zero() {
            return tokio::time::sleep(rest).await;
        }
        for _ in 0..turns {
            tokio::task::yield_now().await;
        }
    }

    /// An await of `process`: it may die here, and does not go on when it is dead.
    pub(super) async fn step(&self, process: u32, most: Duration) {
        self.rest(most).await;
        let dies = {
            let mut state = self.lock();
            !state.calm && process != CLIENT && state.dice.random_range(0..150) == 0
        };
        if dies {
            self.kill(process);
        }
        if !self.lives(process).0 {
            pending::<()>().await;
        }
    }

    /// Whether `process` lives, and is connected.
    pub(super) fn lives(&self, process: u32) -> (bool, bool) {
        let state = self.lock();
        (!state.dead.contains(&process), !state.down.contains(&process))
    }

    /// Puts `message` where its address says.
    pub(super) fn accept(&self, message: Message) -> Result<()> {
        let mut state = self.lock();
        let changed = match message.address() {
            Address::Queue(_) => 0..1,
            Address::Service(_) => 1..2,
            Address::Topic(_) => 0..3,
            Address::Control(_) | Address::Inbox(_) => 2..3,
        };
        match message.address().clone() {
            Address::Service(key) => {
                let service = key.service()?;
                let there = state
                    .readers
                    .values()
                    .any(|reader| matches!(&reader.source, Source::Service(known) if *known == service));
                if !there {
                    return Err(Error::no_responders(&service));
                }
                let expires = Instant::now() + message.ttl().unwrap_or(Duration::from_secs(10));
                let twice = self.plant == Plant::Doubles && state.dice.random_bool(0.2);
                for _ in 0..if twice { 2 } else { 1 } {
                    state.last += 1;
                    let id = state.last;
                    state.calls.insert(id, (service.clone(), message.clone(), expires));
                }
            }
            Address::Queue(key) => state.store(message, Origin::Queue(key)),
            Address::Control(key) => state.pass(&message, |source| *source == Source::Control(key.clone())),
            Address::Inbox(inbox) => state.pass(&message, |source| *source == Source::Inbox(inbox)),
            Address::Topic(key) => {
                let keepers = state.durables.iter().filter(|(_, patterns)| covers(patterns, &key));
                for name in keepers.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
                    state.store(message.clone(), Origin::Durable(name));
                }
                let silent = self.plant == Plant::Forgets && state.dice.random_bool(0.2);
                state.pass(
                    &message,
                    |source| matches!(source, Source::Topic(patterns) if covers(patterns, &key) && !silent),
                );
            }
        }
        drop(state);
        self.changed[changed].iter().for_each(Notify::notify_waiters);
        Ok(())
    }

    pub(super) fn join(&self, process: u32, source: Source) -> u64 {
        let mut state = self.lock();
        if let Source::Durable(name, patterns) = &source {
            state.durables.insert(name.clone(), patterns.clone());
        }
        state.last += 1;
        let id = state.last;
        state.readers.insert(id, Reader { process, source, gap: false });
        id
    }

    pub(super) fn leave(&self, reader: u64) {
        let mut state = self.lock();
        state.readers.remove(&reader);
        state.boxes.remove(&reader);
    }

    /// What `reader` gets now, any of what is there; else when to look again.
    pub(super) fn take(&self, reader: u64) -> std::result::Result<Taken, Option<Instant>> {
        let now = Instant::now();
        let mut state = self.lock();
        let state = &mut *state;
        let down = &state.down;
        let Some(known) = state.readers.get_mut(&reader).filter(|known| !down.contains(&known.process))
        else {
            return Err(None);
        };
        if std::mem::take(&mut known.gap) {
            return Ok(Taken::Gap);
        }
        let (process, source) = (known.process, known.source.clone());
        if let Some((origin, dead)) = place_of(&source) {
            let ready = state.ready(&origin, dead, now)?;
            let id = ready[state.dice.random_range(0..ready.len())];
            let job = state.jobs.get_mut(&id).ok_or(None)?;
            job.place = Place::InHand(process);
            job.handed += 1;
            let (n, handed, redelivered) = (number(&job.message), job.handed, job.redelivered);
            if !dead {
                let least = state.suspect.entry((process, n)).or_insert(redelivered);
                *least = redelivered.min(*least);
                self.log.note(Event::Handed { n, failed: job.message.failed(), rested: job.rested });
            }
            return Ok(Taken::Job { id, handed, message: job.message.clone(), redelivered });
        }
        let State { dice, calls, boxes, .. } = state;
        match &source {
            Source::Service(service) => {
                calls.retain(|_, (_, _, expires)| *expires > now);
                let ready: Vec<u64> =
                    calls.iter().filter(|(_, (to, ..))| to == service).map(|(id, _)| *id).collect();
                if ready.is_empty() {
                    return Err(None);
                }
                let id = ready[dice.random_range(0..ready.len())];
                let (_, message, expires) = calls.remove(&id).ok_or(None)?;
                Ok(Taken::Other(message.with_ttl(expires - now)))
            }
            _ => match boxes.get_mut(&reader) {
                Some(waiting) if !waiting.is_empty() => Ok(Taken::Other(waiting.remove(0))),
                _ => Err(None),
            },
        }
    }

    /// Ends a delivery of a job, if it is still the last one.
    pub(super) fn settle(&self, id: u64, handed: u32, how: impl FnOnce(Job) -> Then) -> bool {
        let mut state = self.lock();
        let mine = state
            .jobs
            .get(&id)
            .is_some_and(|job| job.handed == handed && matches!(job.place, Place::InHand(_)));
        if mine && let Some(job) = state.jobs.remove(&id) {
            let before = job.clone();
            match how(job) {
                Then::Stays(job) => drop(state.jobs.insert(id, job)),
                Then::Acked => state.acked.push((Instant::now(), id, before)),
                Then::Goes => {}
            }
        }
        drop(state);
        self.changed[0].notify_waiters();
        mine
    }

    /// Whether job `n` surely came to `process` from a consumer that died.
    pub(super) fn is_suspect(&self, process: u32, n: u32) -> bool {
        self.lock().suspect.get(&(process, n)).is_some_and(|least| *least > 0)
    }

    /// Nothing goes wrong any more.
    pub(super) fn calm(&self) {
        let mut state = self.lock();
        state.calm = true;
        let down: Vec<u32> = state.down.iter().copied().collect();
        drop(state);
        for process in down {
            self.log.note(Event::Up { by: process });
            self.mend(process);
        }
    }

    /// How much is in the hands of `process`.
    pub(super) fn in_hand(&self, process: Option<u32>) -> usize {
        let state = self.lock();
        let held = |job: &&Job| match job.place {
            Place::InHand(by) => process.is_none_or(|process| process == by),
            _ => false,
        };
        state.jobs.values().filter(held).count()
    }

    /// Resolves when `process` is dead.
    pub(super) async fn death(&self, process: u32) {
        loop {
            let died = self.died.notified();
            tokio::pin!(died);
            died.as_mut().enable();
            if !self.lives(process).0 {
                return;
            }
            died.await;
        }
    }

    /// A process dies: what it had comes again.
    pub(super) fn kill(&self, process: u32) {
        let mut state = self.lock();
        if !state.dead.insert(process) {
            return;
        }
        self.log.note(Event::Kill { by: process });
        state.readers.retain(|_, reader| reader.process != process);
        state.requeue(|by| by == process);
        drop(state);
        self.died.notify_waiters();
        self.all_changed();
    }

    /// The connection of a process breaks; `requeue`: what it had in hand comes again.
    pub(super) fn cut(&self, process: u32, requeue: bool) {
        let mut state = self.lock();
        state.down.insert(process);
        if requeue {
            state.requeue(|by| by == process);
        }
        let lost: Vec<u64> = state.readers_of(|reader| reader.process == process);
        for id in lost {
            state.boxes.remove(&id);
        }
        drop(state);
        self.all_changed();
    }

    /// The connection is there again. Replies and control messages may be missing.
    pub(super) fn mend(&self, process: u32) {
        let mut state = self.lock();
        state.down.remove(&process);
        for reader in state.readers.values_mut().filter(|reader| reader.process == process) {
            reader.gap |= may_miss(&reader.source);
        }
        drop(state);
        self.all_changed();
    }

    /// The broker dies: calls and replies are lost, what is in hand comes again, and so may what was just acknowledged.
    pub(super) fn crash(&self) {
        self.log.note(Event::Crash);
        let mut state = self.lock();
        state.calls.clear();
        state.boxes.clear();
        state.requeue(|_| true);
        for reader in state.readers.values_mut() {
            reader.gap |= may_miss(&reader.source);
        }
        for (at, id, mut job) in std::mem::take(&mut state.acked) {
            if at.elapsed() < RECENT && state.dice.random_bool(0.5) {
                self.log.note(Event::Undone { n: number(&job.message) });
                (job.place, job.redelivered) = (Place::Ready, job.redelivered + 1);
                state.jobs.insert(id, job);
            }
        }
        drop(state);
        self.all_changed();
    }
}

fn covers(patterns: &[Pattern], key: &Key) -> bool {
    patterns.iter().any(|pattern| pattern.matches(key))
}

/// Whether what is sent to `source` is lost when nobody is connected.
fn may_miss(source: &Source) -> bool {
    matches!(source, Source::Inbox(_) | Source::Control(_) | Source::Topic(_))
}
