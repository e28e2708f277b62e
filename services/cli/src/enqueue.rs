//! `commissaire enqueue`: leaves a job.

use clap::Args;
use commissaire::Key;

use crate::{Failed, connection::Connection, input, output};

/// Leave a job in a queue and print its id
#[derive(Debug, Args)]
#[command(after_help = "Example: commissaire enqueue jobs.investigate '{\"address\": \"10.0.0.7\"}'")]
pub(crate) struct Enqueue {
    /// The queue, such as jobs.investigate
    key: String,
    /// The parameters: a JSON object or array; - reads them from standard input
    params: Option<String>,
    #[command(flatten)]
    connection: Connection,
}

impl Enqueue {
    pub(crate) async fn run(self) -> Result<(), Failed> {
        let key = Key::new(&self.key)?;
        let params = self.params.as_deref().map(input::params).transpose()?;
        let client = self.connection.client().await?;
        let id = client.enqueue_raw(key, params).await?;
        output::print(&id.to_string())?;
        Ok(client.bus().close().await?)
    }
}
