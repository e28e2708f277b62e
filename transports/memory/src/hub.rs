//! The hub: all lines of one memory bus, and who draws from them.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use commissaire::{Address, Error, ErrorKind, Inbox, Key, Message, Origin, Pattern, Result, Source, Token};
use tokio::time::Instant;

use crate::{
    ledger::Shelf,
    line::{Kind, Line},
};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Hub {
    lines: Mutex<Lines>,
    pub(crate) book: Shelf,
}

#[derive(Debug, Default)]
pub(crate) struct Lines {
    pub(crate) services: HashMap<Key, Arc<Line>>,
    pub(crate) queues: HashMap<Key, Arc<Line>>,
    pub(crate) durables: HashMap<Token, Durable>,
    pub(crate) dead: HashMap<Origin, Arc<Line>>,
    topics: HashMap<u64, (Vec<Pattern>, Arc<Line>)>,
    controls: HashMap<Key, HashMap<u64, Arc<Line>>>,
    inboxes: HashMap<Inbox, Arc<Line>>,
    last: u64,
}

/// A durable subscription.
#[derive(Debug)]
pub(crate) struct Durable {
    pub(crate) patterns: Vec<Pattern>,
    pub(crate) line: Arc<Line>,
    pub(crate) expiry: Duration,
    /// When its last reader left, or it was made.
    since: Instant,
}

impl Durable {
    fn new() -> Self {
        let (line, since) = (Arc::new(Line::new(Kind::Stored)), Instant::now());
        Self { patterns: Vec::new(), line, expiry: Duration::ZERO, since }
    }

    /// For how long nobody has read it.
    pub(crate) fn idle(&self) -> Duration {
        if self.line.has_consumers() { Duration::ZERO } else { self.since.elapsed() }
    }

    /// Whether nobody reads it, and has not for `idle`.
    fn is_idle_for(&self, idle: Duration) -> bool {
        !self.line.has_consumers() && self.since.elapsed() >= idle
    }
}

/// A consumer's line and, for lines of its own, their number; given back with [`Hub::leave`].
#[derive(Debug)]
pub(crate) struct Seat {
    pub(crate) line: Arc<Line>,
    pub(crate) source: Source,
    number: u64,
}

impl Seat {
    /// Where this seat's deliveries die, or have died; `None` when they need no settling.
    pub(crate) fn origin(&self) -> Option<Origin> {
        match &self.source {
            Source::Queue(key) => Some(Origin::Queue(key.clone())),
            Source::Durable(name, _) => Some(Origin::Durable(name.clone())),
            Source::DeadLetters(origin) => Some(origin.clone()),
            _ => None,
        }
    }

    /// Whether its deliveries are dead letters.
    pub(crate) fn is_dead(&self) -> bool {
        matches!(self.source, Source::DeadLetters(_))
    }
}

impl Hub {
    /// Puts `message` into every line that it belongs to, or into none.
    pub(crate) fn publish(&self, message: Message) -> Result<()> {
        let mut lines = self.lock();
        match message.address().clone() {
            Address::Service(key) => {
                let service = key.service()?;
                let line = lines.services.get(&service).filter(|line| line.has_consumers());
                let line = line.ok_or_else(|| Error::no_responders(&service))?;
                if !line.has_room(&message) {
                    return Err(Error::new(
                        ErrorKind::Busy,
                        format!("service {service} has too many calls waiting"),
                    ));
                }
                line.push(message);
            }
            Address::Queue(key) => {
                let line = lines.queue(&key);
                full(&line, &message, || format!("queue {key}"))?;
                line.push(message);
            }
            Address::Topic(key) => {
                let covers = |patterns: &[Pattern]| patterns.iter().any(|pattern| pattern.matches(&key));
                let durable: Vec<_> =
                    lines.durables.iter().filter(|(_, durable)| covers(&durable.patterns)).collect();
                for (name, durable) in &durable {
                    full(&durable.line, &message, || format!("durable subscription {name}"))?;
                }
                let passing =
                    lines.topics.values().filter(|(patterns, _)| covers(patterns)).map(|(_, line)| line);
                for line in durable.iter().map(|(_, durable)| &durable.line).chain(passing) {
                    line.push(message.clone());
                }
            }
            Address::Control(key) => {
                for line in lines.controls.get(&key).into_iter().flat_map(HashMap::values) {
                    line.push(message.clone());
                }
            }
            Address::Inbox(inbox) => {
                if let Some(line) = lines.inboxes.get(&inbox) {
                    line.push(message);
                }
            }
        }
        Ok(())
    }

    /// Takes a seat at the line of `source`, which is made if need be. A durable subscription may be removed after
    /// `expiry` without a reader.
    pub(crate) fn join(&self, source: Source, expiry: Duration) -> Result<Seat> {
        let mut lines = self.lock();
        lines.last += 1;
        let number = lines.last;
        let passing = || Arc::new(Line::new(Kind::Passing));
        let line = match &source {
            Source::Service(key) => {
                lines.services.entry(key.clone()).or_insert_with(|| Arc::new(Line::new(Kind::Calls))).clone()
            }
            Source::Queue(key) => lines.queue(key),
            Source::Durable(name, patterns) => {
                let durable = lines.durables.entry(name.clone()).or_insert_with(Durable::new);
                durable.patterns.clone_from(patterns);
                durable.expiry = expiry;
                durable.line.clone()
            }
            Source::Topic(patterns) => {
                let line = passing();
                lines.topics.insert(number, (patterns.clone(), line.clone()));
                line
            }
            Source::Control(key) => {
                let line = passing();
                lines.controls.entry(key.clone()).or_default().insert(number, line.clone());
                line
            }
            Source::Inbox(inbox) => match lines.inboxes.entry(*inbox) {
                Entry::Vacant(free) => free.insert(passing()).clone(),
                Entry::Occupied(_) => return Err(Error::invalid("an inbox has one reader")),
            },
            Source::DeadLetters(origin) => lines.dead(origin),
        };
        line.join();
        Ok(Seat { line, source, number })
    }

    /// Gives a seat back. Lines that keep nothing end with their last consumer.
    pub(crate) fn leave(&self, seat: &Seat) {
        let mut lines = self.lock();
        seat.line.leave();
        match &seat.source {
            Source::Topic(_) => drop(lines.topics.remove(&seat.number)),
            Source::Control(key) => {
                if let Entry::Occupied(mut all) = lines.controls.entry(key.clone()) {
                    all.get_mut().remove(&seat.number);
                    if all.get().is_empty() {
                        all.remove();
                    }
                }
            }
            Source::Inbox(inbox) => drop(lines.inboxes.remove(inbox)),
            Source::Service(key) => {
                if seat.line.is_idle() {
                    lines.services.remove(key);
                }
            }
            Source::Durable(name, _) => {
                if let Some(durable) = lines.durables.get_mut(name) {
                    durable.since = Instant::now();
                }
            }
            Source::Queue(_) | Source::DeadLetters(_) => {}
        }
    }

    /// Brings a dead letter of `origin` back.
    pub(crate) fn redrive(&self, origin: &Origin, message: Message) -> Result<()> {
        let mut lines = self.lock();
        let line = match origin {
            Origin::Queue(key) => lines.queue(key),
            Origin::Durable(name) => match lines.durables.get(name) {
                Some(durable) => durable.line.clone(),
                None => {
                    return Err(Error::new(
                        ErrorKind::Topology,
                        format!("there is no {origin} to bring it back to: subscribe under that name first"),
                    ));
                }
            },
        };
        full(&line, &message, || origin.to_string())?;
        line.push(message);
        Ok(())
    }

    /// Removes a durable subscription with what it holds, if nobody has read it for `idle`; whether there was one.
    /// Under readers it is made again at once, empty.
    pub(crate) fn remove(&self, name: &Token, idle: Option<Duration>) -> bool {
        let mut lines = self.lock();
        let Entry::Occupied(found) = lines.durables.entry(name.clone()) else { return false };
        if idle.is_some_and(|idle| !found.get().is_idle_for(idle)) {
            return false;
        }
        found.get().line.clear();
        if !found.get().line.has_consumers() {
            found.remove();
        }
        true
    }

    /// The dead letters of `origin`.
    pub(crate) fn dead_letters(&self, origin: &Origin) -> Arc<Line> {
        self.lock().dead(origin)
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lines {
    fn queue(&mut self, key: &Key) -> Arc<Line> {
        self.queues.entry(key.clone()).or_insert_with(|| Arc::new(Line::new(Kind::Stored))).clone()
    }

    fn dead(&mut self, origin: &Origin) -> Arc<Line> {
        self.dead.entry(origin.clone()).or_insert_with(|| Arc::new(Line::new(Kind::Stored))).clone()
    }
}

fn full(line: &Line, message: &Message, what: impl Fn() -> String) -> Result<()> {
    if line.has_room(message) {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Full, format!("{} is full: consume from it, then publish again", what())))
}
