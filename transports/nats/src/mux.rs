//! What comes back: one subscription for every answer that this connection waits for, and the table of who waits.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_nats::{Message, Subject};
use tokio::{sync::oneshot, time::Instant};

use crate::fault::Fault;

/// What a wait ends with.
#[derive(Debug)]
pub(crate) enum Heard {
    /// A message to its subject.
    Message(Message),
    /// The reply to the call went to its inbox.
    Replied,
}

/// Who waits for what.
#[derive(Debug, Default)]
pub(crate) struct Mux {
    waiting: Mutex<Table>,
    next: AtomicU64,
}

#[derive(Debug, Default)]
struct Table {
    entries: HashMap<u64, Entry>,
    /// Calls by their correlation.
    calls: HashMap<u128, u64>,
}

#[derive(Debug)]
struct Entry {
    sender: oneshot::Sender<Result<Heard, Fault>>,
    /// Where the request went.
    subject: Subject,
    correlation: Option<u128>,
    /// When a call is of no use any more.
    until: Option<Instant>,
}

/// One wait. Dropping it forgets the request.
#[derive(Debug)]
pub(crate) struct Waiting {
    mux: Arc<Mux>,
    id: u64,
    heard: oneshot::Receiver<Result<Heard, Fault>>,
}

impl Mux {
    /// A wait for the answer to a request to `subject`.
    pub(crate) fn enter(self: &Arc<Self>, subject: Subject) -> Waiting {
        self.enter_call(subject, None, None)
    }

    /// A wait for the word on a call, or for its reply.
    pub(crate) fn enter_call(
        self: &Arc<Self>,
        subject: Subject,
        correlation: Option<u128>,
        until: Option<Instant>,
    ) -> Waiting {
        let (sender, heard) = oneshot::channel();
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let mut table = self.table();
        table.entries.insert(id, Entry { sender, subject, correlation, until });
        if let Some(correlation) = correlation {
            table.calls.insert(correlation, id);
        }
        drop(table);
        Waiting { mux: self.clone(), id, heard }
    }

    /// A message came to the subject whose last word is `word`.
    pub(crate) fn heard(&self, word: &str, message: Message) {
        if let Some(entry) = id(word).and_then(|id| self.remove(id)) {
            // Who waits may have gone in this moment.
            let _ = entry.sender.send(Ok(Heard::Message(message)));
        }
    }

    /// The reply to a call came to its inbox.
    pub(crate) fn replied(&self, correlation: u128) {
        let mut table = self.table();
        let entry = table.calls.remove(&correlation).and_then(|id| table.entries.remove(&id));
        drop(table);
        if let Some(entry) = entry {
            let _ = entry.sender.send(Ok(Heard::Replied));
        }
    }

    /// How long a call that still waits is of use; `None` when nobody waits for it.
    pub(crate) fn left(&self, word: &str) -> Option<Option<Duration>> {
        let id = id(word)?;
        let table = self.table();
        let until = table.entries.get(&id)?.until;
        Some(until.map(|until| until.saturating_duration_since(Instant::now())))
    }

    /// The connection has broken: whatever was sent may have arrived or not.
    pub(crate) fn fail_all(&self) {
        let table = std::mem::take(&mut *self.table());
        for entry in table.entries.into_values() {
            let _ = entry.sender.send(Err(Fault::Lost));
        }
    }

    /// The server does not allow `subject`, to which a request went or by which its answer would come.
    pub(crate) fn forbid(&self, subject: &str) {
        let mut table = self.table();
        let ids: Vec<u64> = table
            .entries
            .iter()
            .filter(|(_, entry)| subject.strip_prefix(&*entry.subject).is_some_and(is_below))
            .map(|(id, _)| *id)
            .collect();
        let entries: Vec<Entry> = ids.iter().filter_map(|id| table.entries.remove(id)).collect();
        drop(table);
        for entry in entries {
            let _ = entry.sender.send(Err(Fault::Forbidden(subject.to_owned())));
        }
    }

    /// How many wait.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        let table = self.table();
        table.entries.len().max(table.calls.len())
    }

    fn remove(&self, id: u64) -> Option<Entry> {
        let mut table = self.table();
        let entry = table.entries.remove(&id)?;
        if let Some(correlation) = entry.correlation
            && table.calls.get(&correlation) == Some(&id)
        {
            table.calls.remove(&correlation);
        }
        Some(entry)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether this stands behind a subject in one that is the same or below it.
fn is_below(rest: &str) -> bool {
    rest.is_empty() || rest.starts_with('.')
}

/// The number in the last word of a subject: what stands before a `-`.
pub(crate) fn id(word: &str) -> Option<u64> {
    u64::from_str_radix(word.split('-').next()?, 16).ok()
}

impl Waiting {
    /// The word that tells this wait from others.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// What it waits for. Cancel-safe.
    pub(crate) async fn heard(&mut self) -> Result<Heard, Fault> {
        (&mut self.heard).await.unwrap_or(Err(Fault::Lost))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.mux.remove(self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nobody_who_gave_up_is_remembered() {
        let mux = Arc::new(Mux::default());
        for correlation in 0..1000 {
            drop(mux.enter_call("a".into(), Some(correlation), None));
            drop(mux.enter("b".into()));
        }
        assert_eq!(mux.len(), 0);
        let mut call = mux.enter_call("a".into(), Some(7), None);
        let mut other = mux.enter("b".into());
        mux.replied(7);
        assert!(matches!(call.heard().await, Ok(Heard::Replied)));
        mux.forbid("b");
        assert!(matches!(other.heard().await, Err(Fault::Forbidden(_))));
        let mut lost = mux.enter("c".into());
        mux.fail_all();
        assert!(matches!(lost.heard().await, Err(Fault::Lost)));
        assert_eq!(mux.len(), 0);
    }
}
