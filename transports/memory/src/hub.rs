//! The hub: all lines of one memory bus, and who draws from them.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use commissaire::{Address, Error, ErrorKind, Inbox, Key, Message, Origin, Pattern, Result, Source, Token};

use crate::line::{Kind, Line};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Hub {
    lines: Mutex<Lines>,
}

#[derive(Debug, Default)]
struct Lines {
    services: HashMap<Key, Arc<Line>>,
    queues: HashMap<Key, Arc<Line>>,
    durables: HashMap<Token, (Vec<Pattern>, Arc<Line>)>,
    dead: HashMap<Origin, Arc<Line>>,
    topics: HashMap<u64, (Vec<Pattern>, Arc<Line>)>,
    controls: HashMap<Key, HashMap<u64, Arc<Line>>>,
    inboxes: HashMap<Inbox, Arc<Line>>,
    last: u64,
}

/// A consumer's line and, for lines of its own, their number; given back with [`Hub::leave`].
#[derive(Debug)]
pub(crate) struct Seat {
    pub(crate) line: Arc<Line>,
    pub(crate) source: Source,
    number: u64,
}

impl Seat {
    /// Where this seat's deliveries become dead letters of; `None` when they need no settling or are dead already.
    pub(crate) fn origin(&self) -> Option<Origin> {
        match &self.source {
            Source::Queue(key) => Some(Origin::Queue(key.clone())),
            Source::Durable(name, _) => Some(Origin::Durable(name.clone())),
            _ => None,
        }
    }

    /// Whether deliveries of this seat must be settled.
    pub(crate) fn settles(&self) -> bool {
        matches!(self.source, Source::Queue(_) | Source::Durable(..) | Source::DeadLetters(_))
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
                    lines.durables.iter().filter(|(_, (patterns, _))| covers(patterns)).collect();
                for (name, (_, line)) in &durable {
                    full(line, &message, || format!("durable subscription {name}"))?;
                }
                let passing =
                    lines.topics.values().filter(|(patterns, _)| covers(patterns)).map(|(_, line)| line);
                for line in durable.iter().map(|(_, (_, line))| line).chain(passing) {
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

    /// Takes a seat at the line of `source`, which is made if need be.
    pub(crate) fn join(&self, source: Source) -> Result<Seat> {
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
                let made = || (patterns.clone(), Arc::new(Line::new(Kind::Stored)));
                let (known, line) = lines.durables.entry(name.clone()).or_insert_with(made);
                known.clone_from(patterns);
                line.clone()
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
            Source::Queue(_) | Source::Durable(..) | Source::DeadLetters(_) => {}
        }
    }

    /// The dead letters of `origin`.
    pub(crate) fn dead_letters(&self, origin: &Origin) -> Arc<Line> {
        self.lock().dead(origin)
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
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
