//! Whether a bus is connected to its broker now, and the event when that changes.

use std::time::Duration;

use tokio::{sync::watch, time::Instant};

/// The state of a bus's connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Connection {
    /// All that it needs are there.
    Up,
    /// At least one is lost and being made again.
    Down {
        /// Why, in words. Never a secret.
        why: String,
    },
}

/// A transport's end of the state: says what holds now, and logs each change once.
#[derive(Debug)]
pub struct Connectivity {
    state: watch::Sender<(Connection, Instant)>,
    place: String,
}

impl Connectivity {
    /// Connected to `place`, which is shown in logs: never a secret.
    pub fn new(place: impl Into<String>) -> Self {
        Self { state: watch::Sender::new((Connection::Up, Instant::now())), place: place.into() }
    }

    /// Everything is connected again.
    pub fn up(&self) {
        let mut down = None;
        self.state.send_if_modified(|(state, since)| {
            let changed = *state != Connection::Up;
            if changed {
                down = Some(since.elapsed());
                (*state, *since) = (Connection::Up, Instant::now());
            }
            changed
        });
        if let Some(down) = down {
            let down = Duration::from_millis(down.as_millis() as u64);
            tracing::info!(bus = self.place, ?down, "the bus is connected again");
        }
    }

    /// A connection is lost. The first reason counts until it is up again.
    pub fn down(&self, why: impl Into<String>) {
        let why = why.into();
        let lost = self.state.send_if_modified(|(state, since)| {
            let changed = *state == Connection::Up;
            if changed {
                (*state, *since) = (Connection::Down { why: why.clone() }, Instant::now());
            }
            changed
        });
        if lost {
            tracing::warn!(bus = self.place, why, "the bus has lost its connection and makes it again");
        }
    }

    /// The state now, and a way to wait for its changes.
    pub fn watch(&self) -> ConnectionWatch {
        ConnectionWatch(self.state.subscribe())
    }
}

/// Follows the state of a bus's connections; see [`Bus::connection`](crate::Bus::connection).
#[derive(Debug, Clone)]
pub struct ConnectionWatch(watch::Receiver<(Connection, Instant)>);

impl ConnectionWatch {
    /// What holds now.
    pub fn now(&self) -> Connection {
        self.0.borrow().0.clone()
    }

    /// Waits for the next change, and says what holds then; `None` when the bus is gone. States that held only for a
    /// moment may be passed over. Cancel-safe.
    pub async fn changed(&mut self) -> Option<Connection> {
        self.0.changed().await.ok()?;
        Some(self.0.borrow_and_update().0.clone())
    }
}
