//! A connection that is made again whenever it breaks.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use commissaire::Connectivity;
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout_at},
};
use tokio_util::sync::CancellationToken;

use crate::{
    names::Names,
    topology,
    wire::{Channel, Connection, Dialer, Fault, Silent, method},
};

/// The least time between two dials of one link.
const PACE: Duration = Duration::from_secs(1);

/// What one link needs.
#[derive(Clone)]
pub(crate) struct Making {
    pub(crate) dialer: Arc<Dialer>,
    pub(crate) names: Names,
    pub(crate) role: Role,
    /// It dials only when that one is up.
    pub(crate) after: Option<Link>,
    pub(crate) health: Arc<Health>,
    /// Cancelled when it is closed in order: then it is not made again.
    pub(crate) farewell: CancellationToken,
    pub(crate) end: CancellationToken,
}

/// What a link is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// It publishes, so it declares the exchanges and has channels that confirm.
    Publishing,
    Consuming,
    /// The registry's: it publishes, and the bus is well without it.
    Registry,
}

/// Whether the links that a bus needs are up.
pub(crate) struct Health {
    pub(crate) connectivity: Connectivity,
    up: [AtomicBool; 2],
}

/// A link that is up, or was.
#[derive(Clone)]
pub(crate) struct Up {
    pub(crate) connection: Connection,
    /// Channels that confirm: one for what is stored, one for what is not. Empty where nothing is published.
    confirming: Vec<Channel>,
    /// When it was made, if it took the place of one that was lost.
    again: Option<Instant>,
}

/// The connection, now and later. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Link(watch::Receiver<Option<Up>>);

impl Health {
    pub(crate) fn new(connectivity: Connectivity) -> Self {
        Self { connectivity, up: [true, true].map(AtomicBool::new) }
    }

    fn is(&self, role: Role, down: Option<&str>) {
        if role == Role::Registry {
            return;
        }
        self.up[usize::from(role == Role::Publishing)].store(down.is_none(), Ordering::Release);
        match down {
            Some(why) => self.connectivity.down(why),
            None if self.up.iter().all(|up| up.load(Ordering::Acquire)) => self.connectivity.up(),
            None => {}
        }
    }
}

impl Up {
    /// The channel to publish on.
    pub(crate) fn confirming(&self, stored: bool) -> Option<&Channel> {
        self.confirming.get(usize::from(stored))
    }

    /// Whether it took the place of a lost one less than `age` ago.
    pub(crate) fn is_new_again(&self, age: Duration) -> bool {
        self.again.is_some_and(|made| made.elapsed() < age)
    }

    async fn lost(&self) {
        let mut gone = self.confirming.iter().map(Channel::gone);
        let none = CancellationToken::new();
        let (first, second) = (gone.next().unwrap_or(none.clone()), gone.next().unwrap_or(none.clone()));
        tokio::select! {
            () = self.connection.down().cancelled() => {}
            () = first.cancelled() => {}
            () = second.cancelled() => {}
        }
    }
}

impl Link {
    /// Makes the first connection, whose errors are the caller's, and keeps it up from then on.
    pub(crate) async fn make(making: Making) -> commissaire::Result<Self> {
        let connection = making.dialer.dial_any().await?;
        let made = making.furnish(&connection).await;
        let confirming = made.map_err(|fault| fault.into_error("declaring the exchanges of the bus"))?;
        let up = Up { connection, confirming, again: None };
        let (sender, receiver) = watch::channel(Some(up.clone()));
        tokio::spawn(async move {
            making.end.run_until_cancelled(making.keep(up, &sender)).await;
            if let Some(up) = sender.send_replace(None) {
                up.connection.cut("closed");
            }
        });
        Ok(Self(receiver))
    }

    /// The connection, waited for until `deadline`.
    pub(crate) async fn until(&self, deadline: Instant) -> Option<Up> {
        match self.now() {
            Some(up) => Some(up),
            None => timeout_at(deadline, self.up()).await.ok()?,
        }
    }

    /// The connection, if it is up.
    pub(crate) fn now(&self) -> Option<Up> {
        self.0.borrow().clone().filter(|up| !up.connection.is_down())
    }

    /// The connection, however long it takes; `None` when the bus has closed.
    pub(crate) async fn up(&self) -> Option<Up> {
        let mut receiver = self.0.clone();
        let up = receiver.wait_for(|up| up.as_ref().is_some_and(|up| !up.connection.is_down())).await;
        up.ok()?.clone()
    }
}

impl Making {
    /// What a new connection needs before anybody uses it.
    async fn furnish(&self, connection: &Connection) -> Result<Vec<Channel>, Fault> {
        if self.role == Role::Consuming {
            return Ok(Vec::new());
        }
        topology::exchanges(connection, &self.names).await?;
        let mut confirming = Vec::with_capacity(2);
        for _ in 0..2 {
            let channel = connection.channel(Arc::new(Silent)).await?;
            channel.call(&method::confirm_select(&self.names.ctl())).await?;
            confirming.push(channel);
        }
        Ok(confirming)
    }

    async fn keep(&self, mut up: Up, sender: &watch::Sender<Option<Up>>) {
        let mut dialled = Instant::now();
        loop {
            up.lost().await;
            sender.send_replace(None);
            if self.farewell.is_cancelled() {
                return;
            }
            let mut connection = up.connection.clone();
            let why = if connection.is_down() { connection.why() } else { "a channel was closed".to_owned() };
            self.health.is(self.role, Some(&why));
            let confirming = loop {
                if let Some(after) = &self.after
                    && after.up().await.is_none()
                {
                    return;
                }
                // A connection whose channel was closed is as good as before, but it is not asked all the time either.
                sleep_until(dialled + PACE.mul_f64(1.0 + 0.3 * rand::random::<f64>())).await;
                dialled = Instant::now();
                if connection.is_down() {
                    match self.dialer.dial().await {
                        Ok(made) => connection = made,
                        Err(error) => {
                            tracing::debug!(%error, "rabbitmq is out of reach");
                            continue;
                        }
                    }
                }
                match self.furnish(&connection).await {
                    Ok(confirming) => break confirming,
                    Err(fault) => {
                        tracing::warn!(error = %fault.into_error("declaring the exchanges of the bus"), "the bus is not ready");
                        connection.cut("it could not be used");
                        // The broker may be starting.
                        sleep(PACE).await;
                    }
                }
            };
            up = Up { connection, confirming, again: Some(Instant::now()) };
            sender.send_replace(Some(up.clone()));
            self.health.is(self.role, None);
        }
    }
}
