//! Ledgers: which messages were carried out already, so that what comes twice is done once.
//!
//! Delivery is at least once, so a message may come again although it was carried out. The dedup layer
//! ([`Service::dedup`](crate::Service::dedup)) asks a ledger before it runs a handler, and tells it after. A transport
//! whose broker can keep such things keeps the ledger beside the queue ([`Bus::ledger`](crate::Bus::ledger)), so that it
//! holds for all processes together; elsewhere each process has one of its own.

mod local;

use std::{fmt, time::Duration};

use async_trait::async_trait;

pub use self::local::LocalLedger;
use crate::{address::Origin, error::Result, message::MessageId};

/// Remembers which messages are being carried out, and which were.
#[async_trait]
pub trait Ledger: fmt::Debug + Send + Sync {
    /// `holder` wants to run message `id` of `place`. When that is [`Begun::Fresh`], nobody else gets it for `lease`, by
    /// the ledger's clock; the same holder may begin again, which makes the lease longer.
    async fn begin(&self, place: &Origin, id: MessageId, holder: u128, lease: Duration) -> Result<Begun>;

    /// The run of `holder` is over. With `done`, the message is known as done for at least that long; without, it is
    /// forgotten, so that another run may begin. Of somebody else's run nothing is changed.
    async fn end(&self, place: &Origin, id: MessageId, holder: u128, done: Option<Duration>) -> Result<()>;
}

/// What a ledger says to who wants to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begun {
    /// Begin.
    Fresh,
    /// Another holder runs it now.
    Running,
    /// It was done.
    Done,
}
