//! Replies that are on their way: to Kombu programs, by the names of their lists; and to ourselves.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use commissaire::Inbox;
use tokio::time::Instant;

/// The most Kombu programs that wait for an answer of this process, and the most answers that it waits for.
const MOST: usize = 100_000;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Replies(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    owed: HashMap<Inbox, Owed>,
    order: VecDeque<Inbox>,
    awaited: HashMap<String, Instant>,
}

/// Where a Kombu program waits for a reply.
#[derive(Debug, Clone)]
pub(crate) struct Owed {
    /// The name of the list.
    pub(crate) list: String,
    /// What it wants to know the reply by, if anything.
    pub(crate) correlation: Option<String>,
}

impl Replies {
    /// An inbox that stands for `owed`, until the reply is sent. The oldest is forgotten when there are too many.
    pub(crate) fn owe(&self, owed: Owed) -> Inbox {
        let inbox = Inbox::random();
        let mut state = self.lock();
        state.owed.insert(inbox, owed);
        state.order.push_back(inbox);
        while state.order.len() > MOST {
            if let Some(oldest) = state.order.pop_front() {
                state.owed.remove(&oldest);
            }
        }
        inbox
    }

    /// What `inbox` stands for; it is asked once.
    pub(crate) fn pay(&self, inbox: &Inbox) -> Option<Owed> {
        let mut state = self.lock();
        let owed = state.owed.remove(inbox);
        // Those that were paid are forgotten from the front.
        while state.order.front().is_some_and(|oldest| !state.owed.contains_key(oldest)) {
            state.order.pop_front();
        }
        owed
    }

    /// A reply will come to the list `name`, if at all, before `end`.
    pub(crate) fn await_one(&self, name: String, end: Instant) {
        let mut state = self.lock();
        if state.awaited.len() >= MOST {
            let now = Instant::now();
            state.awaited.retain(|_, end| *end > now);
        }
        if state.awaited.len() < MOST {
            state.awaited.insert(name, end);
        }
    }

    /// It has come.
    pub(crate) fn came(&self, name: &str) {
        self.lock().awaited.remove(name);
    }

    /// All that are waited for still.
    pub(crate) fn awaited(&self) -> Vec<String> {
        let mut state = self.lock();
        let now = Instant::now();
        state.awaited.retain(|_, end| *end > now);
        state.awaited.keys().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
