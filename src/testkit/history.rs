//! What happened in a run, and whether the bus kept its word.
//!
//! A run notes every operation as it begins and ends; afterwards [`History::check`] compares what was promised with what
//! was seen, in the way of Jepsen's total-queue: a message whose publishing was acknowledged must be delivered, one that
//! was never tried must not be, and what comes twice must be explained by a fault that was noted.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

/// The history of one run. Messages and calls are numbered by who makes the run; so are consumers.
#[derive(Debug)]
pub struct History {
    began: Instant,
    events: Mutex<Vec<Event>>,
}

/// One thing that happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When, in microseconds since the run began.
    pub at: u64,
    /// What.
    pub what: Seen,
}

/// What can happen. `n` numbers a message or a call, `by` a consumer; the number of the run is `attempt`, microseconds to
/// the deadline are `limit`, and `maybe` says that it may have been executed.
#[allow(missing_docs, reason = "said above, once for all")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Seen {
    /// Publishing begins.
    Publish { n: u64 },
    /// The broker has it.
    Published { n: u64 },
    /// It was certainly not sent.
    Refused { n: u64 },
    /// It may have been sent.
    Unknown { n: u64 },
    /// A consumer got it for the given run.
    Delivered { n: u64, by: u32, attempt: u32 },
    /// A consumer got what nobody published, or with other bytes.
    Foreign { by: u32 },
    /// A handler began to run on it.
    Run { n: u64, by: u32 },
    /// A consumer settled it and the broker knows: never again, or (`Resting`) later, or among the dead letters.
    Acked { n: u64, by: u32 },
    /// See [`Acked`](Self::Acked).
    Resting { n: u64, by: u32 },
    /// See [`Acked`](Self::Acked).
    Buried { n: u64, by: u32 },
    /// Settling it failed: it may come again, or be settled all the same. A retry in doubt is noted before as well.
    Unsettled { n: u64, by: u32 },
    /// A consumer announced that messages may be missing.
    Gap { by: u32 },
    /// A consumer died, with all it had in hand.
    Died { by: u32 },
    /// A call begins, and must be over after so many microseconds.
    Call { n: u64, limit: u64 },
    /// A call was answered.
    Answered { n: u64 },
    /// A call failed; with what it may have done unknown or not.
    Failed { n: u64, maybe: bool },
    /// A service carried a call out.
    Executed { n: u64, by: u32 },
    /// The broker was killed or stopped, or cut off.
    Down,
    /// It is back.
    Up,
}

/// What must hold for a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Every published message is delivered to somebody at last.
    pub complete: bool,
    /// The most runs of a message.
    pub max_attempts: u32,
    /// The most deliveries that one consumer has in hand.
    pub prefetch: u32,
    /// The most times that a handler runs on one message, deaths of consumers apart; for runs with the dedup layer.
    pub runs: Option<u32>,
    /// A consumer sees rising numbers, retries apart.
    pub ordered: bool,
    /// How much later than its limit a call may end.
    pub grace: Duration,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            complete: true,
            max_attempts: u32::MAX,
            prefetch: u32::MAX,
            runs: None,
            ordered: false,
            grace: Duration::from_millis(50),
        }
    }
}

/// What a history shows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Findings {
    /// Messages whose publishing was tried, and those acknowledged, refused and unknown.
    pub tried: u64,
    /// See [`tried`](Self::tried).
    pub published: u64,
    /// See [`tried`](Self::tried).
    pub refused: u64,
    /// See [`tried`](Self::tried).
    pub unknown: u64,
    /// Messages that were delivered at least once.
    pub delivered: u64,
    /// Unknown ones among them.
    pub recovered: u64,
    /// Deliveries more than one a run of a message.
    pub duplicates: u64,
    /// How many duplicates the faults allow: what was in hand when the broker went or a consumer died, and what was
    /// acknowledged within a second before.
    pub explained: u64,
    /// Calls that were begun, answered, failed for sure and failed in doubt.
    pub calls: u64,
    /// See [`calls`](Self::calls).
    pub answered: u64,
    /// See [`calls`](Self::calls).
    pub failed: u64,
    /// See [`calls`](Self::calls).
    pub doubtful: u64,
    /// Every breach of a rule, by its name: how often, and the first few of what it was about.
    pub breaches: BTreeMap<&'static str, Breach>,
}

/// How a rule was broken.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Breach {
    /// How often.
    pub count: u64,
    /// The first few messages, calls or consumers.
    pub about: Vec<u64>,
}

impl Default for History {
    fn default() -> Self {
        Self { began: Instant::now(), events: Mutex::default() }
    }
}

impl History {
    /// Notes that `what` happens now.
    pub fn note(&self, what: Seen) {
        let mut events = self.lock();
        // Within the lock, so that the order is that of time.
        let at = self.began.elapsed().as_micros() as u64;
        events.push(Event { at, what });
    }

    /// All that was noted.
    pub fn events(&self) -> Vec<Event> {
        self.lock().clone()
    }

    /// What was noted after the first `passed` things.
    pub fn since(&self, passed: usize) -> Vec<Event> {
        self.lock().get(passed..).unwrap_or_default().to_vec()
    }

    /// How many things were noted for which `holds`.
    pub fn count(&self, holds: impl Fn(&Seen) -> bool) -> usize {
        self.lock().iter().filter(|event| holds(&event.what)).count()
    }

    /// Compares it with `rules`.
    pub fn check(&self, rules: &Rules) -> Findings {
        check(&self.lock(), rules)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Event>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Findings {
    /// Whether no rule was broken.
    pub fn well(&self) -> bool {
        self.breaches.is_empty()
    }

    fn breach(&mut self, rule: &'static str, about: u64) {
        let breach = self.breaches.entry(rule).or_default();
        breach.count += 1;
        if breach.about.len() < 8 {
            breach.about.push(about);
        }
    }
}

/// What is known of one message while its history is read.
#[derive(Default)]
struct Told {
    published: bool,
    refused: bool,
    unknown: bool,
    deliveries: u64,
    /// How many deliveries are expected: one, one more for each retry.
    due: u64,
    runs: u64,
    /// Runs that a death of their consumer explains.
    excused: u64,
    settled_at: Option<u64>,
    /// Whether its last settlement failed, and may have been carried out all the same.
    doubt: bool,
}

/// Checks events that are in the order of time.
pub fn check(events: &[Event], rules: &Rules) -> Findings {
    let mut found = Findings::default();
    let mut told: HashMap<u64, Told> = HashMap::new();
    let mut in_hand: HashMap<u32, HashSet<u64>> = HashMap::new();
    let mut last: HashMap<u32, u64> = HashMap::new();
    let mut calls: HashMap<u64, (u64, bool)> = HashMap::new();
    let mut executed: HashMap<u64, u64> = HashMap::new();
    let mut down = None;
    for Event { at, what } in events.iter().copied() {
        match what {
            Seen::Publish { n } => {
                found.tried += u64::from(told.insert(n, Told { due: 1, ..Told::default() }).is_none());
            }
            Seen::Published { n } => told.entry(n).or_default().published = true,
            Seen::Refused { n } => told.entry(n).or_default().refused = true,
            Seen::Unknown { n } => told.entry(n).or_default().unknown = true,
            Seen::Foreign { by } => found.breach("unexpected", u64::from(by)),
            Seen::Delivered { n, by, attempt } => {
                let Some(known) = told.get_mut(&n) else {
                    found.breach("unexpected", n);
                    continue;
                };
                known.deliveries += 1;
                known.doubt = false;
                if attempt > rules.max_attempts {
                    found.breach("attempts", n);
                }
                let hand = in_hand.entry(by).or_default();
                hand.insert(n);
                if hand.len() > rules.prefetch as usize {
                    found.breach("prefetch", u64::from(by));
                }
                if rules.ordered && attempt == 1 && known.deliveries == 1 {
                    if last.get(&by).is_some_and(|last| *last > n) {
                        found.breach("order", n);
                    }
                    last.insert(by, n);
                }
            }
            Seen::Run { n, .. } => told.entry(n).or_default().runs += 1,
            Seen::Acked { n, by } | Seen::Buried { n, by } => {
                in_hand.entry(by).or_default().remove(&n);
                told.entry(n).or_default().settled_at = Some(at);
            }
            Seen::Resting { n, by } => {
                in_hand.entry(by).or_default().remove(&n);
                told.entry(n).or_default().due += 1;
            }
            Seen::Unsettled { n, by } => {
                in_hand.entry(by).or_default().remove(&n);
                // It may come again by right, or never.
                told.entry(n).or_default().doubt = true;
                found.explained += 1;
            }
            Seen::Died { by } => {
                for n in in_hand.remove(&by).unwrap_or_default() {
                    found.explained += 1;
                    told.entry(n).or_default().excused += 1;
                }
            }
            Seen::Down => {
                found.explained += in_hand.values().map(|hand| hand.len() as u64).sum::<u64>();
                let since = at.saturating_sub(1_000_000);
                found.explained += settled_since(&told, since);
                down.get_or_insert(at);
            }
            // A broker that cannot write takes acknowledgements all the same.
            Seen::Up => found.explained += down.take().map_or(0, |since| settled_since(&told, since + 1)),
            Seen::Gap { .. } => {}
            Seen::Call { n, limit } => {
                found.calls += 1;
                calls.insert(n, (at + limit + rules.grace.as_micros() as u64, false));
            }
            Seen::Answered { n } | Seen::Failed { n, .. } => {
                let Some((limit, over)) = calls.get_mut(&n) else {
                    found.breach("unexpected", n);
                    continue;
                };
                let (late, twice) = (at > *limit, std::mem::replace(over, true));
                if late {
                    found.breach("deadline", n);
                }
                if twice {
                    found.breach("double reply", n);
                }
                match what {
                    Seen::Answered { .. } => {
                        found.answered += 1;
                        if !executed.contains_key(&n) {
                            found.breach("answered, not executed", n);
                        }
                    }
                    Seen::Failed { maybe: true, .. } => found.doubtful += 1,
                    _ => found.failed += 1,
                }
            }
            Seen::Executed { n, .. } => {
                let times = executed.entry(n).or_default();
                *times += 1;
                if *times > 1 {
                    found.breach("executed twice", n);
                }
            }
        }
    }
    finish(&mut found, &told, rules);
    for (n, (_, over)) in &calls {
        if !over {
            found.breach("never ended", *n);
        }
    }
    for event in events {
        if let Seen::Failed { n, maybe: false } = event.what
            && executed.contains_key(&n)
        {
            found.breach("executed, said not", n);
        }
    }
    found
}

/// How many were settled then or later.
fn settled_since(told: &HashMap<u64, Told>, since: u64) -> u64 {
    told.values().filter(|known| known.settled_at.is_some_and(|at| at >= since)).count() as u64
}

/// What shows only when all is over.
fn finish(found: &mut Findings, told: &HashMap<u64, Told>, rules: &Rules) {
    for (n, known) in told {
        found.published += u64::from(known.published);
        found.refused += u64::from(known.refused);
        found.unknown += u64::from(known.unknown);
        found.delivered += u64::from(known.deliveries > 0);
        found.recovered += u64::from(known.unknown && known.deliveries > 0);
        found.duplicates += known.deliveries.saturating_sub(known.due);
        if rules.complete && known.published && known.deliveries == 0 {
            found.breach("lost", *n);
        }
        if rules.complete && known.deliveries > 0 && known.settled_at.is_none() && !known.doubt {
            found.breach("never settled", *n);
        }
        if known.refused && !known.published && !known.unknown && known.deliveries > 0 {
            found.breach("delivered, said not sent", *n);
        }
        if rules.runs.is_some_and(|most| known.runs > u64::from(most) + known.excused) {
            found.breach("ran again", *n);
        }
    }
    if found.duplicates > found.explained {
        found.breach("duplicates", found.duplicates - found.explained);
    }
}
