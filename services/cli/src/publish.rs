//! `commissaire publish`: announces an event.

use clap::Args;
use commissaire::Key;

use crate::{Failed, connection::Connection, input};

/// Announce an event to all who listen
#[derive(Debug, Args)]
pub(crate) struct Publish {
    /// The exact key, such as notify.site.opened
    key: String,
    /// The body, JSON or any text; - reads it from standard input
    body: String,
    #[command(flatten)]
    connection: Connection,
}

impl Publish {
    pub(crate) async fn run(self) -> Result<(), Failed> {
        let key = Key::new(&self.key)?;
        let body = input::text(&self.body)?;
        let client = self.connection.client().await?;
        client.announce_raw(key, body.into_bytes()).await?;
        Ok(client.bus().close().await?)
    }
}
