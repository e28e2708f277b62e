//! What the model of a broker holds.

use std::collections::{BTreeMap, BTreeSet};

use rand::{SeedableRng, rngs::StdRng};
use tokio::time::Instant;

use crate::{
    address::{Key, Origin, Token},
    message::Message,
    pattern::Pattern,
    subscription::Source,
};

/// How much waits for an ephemeral subscription at the most.
const ROOM: usize = 4;

#[derive(Debug)]
pub(super) struct State {
    pub(super) dice: StdRng,
    /// Nothing goes wrong any more.
    pub(super) calm: bool,
    pub(super) jobs: BTreeMap<u64, Job>,
    pub(super) durables: BTreeMap<Token, Vec<Pattern>>,
    pub(super) calls: BTreeMap<u64, (Key, Message, Instant)>,
    /// What waits for one subscription: events, control messages and replies.
    pub(super) boxes: BTreeMap<u64, Vec<Message>>,
    pub(super) readers: BTreeMap<u64, Reader>,
    pub(super) dead: BTreeSet<u32>,
    pub(super) down: BTreeSet<u32>,
    pub(super) acked: Vec<(Instant, u64, Job)>,
    /// How suspect a job was at the least whenever a process was handed it.
    pub(super) suspect: BTreeMap<(u32, u32), u32>,
    pub(super) last: u64,
}

/// A subscription as the broker sees it.
#[derive(Debug, Clone)]
pub(super) struct Reader {
    pub(super) process: u32,
    pub(super) source: Source,
    /// Messages may be missing since it looked last.
    pub(super) gap: bool,
}

/// A stored message: a job, or an event for a durable subscription.
#[derive(Debug, Clone)]
pub(super) struct Job {
    /// Where it is stored.
    pub(super) origin: Origin,
    /// It is among the dead letters of that.
    pub(super) dead: bool,
    pub(super) message: Message,
    pub(super) redelivered: u32,
    /// How often it was put to rest after a failed run.
    pub(super) rested: u32,
    pub(super) handed: u32,
    pub(super) place: Place,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Place {
    Ready,
    Resting(Instant),
    InHand(u32),
}

/// What becomes of a job whose delivery is settled.
pub(super) enum Then {
    Stays(Job),
    Acked,
    Goes,
}

/// What a subscription may take.
pub(super) enum Taken {
    Job { id: u64, handed: u32, message: Message, redelivered: u32 },
    Other(Message),
    Gap,
}

impl State {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            dice: StdRng::seed_from_u64(seed),
            calm: false,
            jobs: BTreeMap::new(),
            durables: BTreeMap::new(),
            calls: BTreeMap::new(),
            boxes: BTreeMap::new(),
            readers: BTreeMap::new(),
            dead: BTreeSet::new(),
            down: BTreeSet::new(),
            acked: Vec::new(),
            suspect: BTreeMap::new(),
            last: 0,
        }
    }

    pub(super) fn readers_of(&self, which: impl Fn(&Reader) -> bool) -> Vec<u64> {
        self.readers.iter().filter(|(_, reader)| which(reader)).map(|(id, _)| *id).collect()
    }

    /// Keeps `message` in `origin`.
    pub(super) fn store(&mut self, message: Message, origin: Origin) {
        self.last += 1;
        let job =
            Job { origin, dead: false, message, redelivered: 0, rested: 0, handed: 0, place: Place::Ready };
        self.jobs.insert(self.last, job);
    }

    /// Puts `message` into the boxes of those who are connected.
    pub(super) fn pass(&mut self, message: &Message, to: impl Fn(&Source) -> bool) {
        let down = self.down.clone();
        for id in self.readers_of(|reader| to(&reader.source) && !down.contains(&reader.process)) {
            let waiting = self.boxes.entry(id).or_default();
            if waiting.len() == ROOM
                && let Some(reader) = self.readers.get_mut(&id)
                && matches!(reader.source, Source::Topic(_))
            {
                waiting.clear();
                reader.gap = true;
            }
            waiting.push(message.clone());
        }
    }

    /// All that could be handed to a reader of `origin`, or of its dead letters; else when something is due.
    pub(super) fn ready(
        &self,
        origin: &Origin,
        dead: bool,
        now: Instant,
    ) -> Result<Vec<u64>, Option<Instant>> {
        let mine = || self.jobs.iter().filter(|(_, job)| job.origin == *origin && job.dead == dead);
        let due = |job: &Job| match job.place {
            Place::Ready => true,
            Place::Resting(due) => due <= now,
            Place::InHand(_) => false,
        };
        let ready: Vec<u64> = mine().filter(|(_, job)| due(job)).map(|(id, _)| *id).collect();
        if !ready.is_empty() {
            return Ok(ready);
        }
        let next = mine().filter_map(|(_, job)| match job.place {
            Place::Resting(due) => Some(due),
            _ => None,
        });
        Err(next.min())
    }

    /// How much is not settled for good.
    pub(super) fn left(&self) -> usize {
        self.jobs.values().filter(|job| !job.dead).count()
    }

    /// Whether an event waits for somebody.
    pub(super) fn is_talking(&self) -> bool {
        let topic = |reader: &Reader| matches!(reader.source, Source::Topic(_));
        self.readers.iter().any(|(id, reader)| {
            topic(reader) && (reader.gap || self.boxes.get(id).is_some_and(|waiting| !waiting.is_empty()))
        })
    }

    pub(super) fn requeue(&mut self, whose: impl Fn(u32) -> bool) {
        for job in self.jobs.values_mut() {
            if matches!(job.place, Place::InHand(by) if whose(by)) {
                (job.place, job.redelivered) = (Place::Ready, job.redelivered + 1);
            }
        }
    }
}

impl Job {
    /// It is there again, without a verdict.
    pub(super) fn back(mut self) -> Self {
        self.place = Place::Ready;
        self
    }

    /// It is a dead letter now, as `message`.
    pub(super) fn dies(mut self, message: Message) -> Self {
        (self.message, self.redelivered, self.place, self.dead) = (message, 0, Place::Ready, true);
        self
    }

    /// It is brought back as `message`.
    pub(super) fn returns(mut self, message: Message) -> Self {
        (self.message, self.redelivered, self.place, self.dead) = (message, 0, Place::Ready, false);
        self.rested = 0;
        self
    }

    /// It rests as `message` until `due`.
    pub(super) fn rests(mut self, message: Message, due: Instant) -> Self {
        (self.message, self.redelivered, self.place) = (message, 0, Place::Resting(due));
        self.rested += 1;
        self
    }
}

/// What a reader of `source` takes out of what is stored, and whether that is dead.
pub(super) fn place_of(source: &Source) -> Option<(Origin, bool)> {
    match source {
        Source::Queue(key) => Some((Origin::Queue(key.clone()), false)),
        Source::Durable(name, _) => Some((Origin::Durable(name.clone()), false)),
        Source::DeadLetters(origin) => Some((origin.clone(), true)),
        _ => None,
    }
}

/// The number that a job, an event or a call was given.
pub(super) fn number(message: &Message) -> u32 {
    let text = String::from_utf8_lossy(message.body());
    let digits = text.split("\"n\":").nth(1).unwrap_or_default();
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    digits[..end].parse().unwrap_or(0)
}
