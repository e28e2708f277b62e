//! The bus of a process that has joined.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use commissaire::{
    Begun, Bus, BusOptions, ConnectionWatch, Guarantees, Ledger, Message, MessageId, Origin, Result, Source,
    Subscription, Survey, Token, What, envelope,
};
use tokio::time::timeout;

use crate::{
    bus::JOINED,
    unix::{
        frame::{self, Ask, WireBegun, millis, told},
        keep,
        link::{Link, PATIENCE},
    },
};

/// The bus of `unix://`.
pub(crate) struct UnixBus(Arc<Link>);

/// Joins the bus that is shared on `path`. Fails at once when nobody shares one.
pub(crate) async fn join(path: PathBuf, options: &BusOptions) -> Result<Arc<dyn Bus>> {
    let link = keep::start(path, options.exchange.clone(), options.idle_expiry).await?;
    Ok(Arc::new(UnixBus(link)))
}

#[async_trait]
impl Bus for UnixBus {
    async fn publish(&self, message: Message) -> Result<()> {
        let limit = message.ttl().unwrap_or(PATIENCE).min(PATIENCE);
        let tail = envelope::encode(&message);
        // A frame that was handed to the socket may have been read, whatever happens next.
        let what = || format!("publishing to {} over {}", message.address(), self.0.name());
        self.0.ask(limit, what, |n| frame::pack(&Ask::Publish { n }, &tail)).await.map(drop)
    }

    async fn subscribe(&self, source: Source, prefetch: u16) -> Result<Subscription> {
        self.0.subscribe(source, prefetch, PATIENCE).await
    }

    async fn close(&self) -> Result<()> {
        // Bounded: a process that does not answer must not keep this one from leaving.
        let _ = timeout(PATIENCE, self.0.close()).await;
        self.0.closing.cancel();
        Ok(())
    }

    fn guarantees(&self) -> Guarantees {
        JOINED
    }

    fn connection(&self) -> ConnectionWatch {
        self.0.connectivity.watch()
    }

    async fn survey(&self) -> Result<Survey> {
        let what = || format!("a survey over {}", self.0.name());
        told(&self.0.ask(PATIENCE, what, |n| frame::pack(&Ask::Survey { n }, &[])).await?)
    }

    async fn remove_durable(&self, name: &Token, idle: Option<Duration>) -> Result<bool> {
        let what = || format!("removing the durable subscription {name} over {}", self.0.name());
        let (text, idle_ms) = (name.to_string(), idle.map(millis));
        let pack = |n| frame::pack(&Ask::Remove { n, name: text, idle_ms }, &[]);
        told(&self.0.ask(PATIENCE, what, pack).await?)
    }

    fn ledger(&self) -> Option<Arc<dyn Ledger>> {
        Some(Arc::new(Remote(self.0.clone())))
    }
}

/// The ledger of the process that shares the bus.
#[derive(Debug)]
struct Remote(Arc<Link>);

impl Remote {
    async fn ask(&self, id: MessageId, pack: impl FnOnce(u64) -> Ask) -> Result<bytes::Bytes> {
        let what = || format!("asking the ledger for message {id} over {}", self.0.name());
        self.0.ask(PATIENCE, what, |n| frame::pack(&pack(n), &[])).await
    }
}

#[async_trait]
impl Ledger for Remote {
    async fn begin(&self, place: &Origin, id: MessageId, holder: u128, lease: Duration) -> Result<Begun> {
        let (place, text, holder) = (What::dead(place), id.to_string(), format!("{holder:x}"));
        let lease_ms = millis(lease);
        let begun = self.ask(id, |n| Ask::Begin { n, place, id: text, holder, lease_ms }).await?;
        told::<WireBegun>(&begun).map(Begun::from)
    }

    async fn end(&self, place: &Origin, id: MessageId, holder: u128, done: Option<Duration>) -> Result<()> {
        let (place, text, holder) = (What::dead(place), id.to_string(), format!("{holder:x}"));
        let done_ms = done.map(millis);
        self.ask(id, |n| Ask::Finish { n, place, id: text, holder, done_ms }).await.map(drop)
    }
}

impl Drop for UnixBus {
    fn drop(&mut self) {
        self.0.closing.cancel();
    }
}

impl fmt::Debug for UnixBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("UnixBus").field(&self.0.name()).finish()
    }
}
