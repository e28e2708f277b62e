//! A connection to the hub in this process.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicBool},
    time::Duration,
};

use async_trait::async_trait;
use commissaire::{
    Bus, ConnectionWatch, Connectivity, Durability, Error, ErrorKind, Feed, Guarantees, Ledger, Message,
    Result, Source, Subscription, Survey, Token,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    hub::{Hub, Seat},
    ledger::HubLedger,
    line::Drawn,
    settle::InHand,
    unix,
};

/// What a memory bus promises while it is not shared.
pub(crate) const PROMISES: Guarantees = Guarantees {
    durability: Durability::None,
    shared: false,
    replies_kept: true,
    republish_window: None,
    shared_ledger: true,
    longest_run: None,
};

/// What it promises to a process that has joined: replies that come while it is away are lost.
pub(crate) const JOINED: Guarantees = Guarantees { shared: true, replies_kept: false, ..PROMISES };

/// The bus of `memory://`.
pub(crate) struct MemoryBus {
    connection: Connection,
    server: Mutex<Option<unix::Server>>,
    connectivity: Connectivity,
    expiry: Duration,
    shared: bool,
}

/// One user of a hub: the subscriptions that end together.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    hub: Arc<Hub>,
    closing: CancellationToken,
    died: Arc<AtomicBool>,
    listeners: TaskTracker,
}

impl MemoryBus {
    /// A durable subscription that is made here may be removed after `expiry` without a reader.
    pub(crate) fn new(hub: Arc<Hub>, server: Option<unix::Server>, expiry: Duration) -> Self {
        let shared = server.is_some();
        Self {
            connection: Connection::new(hub),
            server: Mutex::new(server),
            connectivity: Connectivity::new("memory"),
            expiry,
            shared,
        }
    }
}

#[async_trait]
impl Bus for MemoryBus {
    async fn publish(&self, message: Message) -> Result<()> {
        self.connection.publish(message)
    }

    async fn subscribe(&self, source: Source, prefetch: u16) -> Result<Subscription> {
        self.connection.subscribe(source, prefetch, self.expiry)
    }

    async fn close(&self) -> Result<()> {
        let server = self.server.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(server) = server {
            server.close().await;
        }
        self.connection.close().await;
        Ok(())
    }

    fn guarantees(&self) -> Guarantees {
        Guarantees { shared: self.shared, ..PROMISES }
    }

    fn connection(&self) -> ConnectionWatch {
        self.connectivity.watch()
    }

    async fn survey(&self) -> Result<Survey> {
        self.connection.survey("in this process")
    }

    async fn remove_durable(&self, name: &Token, idle: Option<Duration>) -> Result<bool> {
        self.connection.remove_durable(name, idle)
    }

    fn ledger(&self) -> Option<Arc<dyn Ledger>> {
        Some(self.connection.ledger())
    }
}

impl Connection {
    pub(crate) fn new(hub: Arc<Hub>) -> Self {
        Self { hub, closing: CancellationToken::new(), died: Arc::default(), listeners: TaskTracker::new() }
    }

    pub(crate) fn publish(&self, message: Message) -> Result<()> {
        self.check_open()?;
        self.hub.publish(message)
    }

    pub(crate) fn subscribe(&self, source: Source, prefetch: u16, expiry: Duration) -> Result<Subscription> {
        self.check_open()?;
        let seat = self.hub.join(source, expiry)?;
        let (subscription, feed) = Subscription::new(prefetch);
        feed.consuming().set(true);
        self.listeners.spawn(self.clone().listen(seat, feed));
        Ok(subscription)
    }

    pub(crate) fn survey(&self, place: &str) -> Result<Survey> {
        self.check_open()?;
        Ok(self.hub.survey(place))
    }

    pub(crate) fn remove_durable(&self, name: &Token, idle: Option<Duration>) -> Result<bool> {
        self.check_open()?;
        Ok(self.hub.remove(name, idle))
    }

    pub(crate) fn ledger(&self) -> Arc<HubLedger> {
        Arc::new(HubLedger(self.hub.clone()))
    }

    /// Ends all subscriptions; what they had taken stays with their consumers.
    pub(crate) async fn close(&self) {
        self.closing.cancel();
        self.listeners.close();
        self.listeners.wait().await;
    }

    /// Ends all subscriptions of a consumer that died: what it had in hand comes again as suspect.
    pub(crate) fn abort(&self) {
        self.died.store(true, std::sync::atomic::Ordering::Release);
        self.closing.cancel();
    }

    async fn listen(self, seat: Seat, feed: Feed) {
        loop {
            let place = tokio::select! {
                biased;
                () = self.closing.cancelled() => break,
                place = feed.place() => match place {
                    Some(place) => place,
                    None => break,
                },
            };
            let drawn = tokio::select! {
                biased;
                () = self.closing.cancelled() => break,
                () = feed.closed() => break,
                drawn = seat.line.draw() => drawn,
            };
            match drawn {
                Drawn::Lost(count) => {
                    feed.gap(format!("{count} messages were lost: the subscriber did not keep up"));
                }
                Drawn::Entry(entry) => match seat.origin() {
                    Some(origin) => {
                        let (message, redelivered) = (entry.message.clone(), entry.redelivered);
                        let settle = InHand {
                            hub: self.hub.clone(),
                            line: seat.line.clone(),
                            origin,
                            dead: seat.is_dead(),
                            entry,
                            died: self.died.clone(),
                        };
                        feed.deliver(place, message, redelivered, Box::new(settle));
                    }
                    None => {
                        seat.line.forget(&entry);
                        feed.deliver_unsettled(place, entry.into_message());
                    }
                },
            }
        }
        self.hub.leave(&seat);
    }

    fn check_open(&self) -> Result<()> {
        if self.closing.is_cancelled() {
            return Err(Error::new(ErrorKind::Closed, "the memory bus is closed"));
        }
        Ok(())
    }
}

impl fmt::Debug for MemoryBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryBus").field("shared", &self.shared).finish_non_exhaustive()
    }
}
