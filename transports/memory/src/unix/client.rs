//! The bus of a process that has joined.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use commissaire::{
    Bus, BusOptions, ConnectionWatch, Connectivity, Error, Guarantees, Message, Result, Source, Subscription,
    Survey, Token, envelope,
};
use tokio::time::timeout;

use crate::{
    bus::PROMISES,
    unix::{
        frame::{self, Ask},
        keep,
        link::{Link, PATIENCE},
    },
};

/// The bus of `unix://`.
pub(crate) struct UnixBus(Arc<Link>, Connectivity);

/// Joins the bus that is shared on `path`. Fails at once when nobody shares one.
pub(crate) async fn join(path: PathBuf, options: &BusOptions) -> Result<Arc<dyn Bus>> {
    let link = keep::start(path, options.exchange.clone()).await?;
    let connectivity = Connectivity::new(link.name());
    Ok(Arc::new(UnixBus(link, connectivity)))
}

#[async_trait]
impl Bus for UnixBus {
    async fn publish(&self, message: Message) -> Result<()> {
        let limit = message.ttl().unwrap_or(PATIENCE).min(PATIENCE);
        let tail = envelope::encode(&message);
        // A frame that was handed to the socket may have been read, whatever happens next.
        let what = || format!("publishing to {} over {}", message.address(), self.0.name());
        self.0.ask(limit, what, |n| frame::pack(&Ask::Publish { n }, &tail)).await
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
        Guarantees { shared: true, ..PROMISES }
    }

    fn connection(&self) -> ConnectionWatch {
        self.1.watch()
    }

    async fn survey(&self) -> Result<Survey> {
        Err(Error::invalid("the unix transport cannot be surveyed yet"))
    }

    async fn remove_durable(&self, _name: &Token, _idle: Option<Duration>) -> Result<bool> {
        Err(Error::invalid("the unix transport cannot remove subscriptions yet"))
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
