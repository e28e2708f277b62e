//! The routing table of the exchange, as of when it was last read.

use std::collections::{BTreeSet, HashSet};

use commissaire::{Key, Pattern};
use redis::Value;

use crate::{
    names::{Names, kombu_covers},
    value::{bytes, int, items, text},
};

/// Who wants what.
#[derive(Debug, Default)]
pub(crate) struct Bindings {
    /// What changes whenever one of ours changes it; Kombu programs do not write it.
    pub(crate) version: Vec<u8>,
    /// How many lines it had.
    pub(crate) lines: i64,
    all: Vec<Binding>,
}

#[derive(Debug)]
struct Binding {
    queue: String,
    bound_to: String,
    wants: Wants,
    /// A program of ours made it.
    ours: bool,
}

/// What a queue wants to get.
#[derive(Debug)]
enum Wants {
    /// As the contract says: a subscription of ours.
    Ours(Pattern),
    /// As Kombu matches a pattern.
    Kombu(String),
    /// This key.
    Exactly(String),
}

impl Bindings {
    /// The answers to `GET` of the version, `SMEMBERS`, and `HKEYS` of the lines that we made. A line that cannot be read
    /// binds nothing.
    pub(crate) fn read(names: &Names, version: Value, members: Value, made: Value) -> Self {
        let members: Vec<String> = items(members).into_iter().filter_map(text).collect();
        let lines = members.len() as i64;
        let made: HashSet<String> = items(made).into_iter().filter_map(text).collect();
        let read = |member: &String| Binding::read(names, member, made.contains(member));
        let all = members.iter().filter_map(read).collect();
        Self { version: bytes(version).unwrap_or_default(), lines, all }
    }

    /// The queues that want an event with `key`, each once: but for those of calls and jobs, which are none.
    pub(crate) fn events(&self, names: &Names, key: &Key) -> BTreeSet<&str> {
        let (jobs, calls) = (names.queue(key), key.service().map(|service| names.service(&service)).ok());
        self.wanting(key).filter(|queue| *queue != jobs && Some(*queue) != calls.as_deref()).collect()
    }

    /// The queues of Kombu programs that want what goes to `key`, each once.
    pub(crate) fn foreign(&self, names: &Names, key: &Key) -> BTreeSet<&str> {
        self.events(names, key).into_iter().filter(|queue| !names.hears(queue)).collect()
    }

    /// The queues of Kombu programs that calls to `key` go to, each once. One that ours made is not among them, though it
    /// may be there without an instance.
    pub(crate) fn foreign_calls(&self, names: &Names, key: &Key) -> BTreeSet<&str> {
        let jobs = names.queue(key);
        let theirs = self.all.iter().filter(|binding| !binding.ours && binding.wants(key));
        theirs.map(|binding| &*binding.queue).filter(|queue| !names.hears(queue) && *queue != jobs).collect()
    }

    /// Whether `queue` is bound to anything.
    pub(crate) fn has(&self, queue: &str) -> bool {
        self.all.iter().any(|binding| binding.queue == queue)
    }

    /// All queues, each with what it is bound to.
    pub(crate) fn queues(&self) -> impl Iterator<Item = (&str, &str)> {
        self.all.iter().map(|binding| (&*binding.queue, &*binding.bound_to))
    }

    fn wanting(&self, key: &Key) -> impl Iterator<Item = &str> {
        self.all.iter().filter(|binding| binding.wants(key)).map(|binding| &*binding.queue)
    }

    /// The queues that a message comes back to that a Kombu program had from this exchange.
    pub(crate) fn back(&self, key: &str) -> BTreeSet<&str> {
        let wants = |binding: &&Binding| match &binding.wants {
            Wants::Ours(pattern) => Key::new(key).is_ok_and(|key| pattern.matches(&key)),
            Wants::Kombu(pattern) => kombu_covers(pattern, key),
            Wants::Exactly(wanted) => wanted == key,
        };
        self.all.iter().filter(wants).map(|binding| &*binding.queue).collect()
    }
}

impl Binding {
    fn read(names: &Names, member: &str, ours: bool) -> Option<Self> {
        let mut parts = member.split(names.layout().sep.as_str());
        let (bound_to, regex, queue) = (parts.next()?, parts.next()?, parts.next()?);
        let wants = if names.hears(queue) {
            Wants::Ours(Pattern::new(bound_to).ok()?)
        } else if regex.is_empty() {
            Wants::Exactly(bound_to.to_owned())
        } else {
            Wants::Kombu(bound_to.to_owned())
        };
        Some(Self { queue: queue.to_owned(), bound_to: bound_to.to_owned(), wants, ours })
    }

    fn wants(&self, key: &Key) -> bool {
        match &self.wants {
            Wants::Ours(pattern) => pattern.matches(key),
            Wants::Kombu(pattern) => kombu_covers(pattern, key.as_str()),
            Wants::Exactly(wanted) => wanted == key.as_str(),
        }
    }
}

/// Whether an answer says that the table is another by now.
pub(crate) fn is_stale(answer: &Value) -> bool {
    int(answer) == Some(0)
}
