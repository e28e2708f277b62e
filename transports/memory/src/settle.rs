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
    /// Where it dies, or has died.
    pub(crate) origin: Origin,
    /// It is a dead letter already: when it is terminated it is put back, and it can be brought back to where it died.
    pub(crate) dead: bool,
    pub(crate) entry: Entry,
    /// Set before the deliveries of a consumer that died are dropped.
    pub(crate) died: Arc<AtomicBool>,
}

#[async_trait]
impl Settle for InHand {
    async fn settle(self: Box<Self>, settlement: Settlement) -> Result<()> {
        let origin = &self.origin;
        match (settlement, self.dead) {
            (Settlement::Ack, _) => self.line.forget(&self.entry),
            (Settlement::Retry { after, message }, _) => self.line.rest(&self.entry, message, after),
            (Settlement::DeadLetter { message }, false) => {
                let (message, graves) = (message.with_origin(origin), self.hub.dead_letters(origin));
                if !graves.has_room(&message) {
                    let what = format!("the dead letters of {origin} are full: take some out");
                    self.release();
                    return Err(Error::new(ErrorKind::Full, what));
                }
                graves.push(message);
                self.line.forget(&self.entry);
            }
            (Settlement::DeadLetter { .. }, true) => self.release(),
            (Settlement::Redrive { message }, true) => match self.hub.redrive(origin, message) {
                Ok(()) => self.line.forget(&self.entry),
                Err(error) => {
                    self.release();
                    return Err(error);
                }
            },
            (other, _) => {
                let what = match other {
                    Settlement::Redrive { .. } => "only a dead letter can be brought back".to_owned(),
                    other => format!("the memory transport does not know {other:?}"),
                };
                self.release();
                return Err(Error::invalid(what));
            }
        }
        Ok(())
    }

    fn release(self: Box<Self>) {
        let suspect = self.died.load(Ordering::Acquire);
        self.line.give_back(self.entry, suspect);
    }
}
