//! Settling a delivery that another process keeps.

use std::sync::Arc;

use async_trait::async_trait;
use commissaire::{Error, Result, Settle, Settlement, envelope};

use crate::unix::{
    frame::Verdict,
    link::{Hand, Link, PATIENCE},
};

/// A delivery in this process's hands.
pub(super) struct Remote {
    pub(super) link: Arc<Link>,
    pub(super) hand: Hand,
}

#[async_trait]
impl Settle for Remote {
    async fn settle(self: Box<Self>, settlement: Settlement) -> Result<()> {
        if !self.hand.settles {
            self.release();
            return Ok(());
        }
        let (verdict, tail) = match settlement {
            Settlement::Ack => (Verdict::Ack, Vec::new()),
            Settlement::Retry { after, message } => {
                let after_us = u64::try_from(after.as_micros()).unwrap_or(u64::MAX);
                (Verdict::Retry { after_us }, envelope::encode(&message))
            }
            Settlement::DeadLetter { message } => (Verdict::Dead, envelope::encode(&message)),
            Settlement::Redrive { message } => (Verdict::Redrive, envelope::encode(&message)),
            other => return Err(Error::invalid(format!("the unix transport does not know {other:?}"))),
        };
        self.link.settle(&self.hand, verdict, &tail, PATIENCE).await.map(drop)
    }

    fn release(self: Box<Self>) {
        self.link.release(&self.hand);
    }
}
