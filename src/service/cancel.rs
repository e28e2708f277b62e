//! Cancelling calls whose callers have gone.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

use crate::{
    message::header,
    subscription::{Received, Subscription},
};

/// How many cancellations are remembered for calls that have not arrived yet.
const EARLY: usize = 1024;

/// The calls that an instance works on, by correlation.
#[derive(Debug, Clone, Default)]
pub(super) struct InFlight(Arc<Mutex<Calls>>);

#[derive(Debug, Default)]
struct Calls {
    running: HashMap<String, CancellationToken>,
    early: VecDeque<String>,
}

/// One call in work.
pub(super) struct Entered {
    calls: InFlight,
    correlation: Option<String>,
    token: CancellationToken,
}

impl InFlight {
    /// Notes that a call has begun; `None` when it is cancelled already.
    pub(super) fn enter(&self, correlation: Option<&str>) -> Option<Entered> {
        let token = CancellationToken::new();
        if let Some(correlation) = correlation {
            let mut calls = self.lock();
            if let Some(at) = calls.early.iter().position(|known| known == correlation) {
                calls.early.remove(at);
                return None;
            }
            calls.running.insert(correlation.to_owned(), token.clone());
        }
        Some(Entered { calls: self.clone(), correlation: correlation.map(str::to_owned), token })
    }

    fn cancel(&self, correlation: &str) {
        let mut calls = self.lock();
        if let Some(token) = calls.running.get(correlation) {
            token.cancel();
            return;
        }
        // It runs elsewhere, or is still on its way.
        if calls.early.len() == EARLY {
            calls.early.pop_front();
        }
        calls.early.push_back(correlation.to_owned());
    }

    fn lock(&self) -> MutexGuard<'_, Calls> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entered {
    /// Resolves when the caller has gone.
    pub(super) fn cancelled(&self) -> WaitForCancellationFuture<'_> {
        self.token.cancelled()
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        if let Some(correlation) = &self.correlation {
            self.calls.lock().running.remove(correlation);
        }
    }
}

/// Cancels what control messages name.
pub(super) fn listen(
    calls: InFlight,
) -> impl FnOnce(Subscription) -> futures_util::future::BoxFuture<'static, ()> {
    move |mut control| {
        Box::pin(async move {
            while let Some(received) = control.next().await {
                let Received::Delivery(delivery) = received else { continue };
                let message = delivery.message();
                if let (b"cancel", Some(correlation)) =
                    (&message.body()[..], message.headers().get(header::CORRELATION))
                {
                    calls.cancel(correlation);
                }
            }
        })
    }
}
