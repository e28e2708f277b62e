//! How most commands ask, and how they tell.

use std::time::Duration;

use clap::Args;
use commissaire::Client;
use commissaire_api::StorageClient;

use crate::{Failed, connection::Connection, input};

/// How to ask, and how to tell.
#[derive(Debug, Args)]
pub(crate) struct Asking {
    /// Print JSON, one object a line
    #[arg(long)]
    pub(crate) json: bool,
    /// How long to wait; work that was begun goes on
    #[arg(long, value_name = "DURATION", default_value = "30m", value_parser = input::duration)]
    pub(crate) timeout: Duration,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

impl Asking {
    /// On the bus.
    pub(crate) async fn client(&self) -> Result<(Client, StorageClient), Failed> {
        let client = self.connection.client().await?.with_timeout(self.timeout);
        Ok((client.clone(), StorageClient::new(client)))
    }
}
