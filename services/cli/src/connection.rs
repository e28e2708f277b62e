//! Which bus a command talks to.

use std::sync::Arc;

use clap::Args;
use commissaire::{
    Bus, BusUri, Client, Error, Result,
    app::{find_bus, open_bus},
    config::{Config, Hidden, Layers},
};

/// What the commands are called in the broker's list of clients.
pub(crate) const CLIENT: &str = "commissaire-cli";

/// The options that say which bus.
#[derive(Debug, Clone, Args)]
pub(crate) struct Connection {
    /// The bus: memory://, unix:///path/bus.sock, redis://HOST …; a password is better put into COMMISSAIRE_BUS_URI,
    /// for other users of this machine can see the command line
    #[arg(long, value_name = "URI")]
    bus_uri: Option<Hidden>,
    /// The name space on the bus [default: commissaire]
    #[arg(long, value_name = "NAME")]
    bus_exchange: Option<String>,
}

impl Connection {
    /// One to this bus.
    pub(crate) fn to(bus_uri: Hidden, bus_exchange: Option<String>) -> Self {
        Self { bus_uri: Some(bus_uri), bus_exchange }
    }

    /// The environment over `layers`, and over that the options.
    pub(crate) fn over(&self, layers: Layers) -> Layers {
        layers
            .environment()
            .set("bus_uri", self.bus_uri.as_ref())
            .set("bus_exchange", self.bus_exchange.as_ref())
    }

    /// Connects to the bus that is configured, else to that of a running `up`.
    pub(crate) async fn open(&self) -> Result<Arc<dyn Bus>> {
        let (uri, config) = self.target()?;
        open_bus(&uri, &config, CLIENT, commissaire_transports::ALL).await
    }

    /// The bus that is meant, and with what else it is connected.
    pub(crate) fn target(&self) -> Result<(BusUri, Config)> {
        self.check()?;
        let config = self.over(Layers::new()).load()?;
        let uri = match &config.common().bus_uri {
            Some(uri) => uri.clone(),
            None => find_bus()?,
        };
        Ok((uri, config))
    }

    /// A client on the bus.
    pub(crate) async fn client(&self) -> Result<Client> {
        Ok(Client::new(self.open().await?))
    }

    /// What clap would say of the options, in the words of the library.
    pub(crate) fn check(&self) -> Result<()> {
        if let Some(uri) = &self.bus_uri {
            uri.0.parse::<commissaire::BusUri>()?;
        }
        if let Some(exchange) = &self.bus_exchange {
            commissaire::Token::new(exchange).map_err(|e| Error::config(format!("--bus-exchange: {e}")))?;
        }
        Ok(())
    }
}
