//! A bus in memory whose promises, ledger and deliveries a test chooses.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use commissaire::{
    Bus, ConnectionWatch, Delivery, Feed, Guarantees, Ledger, Message, Result, Settle, Settlement, Source,
    Subscription, Survey, Token,
};
use tokio::sync::mpsc;

use super::memory;

/// See the module.
#[derive(Debug)]
pub(crate) struct Double {
    pub(crate) inner: Arc<dyn Bus>,
    pub(crate) ledger: Option<Arc<dyn Ledger>>,
    pub(crate) longest_run: Option<Duration>,
    /// Whether services, queues and durable subscriptions get only what [`Double::deliver`] hands them.
    pub(crate) by_hand: bool,
    pub(crate) feeds: Mutex<Vec<Feed>>,
}

/// How a delivery by hand ended: `None` when it was given back.
pub(crate) type Ended = Option<Settlement>;

struct ByHand(mpsc::Sender<Ended>);

#[async_trait]
impl Settle for ByHand {
    async fn settle(self: Box<Self>, settlement: Settlement) -> Result<()> {
        self.0.try_send(Some(settlement)).expect("a test that waits");
        Ok(())
    }

    fn release(self: Box<Self>) {
        self.0.try_send(None).expect("a test that waits");
    }
}

impl Double {
    pub(crate) async fn new() -> Self {
        let inner = memory().await;
        Self { inner, ledger: None, longest_run: None, by_hand: false, feeds: Mutex::default() }
    }

    /// Hands `message` to whoever subscribed last, as if others had had it in hand so often.
    pub(crate) async fn deliver(&self, message: Message, redelivered: u32) -> mpsc::Receiver<Ended> {
        let (send, ended) = mpsc::channel(1);
        let feed = self.feeds.lock().unwrap().pop().expect("somebody subscribed");
        let place = feed.place().await.expect("an open subscription");
        feed.deliver(place, message, redelivered, Box::new(ByHand(send)));
        self.feeds.lock().unwrap().push(feed);
        ended
    }
}

#[async_trait]
impl Bus for Double {
    async fn publish(&self, message: Message) -> Result<()> {
        self.inner.publish(message).await
    }

    async fn subscribe(&self, source: Source, prefetch: u16) -> Result<Subscription> {
        if self.by_hand && matches!(source, Source::Service(_) | Source::Queue(_) | Source::Durable(..)) {
            let (subscription, feed) = Subscription::new(prefetch);
            self.feeds.lock().unwrap().push(feed);
            return Ok(subscription);
        }
        self.inner.subscribe(source, prefetch).await
    }

    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }

    fn guarantees(&self) -> Guarantees {
        Guarantees { longest_run: self.longest_run, ..self.inner.guarantees() }
    }

    fn connection(&self) -> ConnectionWatch {
        self.inner.connection()
    }

    async fn survey(&self) -> Result<Survey> {
        self.inner.survey().await
    }

    async fn remove_durable(&self, name: &Token, idle: Option<Duration>) -> Result<bool> {
        self.inner.remove_durable(name, idle).await
    }

    fn ledger(&self) -> Option<Arc<dyn Ledger>> {
        self.ledger.clone()
    }
}

/// A message as another consumer would get it.
pub(crate) async fn take(bus: &Arc<dyn Bus>, source: Source) -> Delivery {
    let mut taken = bus.subscribe(source, 1).await.unwrap();
    taken.next_delivery().await.unwrap()
}
