//! What the client library tells beside the messages: refusals, and messages that it dropped.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use async_nats::{Event, ServerError};
use tokio::sync::watch;

use crate::mux::Mux;

/// The most refusals that are remembered.
const MOST_REFUSED: usize = 1_000;
/// What makes a subject that the library sends and no server takes: `>` may stand at the end only.
pub(crate) const BAIT: &str = ".>.none";

/// What was told. A refusal is noted as soon as it is.
pub(crate) struct Events {
    pub(crate) mux: Arc<Mux>,
    back: String,
    /// Messages that were dropped, until somebody looks.
    pub(crate) slow: AtomicU64,
    /// The subjects that we may not subscribe to.
    refused: Mutex<BTreeSet<String>>,
    /// Changes when it is told that a [`BAIT`] was not taken; `one` is out at a time.
    pub(crate) told: watch::Sender<()>,
    pub(crate) one: tokio::sync::Mutex<()>,
}

impl Events {
    pub(crate) fn new(back: &str) -> Self {
        Self {
            mux: Arc::default(),
            back: back.to_owned(),
            slow: AtomicU64::new(0),
            refused: Mutex::default(),
            told: watch::Sender::new(()),
            one: tokio::sync::Mutex::new(()),
        }
    }

    pub(crate) fn take(&self, event: Event) {
        match event {
            Event::SlowConsumer(_) => drop(self.slow.fetch_add(1, Ordering::Relaxed)),
            Event::ServerError(ServerError::Other(text)) => self.forbid(&text),
            _ => {}
        }
    }

    /// Whether the server has refused a subscription to `subject`.
    pub(crate) fn is_refused(&self, subject: &str) -> bool {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).contains(subject)
    }

    /// Reads what the server says about permissions: `Permissions Violation for Publish to "SUBJECT"`.
    fn forbid(&self, text: &str) {
        let lower = text.to_lowercase();
        let subject = text.split('"').nth(1);
        let bait = |subject: &str| subject.strip_prefix(&self.back) == Some(BAIT);
        if lower == "invalid subject" || subject.is_some_and(bait) {
            self.told.send_replace(());
            return;
        }
        let Some(subject) = subject else {
            tracing::warn!(
                error = text.escape_default().take(256).collect::<String>(),
                "the NATS server complains"
            );
            return;
        };
        if lower.contains("for publish") || subject.strip_suffix(".*") == Some(&self.back) {
            self.mux.forbid(subject);
        } else if lower.contains("for subscription") {
            let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
            if refused.len() < MOST_REFUSED {
                refused.insert(subject.to_owned());
            }
        }
        tracing::warn!(subject, "the NATS server does not allow us this subject");
    }
}
