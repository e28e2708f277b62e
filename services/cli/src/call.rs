//! `commissaire call`: asks a service and prints its answer.

use std::time::Duration;

use clap::Args;
use commissaire::Key;

use crate::{Failed, connection::Connection, input, output};

/// Call a method and print its result as JSON
#[derive(Debug, Args)]
#[command(after_help = "Example: commissaire call storage.list '{\"model_type_name\": \"Hosts\"}'")]
pub(crate) struct Call {
    /// SERVICE.METHOD, such as storage.get
    key: String,
    /// The parameters: a JSON object or array; - reads them from standard input
    params: Option<String>,
    /// How long to wait for the answer
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = input::duration)]
    timeout: Duration,
    #[command(flatten)]
    connection: Connection,
}

impl Call {
    pub(crate) async fn run(self) -> Result<(), Failed> {
        let key = Key::new(&self.key)?;
        key.service()?;
        let params = self.params.as_deref().map(input::params).transpose()?;
        let client = self.connection.client().await?.with_timeout(self.timeout);
        let outcome = client.call_raw(key, params).await;
        let closed = client.bus().close().await;
        match outcome {
            Ok(result) => output::print(result.get())?,
            Err(error) => match error.remote() {
                Some(remote) => return Err(input::say(remote)),
                None => return Err(error.into()),
            },
        }
        Ok(closed?)
    }
}
