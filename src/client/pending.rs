//! Calls that wait for an answer: a small type without IO.

use std::sync::{Arc, PoisonError};

use bytes::Bytes;

// Named by the module around it, so that `integration/loom` can try all ways in which threads meet here.
use super::{HashMap, Mutex, MutexGuard, oneshot, random};
use crate::metrics::Metrics;

/// The calls of one client that wait, by correlation.
#[derive(Debug, Clone)]
pub(super) struct Pending {
    waiting: Arc<Mutex<HashMap<u128, oneshot::Sender<Bytes>>>>,
    metrics: Metrics,
}

/// One call's place. Dropping it forgets the call.
#[derive(Debug)]
pub(super) struct Waiting {
    pending: Pending,
    pub(super) correlation: u128,
    answer: oneshot::Receiver<Bytes>,
}

impl Pending {
    /// None yet; answers that nobody waits for are counted in `metrics`.
    pub(super) fn new(metrics: Metrics) -> Self {
        Self { waiting: Arc::default(), metrics }
    }

    /// A place for a new call, under a correlation that nobody can guess.
    pub(super) fn enter(&self) -> Waiting {
        let (sender, answer) = oneshot::channel();
        let correlation = random();
        self.lock().insert(correlation, sender);
        Waiting { pending: self.clone(), correlation, answer }
    }

    /// Hands `body` to the call that waits for it. An answer that is late, forged or there for the second time is
    /// dropped and counted.
    pub(super) fn answer(&self, correlation: Option<u128>, body: Bytes) {
        let waiting = correlation.and_then(|correlation| self.lock().remove(&correlation));
        if waiting.is_none_or(|sender| sender.send(body).is_err()) {
            tracing::debug!("an answer came that no call waits for");
            self.metrics.count_stray_reply();
        }
    }

    /// Ends every wait: answers may have been lost.
    pub(super) fn fail_all(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u128, oneshot::Sender<Bytes>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    /// The answer; `None` when it may have been lost. Cancel-safe.
    pub(super) async fn answer(&mut self) -> Option<Bytes> {
        (&mut self.answer).await.ok()
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.pending.lock().remove(&self.correlation);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strays(pending: &Pending) -> Option<u64> {
        let text = pending.metrics.render();
        text.lines().find_map(|line| line.strip_prefix("commissaire_stray_replies_total ")?.parse().ok())
    }

    #[tokio::test]
    async fn an_answer_resolves_its_own_call_once() {
        let pending = Pending::new(Metrics::default());
        let (mut one, mut two) = (pending.enter(), pending.enter());
        pending.answer(Some(two.correlation), Bytes::from_static(b"2"));
        pending.answer(Some(one.correlation), Bytes::from_static(b"1"));
        pending.answer(Some(one.correlation), Bytes::from_static(b"again"));
        assert_eq!(one.answer().await.as_deref(), Some(&b"1"[..]));
        assert_eq!(two.answer().await.as_deref(), Some(&b"2"[..]));
        assert_eq!(strays(&pending), Some(1));
    }

    #[tokio::test]
    async fn forged_and_late_answers_are_dropped_and_counted() {
        let pending = Pending::new(Metrics::default());
        let gone = pending.enter();
        let correlation = gone.correlation;
        drop(gone);
        pending.answer(Some(correlation), Bytes::new());
        pending.answer(Some(7), Bytes::new());
        pending.answer(None, Bytes::new());
        assert_eq!(strays(&pending), Some(3));
        assert!(pending.lock().is_empty());
    }
}
