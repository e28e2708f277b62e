//! Which bus a command talks to.

use std::sync::Arc;

use clap::Args;
use commissaire::{
    Bus, Client, Error, Result,
    app::find_bus,
    config::{Config, Hidden, Layers},
    connect,
};

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
    /// The environment, with the options over it.
    pub(crate) fn layers(&self) -> Layers {
        Layers::new()
            .environment()
            .set("bus_uri", self.bus_uri.as_ref())
            .set("bus_exchange", self.bus_exchange.as_ref())
    }

    /// Connects to the bus that is configured, else to that of a running `up`.
    pub(crate) async fn open(&self) -> Result<Arc<dyn Bus>> {
        self.check()?;
        open(&self.layers().load()?, "commissaire-cli").await
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

async fn open(config: &Config, client_name: &str) -> Result<Arc<dyn Bus>> {
    let uri = match &config.common().bus_uri {
        Some(uri) => uri.clone(),
        None => find_bus()?,
    };
    connect(&uri, &config.bus_options(client_name), commissaire_transports::ALL).await
}
