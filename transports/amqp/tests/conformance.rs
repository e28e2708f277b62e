//! The conformance suite over RabbitMQ, and what holds on RabbitMQ alone.

#![allow(clippy::unwrap_used)]

mod alone;
mod programs;

use std::process::{Child, Command, Stdio};

use commissaire::testkit::{Failure, Server};
use tokio::sync::OnceCell;

/// One for all scenarios: each has an exchange of its own, and a start takes its time. It ends with this process, and
/// the other then sweeps its files away.
static SERVER: OnceCell<(Server, Child)> = OnceCell::const_new();

/// The server that tests share which do it no harm.
async fn shared() -> Result<&'static Server, Failure> {
    let start = async || {
        let server = Server::rabbitmq(&[("definitions", &alone::privilege::definitions())]).await?;
        let sweep = "cat; sleep 1; rm -rf \"$0\"";
        let sweeper =
            Command::new("sh").args(["-c", sweep]).arg(server.dir()).stdin(Stdio::piped()).spawn()?;
        Ok::<_, Failure>((server, sweeper))
    };
    SERVER.get_or_try_init(start).await.map(|(server, _)| server)
}

// With no more rights than its user is told to be given.
commissaire::conformance!(alone::privilege::services, commissaire_amqp::DRIVER.promises);
