//! Settling a delivery that was drawn from a stored line.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use async_trait::async_trait;
use commissaire::{Error, ErrorKind, Origin, Result, Settle, Settlement};

use crate::{
    hub::Hub,
    line::{Entry, Line},
};

/// An entry in a consumer's hands.
pub(crate) struct InHand {
    pub(crate) hub: Arc<Hub>,
    pub(crate) line: Arc<Line>,
    /// Where it is a dead letter of when it is terminated; a dead letter itself has none and is then put back.
    pub(crate) origin: Option<Origin>,
    pub(crate) entry: Entry,
    /// Set before the deliveries of a consumer that died are dropped.
    pub(crate) died: Arc<AtomicBool>,
}

#[async_trait]
impl Settle for InHand {
    async fn settle(self: Box<Self>, settlement: Settlement) -> Result<()> {
        match (settlement, &self.origin) {
            (Settlement::Retry { after, message }, _) => self.line.rest(&self.entry.message, message, after),
            (Settlement::DeadLetter { message }, Some(origin)) => {
                let (message, graves) = (message.with_origin(origin), self.hub.dead_letters(origin));
                if !graves.has_room(&message) {
                    let what = format!("the dead letters of {origin} are full: take some out");
                    self.release();
                    return Err(Error::new(ErrorKind::Full, what));
                }
                graves.push(message);
                self.line.forget(&self.entry.message);
            }
            (Settlement::DeadLetter { .. }, None) => self.release(),
            (Settlement::Ack, _) => self.line.forget(&self.entry.message),
            (other, _) => {
                return Err(Error::invalid(format!("the memory transport does not know {other:?}")));
            }
        }
        Ok(())
    }

    fn release(self: Box<Self>) {
        let suspect = self.died.load(Ordering::Acquire);
        self.line.give_back(self.entry, suspect);
    }
}
