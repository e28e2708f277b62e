//! The ledger of a memory bus: in the process that keeps the bus, for all that are on it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use commissaire::{Begun, Ledger, MessageId, Origin, Result};
use tokio::time::Instant;

use crate::hub::Hub;

/// The most messages that are known as done. Beyond, those go first whose time is over first.
const MOST: usize = 100_000;
/// What stands for ever: a time that the clock cannot hold is one that nobody lives to see.
const EVER: Duration = Duration::from_secs(100 * 365 * 86_400);

type Line = (Origin, MessageId);

/// See the module. It holds what runs, which is bounded by what is in hand, and [`MOST`] that are done.
#[derive(Debug, Default)]
pub(crate) struct Book {
    entries: HashMap<Line, Entry>,
    /// What is done, by when that is forgotten.
    done: BTreeMap<(Instant, u64), Line>,
    /// What runs, by when its lease lapses.
    running: BTreeMap<(Instant, u64), Line>,
    last: u64,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    /// Who runs it; nobody once it is done.
    holder: Option<u128>,
    at: (Instant, u64),
}

impl Book {
    fn begin(&mut self, line: Line, holder: u128, lease: Duration, now: Instant) -> Begun {
        self.forget_old(now);
        match self.entries.get(&line) {
            Some(Entry { holder: None, .. }) => Begun::Done,
            Some(Entry { holder: Some(other), .. }) if *other != holder => Begun::Running,
            _ => {
                self.put(line, Some(holder), lease, now);
                Begun::Fresh
            }
        }
    }

    fn end(&mut self, line: Line, holder: u128, done: Option<Duration>, now: Instant) {
        self.forget_old(now);
        if self.entries.get(&line).is_none_or(|entry| entry.holder != Some(holder)) {
            return;
        }
        match done {
            Some(window) => {
                self.put(line, None, window, now);
                while self.done.len() > MOST {
                    if let Some((_, oldest)) = self.done.pop_first() {
                        self.entries.remove(&oldest);
                    }
                }
            }
            None => self.take(&line),
        }
    }

    fn put(&mut self, line: Line, holder: Option<u128>, time: Duration, now: Instant) {
        self.take(&line);
        self.last += 1;
        let at = (now + time.min(EVER), self.last);
        let times = if holder.is_some() { &mut self.running } else { &mut self.done };
        times.insert(at, line.clone());
        self.entries.insert(line, Entry { holder, at });
    }

    fn take(&mut self, line: &Line) {
        if let Some(entry) = self.entries.remove(line) {
            let times = if entry.holder.is_some() { &mut self.running } else { &mut self.done };
            times.remove(&entry.at);
        }
    }

    fn forget_old(&mut self, now: Instant) {
        for times in [&mut self.done, &mut self.running] {
            while let Some(first) = times.first_entry() {
                if first.key().0 > now {
                    break;
                }
                self.entries.remove(&first.remove());
            }
        }
    }
}

/// The book of a hub as a [`Ledger`].
#[derive(Debug)]
pub(crate) struct HubLedger(pub(crate) Arc<Hub>);

impl HubLedger {
    fn with<R>(&self, use_it: impl FnOnce(&mut Book) -> R) -> R {
        use_it(&mut self.0.book.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Where a hub keeps its book.
pub(crate) type Shelf = Mutex<Book>;

#[async_trait]
impl Ledger for HubLedger {
    async fn begin(&self, place: &Origin, id: MessageId, holder: u128, lease: Duration) -> Result<Begun> {
        Ok(self.with(|book| book.begin((place.clone(), id), holder, lease, Instant::now())))
    }

    async fn end(&self, place: &Origin, id: MessageId, holder: u128, done: Option<Duration>) -> Result<()> {
        self.with(|book| book.end((place.clone(), id), holder, done, Instant::now()));
        Ok(())
    }
}
