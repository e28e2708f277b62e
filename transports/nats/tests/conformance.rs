//! The conformance suite over NATS, and what holds on NATS alone.

#![allow(clippy::unwrap_used)]

mod alone;
mod programs;

use std::time::Duration;

use commissaire::testkit::{Failure, Server, Target};

async fn nats() -> Result<Target, Failure> {
    let server = Server::nats(&[]).await?;
    let uri = format!("{}?durability=strict", server.uri());
    Ok(Target::driver(commissaire_nats::DRIVER, uri).on(server).lease(Duration::from_secs(30)))
}

commissaire::conformance!(nats, commissaire_nats::DRIVER.promises);
