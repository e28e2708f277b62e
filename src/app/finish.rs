//! How a program ends: told by a signal, or because a service cannot go on.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use crate::{
    config::Config,
    error::{Error, ErrorKind, Result},
    service::Running,
};

/// A service as a program holds it.
#[async_trait]
pub trait Instance: Send + Sync {
    /// Whether it really consumes, everything it should.
    fn is_ready(&self) -> bool;
    /// Takes over what it can, while it runs, of a configuration in which these members of its own have changed. Returns
    /// those that it did not take over: they hold after a restart.
    fn reconfigure(&self, config: &Config, changed: &[String]) -> Vec<String> {
        let _ = config;
        changed.to_vec()
    }
    /// Takes nothing new, finishes what was begun within `grace`, and ends.
    async fn finish(self: Box<Self>, grace: Duration);
}

#[async_trait]
impl Instance for Running {
    fn is_ready(&self) -> bool {
        self.is_consuming()
    }

    async fn finish(self: Box<Self>, grace: Duration) {
        self.drain(grace).await;
    }
}

/// By which a service says that it cannot go on. The program then ends in order, with the error's exit code.
#[derive(Debug, Clone)]
pub struct Failure(Arc<watch::Sender<Option<Arc<Error>>>>);

impl Default for Failure {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }
}

impl Failure {
    /// Ends the program because of `error`. The first one counts.
    pub fn report(&self, error: Error) {
        self.0.send_if_modified(|known| {
            let first = known.is_none();
            known.get_or_insert_with(|| Arc::new(error));
            first
        });
    }

    async fn reported(&self) -> Arc<Error> {
        let mut reports = self.0.subscribe();
        match reports.wait_for(Option::is_some).await.map(|report| report.clone()) {
            Ok(Some(error)) => error,
            // The sender lives as long as this failure does.
            _ => std::future::pending().await,
        }
    }
}

/// Waits for SIGTERM or SIGINT (`Ok`), or for a service that cannot go on. Signals count from this call on, whenever
/// what it returns is awaited.
pub fn until_told(failure: &Failure) -> Result<impl Future<Output = Result<(), Arc<Error>>> + use<>> {
    let listen = |kind| {
        signal(kind).map_err(|e| Error::new(ErrorKind::Config, "cannot listen for signals").because(e))
    };
    let (mut term, mut int) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    let failure = failure.clone();
    Ok(async move {
        tokio::select! {
            _ = term.recv() => Ok(()),
            _ = int.recv() => Ok(()),
            error = failure.reported() => Err(error),
        }
    })
}
