//! What systemd is told, where it started this program and wants to know (`Type=notify`, `WatchdogSec=`).

use std::fmt;

use sd_notify::NotifyState;
use tokio_util::task::AbortOnDropHandle;

use crate::driver::BusUri;

/// Tells of signs of life as often as is asked for, until it is dropped.
#[derive(Debug)]
pub(super) struct Supervised {
    _signs: Option<AbortOnDropHandle<()>>,
}

impl Supervised {
    /// Begins to give signs of life.
    pub(super) fn begin() -> Self {
        let signs = sd_notify::watchdog_enabled().map(|within| {
            AbortOnDropHandle::new(tokio::spawn(async move {
                loop {
                    tell(&[NotifyState::Watchdog]);
                    tokio::time::sleep(within / 3).await;
                }
            }))
        });
        Self { _signs: signs }
    }

    /// All answer, on this bus; also when the configuration was read again.
    pub(super) fn ready(&self, bus: &BusUri) {
        tell(&[NotifyState::Ready, NotifyState::Status(&format!("serving on {bus}"))]);
    }

    /// The configuration is read again.
    pub(super) fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => tell(&[NotifyState::Reloading, now]),
            Err(error) => complain(&error),
        }
    }

    /// It ends.
    pub(super) fn ending(&self) {
        tell(&[NotifyState::Stopping]);
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        complain(&error);
    }
}

fn complain(error: &dyn fmt::Display) {
    tracing::warn!(%error, "systemd cannot be told how this program is");
}
