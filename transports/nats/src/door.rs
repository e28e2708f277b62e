//! The way back of a subscription's deliveries.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{runtime::Handle, sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{bus::Core, hand::NAK, settle::Token};

/// How long the server's word is awaited that it has something back.
const BACK: Duration = Duration::from_secs(2);

/// Where what is given back goes through.
///
/// From when the subscription closes until the server has forgotten its requests, nothing goes back: nats-server 2.9
/// takes what is given back off its list when it finds only a requester who has left, and remembers it only after the
/// lease. And where the order counts, nothing more is asked for before the server has it back.
#[derive(Debug)]
pub(crate) struct Door {
    closing: CancellationToken,
    ordered: bool,
    under_way: AtomicUsize,
    /// Notified when nothing is under way any more.
    pub(crate) through: Notify,
    kept: Mutex<Option<Vec<Token>>>,
}

impl Door {
    pub(crate) fn new(closing: CancellationToken, ordered: bool) -> Self {
        let (under_way, through, kept) = (AtomicUsize::new(0), Notify::new(), Mutex::new(Some(Vec::new())));
        Self { closing, ordered, under_way, through, kept }
    }

    /// Whether something is on its way back that must come again first.
    pub(crate) fn is_busy(&self) -> bool {
        self.under_way.load(Ordering::Acquire) > 0
    }

    /// Gives a delivery back, now or when the door opens.
    pub(crate) fn give_back(this: &Arc<Self>, core: &Arc<Core>, token: Token) {
        let mut kept = this.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kept) = kept.as_mut().filter(|_| this.closing.is_cancelled()) {
            return kept.push(token);
        }
        drop(kept);
        match Handle::try_current() {
            Ok(runtime) if this.ordered && !core.closed.is_cancelled() => {
                this.under_way.fetch_add(1, Ordering::AcqRel);
                core.hand.note_returned(token.stored);
                let (this, link) = (this.clone(), core.link.clone());
                runtime.spawn(async move {
                    // Where it does not get through, the lease ends.
                    let _ = link.request(token.ack, None, NAK, Instant::now() + BACK).await;
                    this.under_way.fetch_sub(1, Ordering::AcqRel);
                    this.through.notify_one();
                });
            }
            _ => core.hand.give_back(token.stored, token.ack),
        }
    }

    /// The subscription has left: everything goes back from now on.
    pub(crate) fn open(&self, core: &Core) {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).take();
        for token in kept.into_iter().flatten() {
            core.hand.give_back(token.stored, token.ack);
        }
    }
}
