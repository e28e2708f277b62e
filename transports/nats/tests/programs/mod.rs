//! Random programs come to what the contract says, also when the server is killed and started again in the middle.

use std::time::Duration;

use commissaire::testkit::{Differential, Failure, Server, Target};

/// Each program leaves a dozen streams behind.
const PROGRAMS_A_SERVER: u64 = 200;

/// As this transport's page says.
async fn nats() -> Result<Target, Failure> {
    let server = Server::nats(&[]).await?;
    let uri = format!("{}?durability=strict", server.uri());
    let target = Target::driver(commissaire_nats::DRIVER, uri).on(server);
    // A server that dies forgets what was given back to it, and takes it for being in hand until its lease ends.
    Ok(target.lease(Duration::from_secs(30)).drops_unwanted())
}

#[test]
fn random_programs_come_to_what_the_model_says() {
    Differential { a_server: PROGRAMS_A_SERVER, ..Differential::default() }.check(nats);
}

#[test]
fn random_programs_over_deaths_of_the_server_come_to_what_the_model_says() {
    Differential::restarting().check(nats);
}
