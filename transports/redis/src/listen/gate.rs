//! Waking a reader that waits: here, or blocked in a command at the server.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use redis::Pipeline;
use tokio::sync::{Notify, futures::Notified};

use crate::{bus::Core, link::DEAF};

/// Between one reader and those who have news for it.
pub(crate) struct Gate {
    core: Arc<Core>,
    /// Writes to the private key that the reader blocks on, too.
    wake: Pipeline,
    state: Mutex<Blocked>,
    changed: Notify,
}

#[derive(Default)]
struct Blocked {
    /// The reader is blocked at the server.
    blocked: bool,
    /// It is being woken.
    waking: bool,
}

impl Gate {
    pub(crate) fn new(core: Arc<Core>, wake: Pipeline) -> Self {
        Self { core, wake, state: Mutex::default(), changed: Notify::new() }
    }

    /// There is news. `listed`: the reader is blocked for just this, so that it need not be woken.
    pub(crate) fn stir(&self, listed: Option<&AtomicBool>) {
        self.changed.notify_one();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.blocked || state.waking || listed.is_some_and(|listed| listed.load(Ordering::Acquire)) {
            return;
        }
        state.waking = true;
        drop(state);
        let (core, wake) = (self.core.clone(), self.wake.clone());
        tokio::spawn(async move {
            // Without a connection the reader is not blocked for long either.
            if let Some(wire) = core.main.now() {
                let _ = wire.ask_all(&wake, DEAF).await;
            }
        });
    }

    /// Resolves at the next news.
    pub(crate) fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    /// The reader is about to block; `list` looks at what for, while no news can come between.
    pub(crate) fn block<T>(&self, list: impl FnOnce() -> T) -> T {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let listed = list();
        *state = Blocked { blocked: true, waking: false };
        listed
    }

    /// The reader is back.
    pub(crate) fn unblock(&self) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = Blocked::default();
    }
}
