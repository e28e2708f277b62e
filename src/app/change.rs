//! When a configuration may have changed.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{
    config::EtcdKey,
    error::{Error, Result},
};

/// Why a configuration is to be read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// SIGHUP asks for it.
    Asked,
    /// etcd tells of something new.
    Etcd,
}

/// Tells when a configuration may have changed.
pub(super) struct Changes {
    hangup: Signal,
    etcd: Option<EtcdKey>,
}

impl Changes {
    /// From now on SIGHUP no longer ends this process.
    pub(super) fn new(etcd: Option<EtcdKey>) -> Result<Self> {
        let hangup = signal(SignalKind::hangup())
            .map_err(|e| Error::config("cannot listen for signals").because(e))?;
        Ok(Self { hangup, etcd })
    }

    /// Returns when it may have. Nothing is missed between two calls.
    pub(super) async fn next(&mut self) -> Change {
        let etcd = async {
            match &self.etcd {
                Some(key) => key.changed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(()) = self.hangup.recv() => Change::Asked,
            () = etcd => Change::Etcd,
        }
    }
}
