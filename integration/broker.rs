//! What differs between buses: how to have one.

use std::sync::Arc;

use commissaire::{
    Bus, BusOptions, connect,
    testkit::{Failure, Outcome, Server, within},
};

use crate::{
    PATIENCE,
    place::Place,
    process::{Order, Process},
};

/// The buses that programs can share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// In the memory of one process, on a socket.
    Memory,
    /// On a Redis server that loses nothing when it is killed.
    Redis,
}

/// A bus of one's own.
#[derive(Debug)]
pub enum Broker {
    /// An `up` whose own services are in another name space: only its bus is used.
    Memory(Box<Process>, String),
    /// A server.
    Redis(Server),
}

/// A home, and a bus that all programs started there use.
#[derive(Debug)]
pub struct Site {
    /// The home.
    pub place: Place,
    /// The bus.
    pub broker: Broker,
}

impl Broker {
    /// The settings of a Redis that keeps what it has acknowledged.
    pub const STRICT: [(&str, &str); 3] =
        [("appendonly", "yes"), ("appendfsync", "always"), ("maxmemory-policy", "noeviction")];

    /// Starts one; what it keeps is in `place`.
    pub async fn start(kind: Kind, place: &Place) -> Outcome<Self> {
        Ok(match kind {
            Kind::Memory => {
                let up = place.up(&["--only", "simple", "--bus-exchange", "elsewhere"]).await?;
                Self::Memory(Box::new(up), place.socket_uri())
            }
            Kind::Redis => Self::Redis(Server::redis(&Self::STRICT).await?),
        })
    }

    /// Its `bus_uri`.
    pub fn uri(&self) -> String {
        match self {
            Self::Memory(_, uri) => uri.clone(),
            Self::Redis(server) => format!("{}?durability=strict", server.uri()),
        }
    }

    /// The server, if it is one.
    pub fn server(&mut self) -> Outcome<&mut Server> {
        match self {
            Self::Redis(server) => Ok(server),
            Self::Memory(..) => Err(Failure::new("the memory bus has no server")),
        }
    }
}

impl Site {
    /// A home with a bus of this kind.
    pub async fn on(kind: Kind) -> Outcome<Self> {
        let place = Place::new()?;
        let broker = Broker::start(kind, &place).await?;
        Ok(Self { place, broker })
    }

    /// The program `name` on this bus.
    pub fn order(&self, name: &str) -> Outcome<Order> {
        Ok(self.place.order(name)?.env("COMMISSAIRE_BUS_URI", self.broker.uri()))
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
        join(&self.broker.uri()).await
    }
}

/// This process on the bus at `uri`.
pub async fn join(uri: &str) -> Outcome<Arc<dyn Bus>> {
    let (uri, options) = (uri.parse()?, BusOptions::default());
    let connected = connect(&uri, &options, commissaire_transports::ALL);
    Ok(within("joining the bus", PATIENCE, connected).await??)
}
