//! What a bridge has carried so far.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use serde_json::{Map, Value};

/// Counters by the word for what was carried, `to` or `back`, and how it ended.
#[derive(Debug, Default)]
pub(super) struct Counters {
    counts: [[[AtomicU64; OUTCOMES.len()]; WAYS.len()]; WHAT.len()],
    /// What was told last.
    told: Mutex<String>,
}

const WHAT: [&str; 4] = ["calls", "replies", "jobs", "events"];
const WAYS: [&str; 2] = ["to", "back"];
const OUTCOMES: [&str; 3] = ["carried", "doubles", "failed"];

/// What is carried.
#[derive(Debug, Clone, Copy)]
pub(super) enum What {
    Calls,
    Replies,
    Jobs,
    Events,
}

/// How that ended: it is on the other bus; it was there already; it is not, as far as is known.
#[derive(Debug, Clone, Copy)]
pub(super) enum Outcome {
    Carried,
    Double,
    Failed,
}

impl Counters {
    /// One more, from the bus of this number.
    pub(super) fn count(&self, what: What, from: usize, outcome: Outcome) {
        self.counts[what as usize][from][outcome as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// All of them, as one line of JSON; nothing when nothing has changed since it was asked last.
    pub(super) fn news(&self) -> Option<String> {
        let line = self.line();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        (*told != line).then(|| told.clone_from(&line))?;
        Some(line)
    }

    /// All of them, as one line of JSON.
    pub(super) fn line(&self) -> String {
        let object = |names: &[&str], of: &dyn Fn(usize) -> Value| -> Value {
            let all: Map<String, Value> =
                names.iter().enumerate().map(|(at, name)| ((*name).to_owned(), of(at))).collect();
            all.into()
        };
        let count = |what: usize, way: usize, at: usize| self.counts[what][way][at].load(Ordering::Relaxed);
        let told =
            object(&WHAT, &|what| object(&WAYS, &|way| object(&OUTCOMES, &|at| count(what, way, at).into())));
        told.to_string()
    }
}
