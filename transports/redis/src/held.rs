//! A delivery from a stream, in the hands of a consumer.

use std::sync::Arc;

use async_trait::async_trait;
use commissaire::{Error, Result, Settle, Settlement, envelope};
use tokio::sync::oneshot;

use crate::{
    listen::{
        entry::{Entry, Stream},
        intake::Intake,
    },
    settle::{Settler, Verdict, closed},
};

/// The transport's side of a delivery from a stream.
pub(crate) struct Held {
    pub(crate) settler: Arc<Settler>,
    pub(crate) intake: Arc<Intake<Arc<Stream>>>,
    pub(crate) entry: Entry,
}

#[async_trait]
impl Settle for Held {
    async fn settle(self: Box<Self>, settlement: Settlement) -> Result<()> {
        let verdict = match settlement {
            Settlement::Ack => Verdict::Ack,
            Settlement::Retry { after, message } => Verdict::Retry {
                // Rounded up: it is never early.
                after: u64::try_from(after.as_micros().div_ceil(1000)).unwrap_or(u64::MAX).min(1 << 40),
                message: envelope::encode(&message),
            },
            Settlement::DeadLetter { message } => {
                let message = message.with_origin(self.intake.source().origin());
                Verdict::Dead { message: envelope::encode(&message) }
            }
            Settlement::Redrive { message } if self.intake.source().source().is_some() => {
                Verdict::Redrive { message: envelope::encode(&message) }
            }
            other => {
                let what = match other {
                    Settlement::Redrive { .. } => "only a dead letter can be brought back",
                    _ => "this transport does not know that verdict",
                };
                let what = format!("settling a message of {}: {what}", self.intake.source().name());
                self.release();
                return Err(Error::invalid(what));
            }
        };
        let (done, answer) = oneshot::channel();
        self.settler.put(self.intake.source().clone(), self.entry.id, verdict, Some(done))?;
        answer.await.unwrap_or_else(|_| Err(closed()))
    }

    fn release(self: Box<Self>) {
        let Self { settler, intake, entry } = *self;
        // The same consumer has a place for it as soon as this one is free.
        match intake.keep(entry) {
            Ok(()) => settler.serve(&intake),
            Err(entry) => settler.release(intake.source(), entry.id),
        }
    }
}
