//! Streams and their entries: what is consumed at least once.

use std::{
    collections::HashSet,
    fmt,
    str::FromStr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use commissaire::{Address, Headers, Key, Message, Origin, Result, Source, envelope, header};
use redis::Value;

use crate::{
    keys::Keys,
    value::{bytes, items, text, two},
};

/// The id of an entry. Ids grow with time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct EntryId {
    millis: u64,
    number: u64,
}

/// One entry in this process's hands.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) id: EntryId,
    pub(crate) raw: Bytes,
    pub(crate) redelivered: u32,
}

/// One stream that this process consumes.
#[derive(Debug)]
pub(crate) struct Stream {
    name: String,
    key: String,
    delayed: String,
    bodies: String,
    dead: String,
    origin: Origin,
    /// Where its messages go that are brought back, if it holds dead letters.
    source: Option<String>,
    /// The address that messages here have which cannot be read.
    address: Option<Address>,
    /// Name and patterns of a durable subscription.
    pub(crate) binding: Option<(String, Mutex<String>)>,
    hand: Mutex<Hand>,
    /// This process may hold entries there that its reader does not know of.
    looks_back: AtomicBool,
    /// It was there when it was last looked for.
    verified: AtomicBool,
}

/// What is with consumers, or on its way to or from them.
#[derive(Debug, Default)]
struct Hand {
    held: HashSet<EntryId>,
    /// How many answers are on their way that may name what is settled meanwhile.
    looks: usize,
    /// What was settled since.
    settled: HashSet<EntryId>,
}

/// An answer is on its way that names entries which are this process's already. While it lives, what is settled is
/// remembered, so that an old answer does not hand it out again.
#[derive(Debug)]
pub(crate) struct Look(Arc<Stream>);

impl Drop for Look {
    fn drop(&mut self) {
        let mut hand = self.0.hand();
        hand.looks -= 1;
        if hand.looks == 0 {
            hand.settled = HashSet::new();
        }
    }
}

impl Stream {
    /// The name of the one group of each stream.
    pub(crate) const GROUP: &'static str = "g";

    /// The stream behind `source`, if a stream is behind it.
    pub(crate) fn of(source: &Source, keys: &Keys) -> Option<Self> {
        let dead = |key: &str| format!("{key}:d");
        let (key, dead, binding) = match source {
            Source::Queue(queue) => {
                let key = keys.queue(queue);
                (key.clone(), dead(&key), None)
            }
            Source::Durable(name, patterns) => {
                let key = keys.durable(name.as_str());
                let patterns: Vec<&str> = patterns.iter().map(commissaire::Pattern::as_str).collect();
                (key.clone(), dead(&key), Some((name.to_string(), Mutex::new(patterns.join(" ")))))
            }
            // A dead letter that is refused again stays one.
            Source::DeadLetters(origin) => (keys.dead(origin), keys.dead(origin), None),
            _ => return None,
        };
        let origin = match source {
            Source::Queue(queue) => Origin::Queue(queue.clone()),
            Source::Durable(name, _) => Origin::Durable(name.clone()),
            Source::DeadLetters(origin) => origin.clone(),
            _ => return None,
        };
        let home = match (source, &origin) {
            (Source::DeadLetters(_), Origin::Queue(queue)) => Some(keys.queue(queue)),
            (Source::DeadLetters(_), Origin::Durable(name)) => Some(keys.durable(name.as_str())),
            _ => None,
        };
        let address = match &origin {
            Origin::Queue(queue) => Some(Address::Queue(queue.clone())),
            Origin::Durable(name) => Key::new(name.as_str()).ok().map(Address::Topic),
        };
        Some(Self {
            name: match source {
                Source::Durable(name, _) => format!("durable {name}"),
                other => other.to_string(),
            },
            delayed: format!("{key}:z"),
            bodies: format!("{key}:b"),
            key,
            dead,
            origin,
            source: home,
            address,
            binding,
            hand: Mutex::default(),
            looks_back: AtomicBool::new(true),
            verified: AtomicBool::new(true),
        })
    }

    /// What it is, for people.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    /// Ids by the time when they are due.
    pub(crate) fn delayed(&self) -> &str {
        &self.delayed
    }

    /// Messages by the ids in `delayed`.
    pub(crate) fn bodies(&self) -> &str {
        &self.bodies
    }

    /// Where its dead letters go.
    pub(crate) fn dead(&self) -> &str {
        &self.dead
    }

    /// Where its dead letters come from.
    pub(crate) fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Where its messages go that are brought back; `None` where there are no dead letters.
    pub(crate) fn source(&self) -> Option<&str> {
        self.source.as_deref()
    }

    /// The name of the durable subscription, `""` if it is none.
    pub(crate) fn durable(&self) -> &str {
        self.binding.as_ref().map_or("", |(name, _)| name)
    }

    /// Whether it was there when it was last looked for.
    pub(crate) fn is_verified(&self) -> bool {
        self.verified.load(Ordering::Acquire)
    }

    /// Whether its reader is to look for what this process holds there already: at first it is, for an earlier
    /// subscription may have lost something with a connection.
    pub(crate) fn looks_back(&self) -> bool {
        self.looks_back.load(Ordering::Acquire)
    }

    /// Says whether it is.
    pub(crate) fn look_back(&self, wanted: bool) {
        self.looks_back.store(wanted, Ordering::Release);
    }

    /// Notes whether it is there; whether that is news.
    pub(crate) fn verify(&self, there: bool) -> bool {
        self.verified.swap(there, Ordering::AcqRel) != there
    }

    /// To be held while the server is asked for entries that may be in hand already.
    pub(crate) fn look(self: &Arc<Self>) -> Look {
        self.hand().looks += 1;
        Look(self.clone())
    }

    /// Notes that an entry is in hand; `false` when it was already, or was settled while the answer that names it was
    /// on its way.
    pub(crate) fn hold(&self, id: EntryId) -> bool {
        let mut hand = self.hand();
        !hand.settled.contains(&id) && hand.held.insert(id)
    }

    /// An entry is in hand no longer, for it was settled or given back.
    pub(crate) fn let_go(&self, id: EntryId, settled: bool) {
        let mut hand = self.hand();
        hand.held.remove(&id);
        if settled && hand.looks > 0 {
            hand.settled.insert(id);
        }
    }

    /// All that is in hand.
    pub(crate) fn held(&self) -> Vec<EntryId> {
        self.hand().held.iter().copied().collect()
    }

    pub(crate) fn holds(&self) -> usize {
        self.hand().held.len()
    }

    /// What cannot be read, as a dead letter: its bytes as the body, as far as they fit.
    pub(crate) fn unreadable(&self, raw: &Bytes) -> Option<Vec<u8>> {
        let mut headers = Headers::default();
        headers.set(header::VERSION, "1").ok()?;
        headers.set(header::DEAD, "malformed").ok()?;
        let body = raw.slice(..raw.len().min(commissaire::MAX_MESSAGE - 256));
        let message = Message::from_parts(self.address.clone()?, headers, body).ok()?;
        Some(envelope::encode(&message.with_origin(&self.origin)))
    }

    fn hand(&self) -> MutexGuard<'_, Hand> {
        self.hand.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    /// `[id, [name, value, …]]`; an entry that was deleted has no fields and is none.
    pub(crate) fn read(value: Value) -> Option<Self> {
        let (id, fields) = two(value)?;
        let id = text(id)?.parse().ok()?;
        if matches!(fields, Value::Nil) {
            return None;
        }
        let mut fields = items(fields).into_iter();
        let mut raw = Bytes::new();
        while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
            if bytes(name).is_some_and(|name| name == b"m") {
                raw = bytes(value).unwrap_or_default().into();
            }
        }
        Some(Self { id, raw, redelivered: 0 })
    }

    /// The message in it.
    pub(crate) fn message(&self) -> Result<Message> {
        envelope::decode(self.raw.clone())
    }
}

impl FromStr for EntryId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (millis, number) = text.split_once('-').ok_or(())?;
        Ok(Self { millis: millis.parse().map_err(drop)?, number: number.parse().map_err(drop)? })
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.millis, self.number)
    }
}
