//! The conformance suite over Redis as Kombu uses it, and what holds there alone.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use commissaire::testkit::{Differential, Failure, Server, Target, differential};

/// As the shipped configuration has it.
const STRICT: &[(&str, &str)] = &[("appendonly", "yes"), ("appendfsync", "always")];

async fn kombu() -> Result<Target, Failure> {
    let server = Server::redis(STRICT).await?;
    let uri = format!("kombu+{}/0?durability=strict-power", server.uri());
    Ok(Target::driver(commissaire_kombu::DRIVER, uri).on(server).lease(Duration::from_secs(10)))
}

commissaire::conformance!(kombu, commissaire_kombu::DRIVER.promises);

#[test]
fn random_programs_come_to_what_the_model_says() {
    differential(kombu);
}

#[test]
fn random_programs_over_deaths_of_the_server_come_to_what_the_model_says() {
    Differential::restarting().check(kombu);
}
