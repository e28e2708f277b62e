//! The bus under test, and the stage that one scenario runs on.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt, future::BoxFuture, stream};
use rand::{SeedableRng, rngs::StdRng};

use super::{
    reader::Reader,
    server::Server,
    wait::{Failure, Outcome, within},
};
use crate::{
    address::{Address, Inbox, Key, Token},
    bus::Bus,
    driver::{BusOptions, Driver},
    error::Result,
    message::Message,
    pattern::Pattern,
    subscription::Source,
};

type Connect = Box<dyn Fn(BusOptions) -> BoxFuture<'static, Result<Arc<dyn Bus>>> + Send + Sync>;

/// A broker to run scenarios against: how to open one more connection to it.
pub struct Target {
    connect: Connect,
    exchange: Option<Token>,
    lease: Option<Duration>,
    patience: Duration,
    server: Option<tokio::sync::Mutex<Server>>,
    keeps_all: bool,
}

impl Target {
    /// A broker that `connect` opens connections to: independent ones on one bus where the exchange is the same.
    pub fn new(
        connect: impl Fn(BusOptions) -> BoxFuture<'static, Result<Arc<dyn Bus>>> + Send + Sync + 'static,
    ) -> Self {
        Self {
            connect: Box::new(connect),
            exchange: None,
            lease: None,
            patience: Duration::from_secs(15),
            server: None,
            keeps_all: true,
        }
    }

    /// The broker at `uri`, reached with `driver`. A URI that cannot be read fails the connections.
    pub fn driver(driver: Driver, uri: impl Into<String>) -> Self {
        let uri = uri.into();
        Self::new(move |options| {
            let uri = uri.parse();
            Box::pin(async move { (driver.connect)(uri?, options).await })
        })
    }

    /// A bus within this process: all connections of one exchange are one and the same.
    pub fn in_process(driver: Driver, uri: impl Into<String>) -> Self {
        let uri = uri.into();
        let open: Arc<tokio::sync::Mutex<HashMap<Token, Arc<dyn Bus>>>> = Arc::default();
        Self::new(move |options| {
            let (uri, open) = (uri.parse(), open.clone());
            Box::pin(async move {
                let mut open = open.lock().await;
                if let Some(bus) = open.get(&options.exchange) {
                    return Ok(bus.clone());
                }
                let exchange = options.exchange.clone();
                let bus = (driver.connect)(uri?, options).await?;
                open.insert(exchange, bus.clone());
                Ok(bus)
            })
        })
    }

    /// Keeps `server` running as long as the target is in use.
    #[must_use]
    pub fn on(mut self, server: Server) -> Self {
        self.server = Some(tokio::sync::Mutex::new(server));
        self
    }

    /// Says which exchange a scenario is to take, rather than a new one: where users may not touch just any.
    #[must_use]
    pub fn exchange(mut self, exchange: Token) -> Self {
        self.exchange = Some(exchange);
        self
    }

    /// Says after how long without a sign of life this transport takes a consumer for dead.
    #[must_use]
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = Some(lease);
        self
    }

    /// Says that a durable subscription which gets other patterns drops what only the old ones wanted.
    #[must_use]
    pub fn drops_unwanted(mut self) -> Self {
        self.keeps_all = false;
        self
    }

    /// Whether what a durable subscription has stays when it gets other patterns.
    pub(super) fn keeps_all(&self) -> bool {
        self.keeps_all
    }

    /// One more connection.
    pub(super) async fn open(&self, options: BusOptions) -> Outcome<Arc<dyn Bus>> {
        Ok(within("connecting", self.patience, (self.connect)(options)).await??)
    }

    /// Kills the server and starts it again; returns when it answers. Nothing happens where there is none.
    pub(super) async fn restart(&self) -> Outcome {
        let Some(server) = &self.server else { return Ok(()) };
        let mut server = server.lock().await;
        server.kill();
        server.restart().await
    }

    /// How long what a consumer had may stay away when nobody could say that it was given back.
    pub(super) fn longest_lease(&self) -> Duration {
        self.lease.unwrap_or_default() * 2
    }

    /// The bound of each wait.
    pub(super) fn bound(&self) -> Duration {
        self.patience
    }

    /// Bounds each wait of a scenario. Default 15 s.
    #[must_use]
    pub fn patience(mut self, limit: Duration) -> Self {
        self.patience = limit;
        self
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target").field("lease", &self.lease).finish_non_exhaustive()
    }
}

/// Where one scenario runs: a target, an exchange of its own, a seed.
#[derive(Debug)]
pub struct Stage {
    target: Target,
    exchange: Token,
    seed: u64,
    opened: Mutex<Vec<Arc<dyn Bus>>>,
}

impl Stage {
    /// A stage on `target` with an exchange that nothing else uses.
    pub fn new(target: Target, seed: u64) -> Outcome<Self> {
        let own = target.exchange.clone();
        let exchange = own.map_or_else(|| Token::new(format!("t{:016x}", rand::random::<u64>())), Ok)?;
        Ok(Self { target, exchange, seed, opened: Mutex::default() })
    }

    /// One more connection to the bus.
    pub async fn bus(&self) -> Outcome<Arc<dyn Bus>> {
        self.connect(self.exchange.clone()).await
    }

    /// A connection to another bus on the same broker, with a name that is as close as can be.
    pub async fn other_bus(&self) -> Outcome<Arc<dyn Bus>> {
        self.connect(Token::new(format!("{}_q", self.exchange))?).await
    }

    async fn connect(&self, exchange: Token) -> Outcome<Arc<dyn Bus>> {
        let options = BusOptions { exchange, client_name: "conformance".into(), ..BusOptions::default() };
        let bus = within("connecting", self.patience(), (self.target.connect)(options)).await??;
        self.opened.lock().unwrap_or_else(PoisonError::into_inner).push(bus.clone());
        Ok(bus)
    }

    /// Subscribes, and reads with bounds.
    pub async fn reader(&self, bus: &Arc<dyn Bus>, source: Source, prefetch: u16) -> Outcome<Reader> {
        let what = source.to_string();
        let subscription =
            within(format_args!("subscribing to {what}"), self.patience(), bus.subscribe(source, prefetch))
                .await??;
        Ok(Reader::new(what, subscription, self.patience()))
    }

    /// Publishes within the bound.
    pub async fn publish(&self, bus: &Arc<dyn Bus>, message: Message) -> Outcome {
        let what = format!("publishing to {}", message.address());
        within(&what, self.patience(), bus.publish(message))
            .await?
            .map_err(|e| Failure::from(e).in_step(what))
    }

    /// Publishes all of `messages`, many at once, in no particular order.
    pub async fn publish_all(&self, bus: &Arc<dyn Bus>, messages: Vec<Message>) -> Outcome {
        let mut under_way =
            stream::iter(messages).map(|message| self.publish(bus, message)).buffer_unordered(32);
        while let Some(published) = under_way.next().await {
            published?;
        }
        Ok(())
    }

    /// The bound of each wait.
    pub fn patience(&self) -> Duration {
        self.target.patience
    }

    /// After how long the transport takes a silent consumer for dead, if it measures that.
    pub fn lease(&self) -> Option<Duration> {
        self.target.lease
    }

    /// Random numbers of this run's seed.
    pub fn random(&self) -> StdRng {
        StdRng::seed_from_u64(self.seed)
    }

    /// Closes what the scenario opened.
    pub async fn close(&self) -> Outcome {
        let opened = std::mem::take(&mut *self.opened.lock().unwrap_or_else(PoisonError::into_inner));
        for bus in opened {
            within("closing", self.patience(), bus.close()).await??;
        }
        Ok(())
    }
}

/// A key that is known to be one.
pub(crate) fn key(text: &str) -> Key {
    Key::new(text).expect("a key in a test is in the grammar")
}

/// A name that is known to be one.
pub(crate) fn token(text: &str) -> Token {
    Token::new(text).expect("a name in a test is in the grammar")
}

/// Patterns that are known to be such.
pub(crate) fn patterns(texts: &[&str]) -> Vec<Pattern> {
    texts.iter().map(|text| Pattern::new(text).expect("a pattern in a test is in the grammar")).collect()
}

/// A message with a text for a body.
pub(crate) fn text(address: Address, body: impl Into<String>) -> Message {
    Message::new(address, body.into()).expect("a text in a test is small")
}

/// A call with a time to live long enough for any test.
pub(crate) fn call(to: &str, body: impl Into<String>) -> Message {
    text(Address::Service(key(to)), body).with_ttl(Duration::from_secs(60))
}

/// A job.
pub(crate) fn job(queue: &str, body: impl Into<String>) -> Message {
    text(Address::Queue(key(queue)), body)
}

/// An event.
pub(crate) fn event(topic: &str, body: impl Into<String>) -> Message {
    text(Address::Topic(key(topic)), body)
}

/// A reply.
pub(crate) fn reply(inbox: Inbox, body: impl Into<String>) -> Message {
    text(Address::Inbox(inbox), body)
}

/// A message's body as text.
pub(crate) fn body(message: &Message) -> String {
    String::from_utf8_lossy(message.body()).into_owned()
}
