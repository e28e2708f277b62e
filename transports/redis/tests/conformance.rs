//! The conformance suite over Redis, and what holds on Redis alone.

#![allow(clippy::unwrap_used)]

mod alone;
mod programs;

use std::time::Duration;

use commissaire::testkit::{Failure, Server, Target};

/// As the shipped configuration has it.
const STRICT: &[(&str, &str)] = &[("appendonly", "yes"), ("appendfsync", "always")];

async fn redis() -> Result<Target, Failure> {
    let server = Server::redis(STRICT).await?;
    let uri = format!("{}/0?durability=strict-power", server.uri());
    Ok(Target::driver(commissaire_redis::DRIVER, uri).on(server).lease(Duration::from_secs(30)))
}

// With no more rights than its user is told to be given.
commissaire::conformance!(alone::privilege::services, commissaire_redis::DRIVER.promises);
