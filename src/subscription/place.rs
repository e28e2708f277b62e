//! Room within the prefetch limit: taken before a message is, and free again when that is settled or dropped.

use std::sync::Arc;

// Named by the module around it, so that `integration/loom` can try all ways in which threads meet here.
use super::{CancellationToken, OwnedSemaphorePermit, Result, Semaphore, Settle, Settlement};

/// Room for one delivery within the prefetch limit.
#[derive(Debug)]
pub struct Place(
    #[allow(dead_code, reason = "held, not read: dropping it frees the place")] OwnedSemaphorePermit,
);

/// All the room of one subscription.
#[derive(Debug)]
pub(super) struct Places(Arc<Semaphore>);

impl Places {
    /// Room for `prefetch` deliveries; 0 counts as 1.
    pub(super) fn new(prefetch: u16) -> Self {
        Self(Arc::new(Semaphore::new(usize::from(prefetch.max(1)))))
    }

    /// Waits for room for one more; `None` once `closing` is cancelled.
    pub(super) async fn take(&self, closing: &CancellationToken) -> Option<Place> {
        tokio::select! {
            biased;
            () = closing.cancelled() => None,
            place = self.0.clone().acquire_owned() => place.ok().map(Place),
        }
    }

    /// Room for one more, if there is any now.
    pub(super) fn try_take(&self) -> Option<Place> {
        self.0.clone().try_acquire_owned().ok().map(Place)
    }
}

/// A settlement that keeps its place until it is over.
pub(super) struct Placed {
    settle: Option<Box<dyn Settle>>,
    _place: Place,
}

impl Placed {
    /// `settle` may be nothing: then there is only the place to free.
    pub(super) fn new(settle: Option<Box<dyn Settle>>, place: Place) -> Self {
        Self { settle, _place: place }
    }
}

#[async_trait::async_trait]
impl Settle for Placed {
    async fn settle(mut self: Box<Self>, settlement: Settlement) -> Result<()> {
        match self.settle.take() {
            Some(settle) => settle.settle(settlement).await,
            None => Ok(()),
        }
    }

    fn release(mut self: Box<Self>) {
        if let Some(settle) = self.settle.take() {
            settle.release();
        }
    }
}

impl Drop for Placed {
    fn drop(&mut self) {
        // Dropped without a word (a settlement future that was cancelled before its first poll).
        if let Some(settle) = self.settle.take() {
            settle.release();
        }
    }
}
