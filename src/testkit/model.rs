//! What must come of a [`Program`](super::program::Program), by the contract alone: pure data.

use std::collections::{BTreeMap, BTreeSet};

use super::program::{End, Letter, Rites, Step};
use crate::{
    address::{Address, Key, Origin, Token},
    pattern::Pattern,
    subscription::Source,
};

/// The history of a program, in a form that does not depend on what the contract leaves open.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Account {
    /// What became of each message in each queue and durable subscription.
    pub(super) stored: BTreeMap<String, BTreeMap<u32, Fate>>,
    /// What each ephemeral subscription heard, in the order of numbers; by the number of its life.
    pub(super) heard: BTreeMap<usize, Vec<u32>>,
    /// What lay among the dead letters at each look: the message, and how many of its runs had failed.
    pub(super) graves: Vec<(String, BTreeMap<u32, u32>)>,
}

/// What became of one message in one place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Fate {
    /// Each delivery: which run it was said to be, and how often the message had been brought back.
    pub(super) runs: Vec<(u32, u32)>,
    /// How it ended, if it did.
    pub(super) end: Option<End>,
}

/// The state of a bus that keeps the contract.
#[derive(Debug, Default)]
pub(super) struct Model {
    account: Account,
    letters: BTreeMap<u32, Letter>,
    /// What is not settled for good, by its place.
    left: BTreeMap<String, BTreeSet<u32>>,
    /// What is dead.
    dead: BTreeMap<String, BTreeMap<u32, u32>>,
    durables: BTreeMap<Token, Vec<Pattern>>,
    slots: BTreeMap<usize, Slot>,
    /// How many lives of subscriptions began.
    lives: usize,
}

#[derive(Debug)]
struct Slot {
    life: usize,
    by: usize,
    source: Source,
}

impl Model {
    /// Takes one step.
    pub(super) fn step(&mut self, step: &Step) {
        match step {
            Step::Publish { letter, .. } => self.publish(letter),
            Step::Subscribe { by, slot, source, .. } => self.subscribe(*by, *slot, source),
            Step::Drain { origin } => self.drain(origin),
            Step::Exhume { origin, then } => self.exhume(origin, *then),
            Step::Close { slot } | Step::Drop { slot } => drop(self.slots.remove(slot)),
            Step::Reopen { by } => self.slots.retain(|_, slot| slot.by != *by),
            // They change when something comes, and to whom; not what.
            Step::Take { .. } | Step::Hear { .. } | Step::Restart => {}
        }
    }

    /// What has come of it so far.
    pub(super) fn account(&self) -> &Account {
        &self.account
    }

    /// What the messages in `origin` come to if it is drained now.
    pub(super) fn drained(&self, origin: &Origin) -> BTreeMap<u32, Fate> {
        let name = origin.to_string();
        let mut fates = self.account.stored.get(&name).cloned().unwrap_or_default();
        for n in self.left.get(&name).into_iter().flatten() {
            run(&self.letters[n], fates.entry(*n).or_default());
        }
        fates
    }

    /// What to subscribe to in order to drain `origin`, if it is there.
    pub(super) fn source(&self, origin: &Origin) -> Option<Source> {
        match origin {
            Origin::Queue(key) => Some(Source::Queue(key.clone())),
            Origin::Durable(name) => {
                self.durables.get(name).map(|patterns| Source::Durable(name.clone(), patterns.clone()))
            }
        }
    }

    fn publish(&mut self, letter: &Letter) {
        self.letters.insert(letter.n, letter.clone());
        let mut store = |origin: Origin| {
            self.left.entry(origin.to_string()).or_default().insert(letter.n);
        };
        match &letter.to {
            Address::Queue(key) => store(Origin::Queue(key.clone())),
            Address::Topic(key) => {
                for (name, patterns) in &self.durables {
                    if covers(patterns, key) {
                        store(Origin::Durable(name.clone()));
                    }
                }
                for slot in self.slots.values() {
                    if matches!(&slot.source, Source::Topic(patterns) if covers(patterns, key)) {
                        self.account.heard.entry(slot.life).or_default().push(letter.n);
                    }
                }
            }
            _ => {}
        }
    }

    fn subscribe(&mut self, by: usize, slot: usize, source: &Source) {
        if self.slots.contains_key(&slot) {
            return;
        }
        self.lives += 1;
        match source {
            Source::Durable(name, patterns) => drop(self.durables.insert(name.clone(), patterns.clone())),
            Source::Topic(_) => drop(self.account.heard.insert(self.lives, Vec::new())),
            _ => {}
        }
        self.slots.insert(slot, Slot { life: self.lives, by, source: source.clone() });
    }

    /// Runs all that is left to its end. A durable subscription that nobody has made is not there.
    fn drain(&mut self, origin: &Origin) {
        let name = origin.to_string();
        let fates = self.drained(origin);
        for n in self.left.remove(&name).into_iter().flatten() {
            if let Some(Fate { runs, end: Some(End::Term) }) = fates.get(&n) {
                let failed = runs.last().map_or(0, |(attempt, _)| *attempt);
                self.dead.entry(name.clone()).or_default().insert(n, failed);
            }
        }
        if !fates.is_empty() {
            self.account.stored.insert(name, fates);
        }
    }

    fn exhume(&mut self, origin: &Origin, then: Rites) {
        self.drain(origin);
        if self.source(origin).is_none() {
            return;
        }
        let name = origin.to_string();
        let dead = self.dead.entry(name.clone()).or_default();
        self.account.graves.push((name.clone(), dead.clone()));
        if then == Rites::Leave {
            return;
        }
        for n in std::mem::take(dead).into_keys() {
            if then == Rites::Redrive {
                self.left.entry(name.clone()).or_default().insert(n);
            }
        }
    }
}

/// Runs a message until its end.
fn run(letter: &Letter, fate: &mut Fate) {
    let (mut attempt, redriven) = match (fate.runs.last(), fate.end.take()) {
        (None, _) => (1, 0),
        // It was dead and was brought back.
        (Some((_, redriven)), Some(_)) => (1, redriven + 1),
        (Some((attempt, redriven)), None) => (*attempt, *redriven),
    };
    while fate.end.is_none() {
        let verdict = letter.verdict(fate.runs.len());
        fate.runs.push((attempt, redriven));
        match verdict.end {
            End::Nack => attempt += 1,
            End::Drop => {}
            end @ (End::Ack | End::Term) => fate.end = Some(end),
        }
    }
}

fn covers(patterns: &[Pattern], key: &Key) -> bool {
    patterns.iter().any(|pattern| pattern.matches(key))
}
