//! What the model of a broker holds.

use std::collections::{BTreeMap, BTreeSet};

use rand::{SeedableRng, rngs::StdRng};
use tokio::time::Instant;

use crate::{address::Key, message::Message, subscription::Source};

#[derive(Debug)]
pub(super) struct State {
    pub(super) dice: StdRng,
    /// Nothing goes wrong any more.
    pub(super) calm: bool,
    pub(super) jobs: BTreeMap<u64, Job>,
    pub(super) calls: BTreeMap<u64, (Key, Message, Instant)>,
    /// What waits for one subscription: control messages and replies.
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

/// A stored message.
#[derive(Debug, Clone)]
pub(super) struct Job {
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

    /// Puts `message` into the boxes of those who are connected.
    pub(super) fn pass(&mut self, message: &Message, to: impl Fn(&Source) -> bool) {
        let down = self.down.clone();
        for id in self.readers_of(|reader| to(&reader.source) && !down.contains(&reader.process)) {
            self.boxes.entry(id).or_default().push(message.clone());
        }
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

    /// It rests as `message` until `due`.
    pub(super) fn rests(mut self, message: Message, due: Instant) -> Self {
        (self.message, self.redelivered, self.place) = (message, 0, Place::Resting(due));
        self.rested += 1;
        self
    }
}

/// The number that a job or a call was given in its parameters.
pub(super) fn number(message: &Message) -> u32 {
    let text = String::from_utf8_lossy(message.body());
    let digits = text.split("\"n\":").nth(1).unwrap_or_default();
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    digits[..end].parse().unwrap_or(0)
}
