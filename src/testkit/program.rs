//! Random programs on a bus, of which the contract says what must come of them.
//!
//! What a contract leaves open (who of several consumers gets a message, and when) decides nothing here: each message
//! carries its own fate, so that the runs of it and its end are the same whoever gets it.

use std::{collections::BTreeMap, fmt};

use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::target::{key, patterns, token};
use crate::{
    address::{Address, Key, Origin, Token},
    pattern::Pattern,
    subscription::Source,
};

/// How many places for subscriptions there are, and how many programs at most.
const SLOTS: usize = 6;
const PROGRAMS: usize = 2;
/// Names that a careless mapping would take for one.
const QUEUES: &[&str] = &["jobs.one", "jobs.one_two", "jobs.one-two", "jobs.One"];
const DURABLES: &[&str] = &["keeper", "keep_er", "Keeper"];
const TOPICS: &[&str] = &["n.a", "n.b", "n.a.b", "n.b.a", "n.a.b.c", "m.a", "n.A"];
const PATTERNS: &[&[&str]] = &[
    &["n.#"],
    &["n.*"],
    &["n.a.#"],
    &["n.*.b", "n.#.b"],
    &["#"],
    &["m.a"],
    &["n.b", "n.a", "*.a"],
    &["n.#.c"],
    &["#.a"],
];

/// Steps, one after another.
#[derive(Debug, Clone)]
pub(super) struct Program {
    /// What all that is random is made of, bodies among it.
    pub(super) seed: u64,
    pub(super) steps: Vec<Step>,
}

/// One step. What names nothing that is there does nothing.
#[derive(Debug, Clone)]
pub(super) enum Step {
    /// Program `by` publishes.
    Publish { by: usize, letter: Letter },
    /// Program `by` subscribes in a free slot.
    Subscribe { by: usize, slot: usize, source: Source, prefetch: u16 },
    /// A few of the messages that are there are taken, wherever they come.
    Take { origin: Origin, most: usize },
    /// All that is there is taken until nothing is left.
    Drain { origin: Origin },
    /// All that an ephemeral subscription was to hear is read.
    Hear { slot: usize },
    /// Dead letters are looked at, after all that may still die has died.
    Exhume { origin: Origin, then: Rites },
    /// A subscription is closed, and read to its end.
    Close { slot: usize },
    /// A subscription is dropped with all that it had taken.
    Drop { slot: usize },
    /// A program leaves the bus with work in hand, and joins again.
    Reopen { by: usize },
    /// The broker is started again.
    Restart,
}

/// A message, and what happens to each of its copies.
#[derive(Debug, Clone)]
pub(super) struct Letter {
    pub(super) n: u32,
    pub(super) to: Address,
    pub(super) size: usize,
    /// What becomes of the first delivery, the second, and so on; later ones are acknowledged.
    pub(super) fate: Vec<Verdict>,
}

/// How a delivery is settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) end: End,
    /// It stays in hand first, until it is in the way.
    pub(super) late: bool,
}

/// What a delivery comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Ack,
    Nack,
    Term,
    Drop,
}

/// What is done to dead letters that were looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rites {
    /// They are taken out.
    Ack,
    /// They are brought back to where they died.
    Redrive,
    /// They are left.
    Leave,
}

/// What a bus that runs programs can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Abilities {
    /// Programs come and go on their own.
    pub(super) shared: bool,
    /// Dead letters can be brought back.
    pub(super) redrive: bool,
    /// The broker can be started again.
    pub(super) restart: bool,
    /// A durable subscription can get other patterns, and keeps what it has.
    pub(super) change: bool,
}

impl Program {
    /// The program of this seed.
    pub(super) fn random(seed: u64, can: Abilities) -> Self {
        let mut dice = Dice { random: StdRng::seed_from_u64(seed), can, next: 0, patterns: BTreeMap::new() };
        let length = dice.random.random_range(8..=48);
        let mut steps = Vec::with_capacity(length + 1);
        let mut restarts = 0;
        while steps.len() < length {
            let step = dice.step();
            restarts += usize::from(matches!(step, Step::Restart));
            if restarts <= 1 || !matches!(step, Step::Restart) {
                steps.push(step);
            }
        }
        if can.restart && restarts == 0 {
            steps.insert(dice.random.random_range(1..=length), Step::Restart);
        }
        Self { seed, steps }
    }

    /// All steps, and behind them those that bring everything to an end.
    pub(super) fn whole(&self) -> impl Iterator<Item = Step> {
        let hear = (0..SLOTS).map(|slot| Step::Hear { slot });
        let exhume = origins().map(|origin| Step::Exhume { origin, then: Rites::Ack });
        self.steps.clone().into_iter().chain(exhume).chain(hear)
    }

    /// The bytes of `letter`: its number, and what nothing but the seed and the number make.
    pub(super) fn body(&self, letter: &Letter) -> Vec<u8> {
        let mut random = StdRng::seed_from_u64(self.seed ^ (u64::from(letter.n) << 32));
        let mut body = format!("{:016x} {} ", self.seed, letter.n).into_bytes();
        body.extend((0..letter.size).map(|_| random.random::<u8>()));
        body
    }

    /// The letter that some bytes were made of, and which program sent it.
    pub(super) fn sent(&self, body: &[u8]) -> Option<(usize, &Letter)> {
        let n: u32 = std::str::from_utf8(body.split(|byte| *byte == b' ').nth(1)?).ok()?.parse().ok()?;
        let mut letters = self.steps.iter().filter_map(|step| match step {
            Step::Publish { by, letter } => Some((*by, letter)),
            _ => None,
        });
        letters.find(|(_, letter)| letter.n == n && self.body(letter) == body)
    }
}

impl Letter {
    /// What becomes of delivery number `index`.
    pub(super) fn verdict(&self, index: usize) -> Verdict {
        self.fate.get(index).copied().unwrap_or(Verdict { end: End::Ack, late: false })
    }
}

/// Where messages are stored in these programs.
pub(super) fn origins() -> impl Iterator<Item = Origin> {
    let queues = QUEUES.iter().map(|name| Origin::Queue(key(name)));
    queues.chain(DURABLES.iter().map(|name| Origin::Durable(token(name))))
}

/// Where deliveries of `source` become dead letters of.
pub(super) fn origin_of(source: &Source) -> Option<Origin> {
    match source {
        Source::Queue(key) => Some(Origin::Queue(key.clone())),
        Source::Durable(name, _) => Some(Origin::Durable(name.clone())),
        _ => None,
    }
}

struct Dice {
    random: StdRng,
    can: Abilities,
    next: u32,
    /// Those of each durable subscription, if it cannot get others.
    patterns: BTreeMap<Token, Vec<Pattern>>,
}

impl Dice {
    fn step(&mut self) -> Step {
        let (by, slot) = (self.program(), self.random.random_range(0..SLOTS));
        match self.random.random_range(0..100) {
            0..45 => Step::Publish { by, letter: self.letter() },
            45..63 => {
                Step::Subscribe { by, slot, source: self.source(), prefetch: self.pick(&[1, 1, 2, 3, 8]) }
            }
            63..73 => Step::Take { origin: self.origin(), most: self.random.random_range(1..=4) },
            73..80 => Step::Drain { origin: self.origin() },
            80..83 => Step::Hear { slot },
            83..87 => {
                let rites = [Rites::Ack, Rites::Leave, Rites::Redrive];
                let then = self.pick(if self.can.redrive { &rites } else { &rites[..2] });
                Step::Exhume { origin: self.origin(), then }
            }
            87..91 => Step::Close { slot },
            91..95 => Step::Drop { slot },
            95..98 if self.can.shared => Step::Reopen { by },
            98.. if self.can.restart => Step::Restart,
            _ => Step::Publish { by, letter: self.letter() },
        }
    }

    fn letter(&mut self) -> Letter {
        self.next += 1;
        let to = if self.random.random_bool(0.5) {
            Address::Queue(self.queue())
        } else {
            Address::Topic(key(self.pick(TOPICS)))
        };
        let size = match self.random.random_range(0..40) {
            0 => 70_000,
            1..8 => 0,
            _ => self.random.random_range(1..500),
        };
        let mut fate = Vec::new();
        if self.random.random_bool(0.5) {
            for _ in 0..self.random.random_range(1..=3) {
                let end = self.pick(&[End::Ack, End::Ack, End::Nack, End::Nack, End::Drop, End::Term]);
                fate.push(Verdict { end, late: self.random.random_bool(0.3) });
            }
        }
        Letter { n: self.next, to, size, fate }
    }

    fn source(&mut self) -> Source {
        match self.random.random_range(0..10) {
            0..4 => Source::Queue(self.queue()),
            4..8 => {
                let (name, patterns) = (self.durable(), self.patterns());
                if self.can.change {
                    return Source::Durable(name, patterns);
                }
                let patterns = self.patterns.entry(name.clone()).or_insert(patterns).clone();
                Source::Durable(name, patterns)
            }
            _ => Source::Topic(self.patterns()),
        }
    }

    fn origin(&mut self) -> Origin {
        if self.random.random_bool(0.5) {
            Origin::Queue(self.queue())
        } else {
            Origin::Durable(self.durable())
        }
    }

    fn queue(&mut self) -> Key {
        key(self.pick(QUEUES))
    }

    fn durable(&mut self) -> Token {
        token(self.pick(DURABLES))
    }

    fn patterns(&mut self) -> Vec<Pattern> {
        patterns(self.pick(PATTERNS))
    }

    fn program(&mut self) -> usize {
        if self.can.shared { self.random.random_range(0..PROGRAMS) } else { 0 }
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.random.random_range(0..from.len())]
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.steps {
            writeln!(f, "    {step:?}")?;
        }
        Ok(())
    }
}
