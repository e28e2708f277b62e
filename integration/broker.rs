//! What differs between buses: how to have one.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use commissaire::{
    Bus, BusOptions, Token, connect,
    testkit::{Failure, Outcome, Proxy, Server, within},
};
use tokio::sync::OnceCell;

use crate::{
    PATIENCE,
    place::Place,
    process::{Order, Process},
    tls,
};

/// The buses that programs can share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// In the memory of one process, on a socket.
    Memory,
    /// On a Redis server that loses nothing when it is killed.
    Redis,
    /// On a NATS server with JetStream.
    Nats,
    /// On a RabbitMQ node.
    Amqp,
}

/// A bus of one's own.
#[derive(Debug)]
pub enum Broker {
    /// An `up` whose own services are in another name space: only its bus is used.
    Memory(Box<Process>, String),
    /// A server.
    Server(Kind, Server),
    /// A server that starts slowly, and so is one for all tests that leave it alone; in a name space of one's own.
    Shared(Kind, &'static Server),
}

/// A home, and a bus that all programs started there use.
#[derive(Debug)]
pub struct Site {
    /// The home.
    pub place: Place,
    /// The bus.
    pub broker: Broker,
    /// The name space on it.
    pub exchange: String,
    /// What stands before the broker, if anything does.
    pub proxy: Option<Proxy>,
    /// Where the bus is reached, if not where the broker says.
    uri: Option<String>,
}

impl Kind {
    /// How long after the broker is reachable again until everything goes on.
    pub fn back(self) -> std::time::Duration {
        std::time::Duration::from_secs(if self == Self::Amqp { 10 } else { 5 })
    }

    async fn server(self) -> Outcome<Server> {
        match self {
            Self::Memory => Err(Failure::new("the memory bus has no server")),
            Self::Redis => Server::redis(&Broker::STRICT).await,
            Self::Nats => Server::nats(&[]).await,
            Self::Amqp => Server::rabbitmq(&[]).await,
        }
    }
}

impl Broker {
    /// The settings of a Redis that keeps what it has acknowledged.
    pub const STRICT: [(&str, &str); 3] =
        [("appendonly", "yes"), ("appendfsync", "always"), ("maxmemory-policy", "noeviction")];

    /// Starts one; what it keeps is in `place`.
    async fn start(kind: Kind, place: &Place) -> Outcome<Self> {
        Ok(match kind {
            Kind::Memory => {
                let up = place.up(&["--only", "simple", "--bus-exchange", "elsewhere"]).await?;
                Self::Memory(Box::new(up), place.socket_uri())
            }
            kind => Self::Server(kind, kind.server().await?),
        })
    }

    /// Its `bus_uri`.
    pub fn uri(&self) -> String {
        let of = |kind: &Kind, server: &Server| match kind {
            Kind::Amqp | Kind::Memory => server.uri(),
            Kind::Redis | Kind::Nats => format!("{}?durability=strict", server.uri()),
        };
        match self {
            Self::Memory(_, uri) => uri.clone(),
            Self::Server(kind, server) => of(kind, server),
            Self::Shared(kind, server) => of(kind, server),
        }
    }

    /// The server, if it is one that nobody else is on.
    pub fn server(&mut self) -> Outcome<&mut Server> {
        match self {
            Self::Server(_, server) => Ok(server),
            Self::Memory(..) => Err(Failure::new("the memory bus has no server")),
            Self::Shared(..) => Err(Failure::new("other tests are on this server: take a Site::alone")),
        }
    }
}

impl Site {
    /// A home with a bus of this kind, on a server that is left alone: other tests may be on it.
    pub async fn on(kind: Kind) -> Outcome<Self> {
        // Lives as long as the tests: a server dies with the process that started it.
        static RABBIT: OnceCell<Server> = OnceCell::const_new();
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        if kind != Kind::Amqp {
            return Self::alone(kind).await;
        }
        let broker = Broker::Shared(kind, RABBIT.get_or_try_init(|| kind.server()).await?);
        let exchange = format!("site-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        Ok(Self { place: Place::new()?, broker, exchange, proxy: None, uri: None })
    }

    /// A home with a bus of this kind that nobody else is on.
    pub async fn alone(kind: Kind) -> Outcome<Self> {
        let place = Place::new()?;
        let broker = Broker::start(kind, &place).await?;
        Ok(Self::of(place, broker, None))
    }

    /// The same over TLS, with an authority of its own that clients trust by name.
    pub async fn over_tls(kind: Kind) -> Outcome<Self> {
        let place = Place::new()?;
        let (server, uri) = tls::server(kind, place.path()).await?;
        Ok(Self::of(place, Broker::Server(kind, server), Some(uri)))
    }

    /// A home with this bus, at `uri` if not where the broker says.
    pub fn of(place: Place, broker: Broker, uri: Option<String>) -> Self {
        let exchange = BusOptions::default().exchange.to_string();
        Self { place, broker, exchange, proxy: None, uri }
    }

    /// The same with a proxy before its broker. `seed` is that of what is random in it.
    pub async fn behind_proxy(mut self, seed: u64) -> Outcome<Self> {
        let uri = self.uri();
        let behind = uri.split("127.0.0.1:").nth(1).unwrap_or_default();
        let port = behind.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
        let port = port.parse().map_err(|_| Failure::new(format!("{uri:?} has no port to stand before")))?;
        let proxy = Proxy::seeded(port, seed).await?;
        self.uri = Some(proxy.uri(&uri)?);
        self.proxy = Some(proxy);
        Ok(self)
    }

    /// The `bus_uri` of programs here.
    pub fn uri(&self) -> String {
        self.uri.clone().unwrap_or_else(|| self.broker.uri())
    }

    /// The program `name` on this bus.
    pub fn order(&self, name: &str) -> Outcome<Order> {
        let order = self.place.order(name)?.env("COMMISSAIRE_BUS_URI", self.uri());
        Ok(order.env("COMMISSAIRE_BUS_EXCHANGE", &self.exchange))
    }

    /// `commissaire` with these arguments on this bus.
    pub fn cli(&self, arguments: &[&str]) -> Outcome<Order> {
        Ok(self.order("commissaire")?.args(arguments))
    }

    /// The program of the service `name` with these arguments; returns when it answers.
    pub async fn service(&self, name: &str, arguments: &[&str]) -> Outcome<Process> {
        let mut service = self.order(&format!("commissaire-{name}-service"))?.args(arguments).start()?;
        service.logs("ready", |line| line.contains("INFO") && line.contains(" ready ")).await?;
        Ok(service)
    }

    /// This process on the bus.
    pub async fn join(&self) -> Outcome<Arc<dyn Bus>> {
        let options = BusOptions { exchange: Token::new(&self.exchange)?, ..BusOptions::default() };
        join_as(&self.uri(), &options).await
    }
}

/// This process on the bus at `uri`.
pub async fn join(uri: &str) -> Outcome<Arc<dyn Bus>> {
    join_as(uri, &BusOptions::default()).await
}

async fn join_as(uri: &str, options: &BusOptions) -> Outcome<Arc<dyn Bus>> {
    let uri = uri.parse()?;
    let connected = connect(&uri, options, commissaire_transports::ALL);
    Ok(within("joining the bus", PATIENCE, connected).await??)
}
