//! Random programs come to what the contract says, also when the server is killed and started again in the middle.

use commissaire::testkit::{Differential, Failure, Server, Target};

/// As this transport's page says.
async fn nats() -> Result<Target, Failure> {
    let server = Server::nats(&[]).await?;
    let uri = format!("{}?durability=strict", server.uri());
    Ok(Target::driver(commissaire_nats::DRIVER, uri).on(server).drops_unwanted())
}

#[test]
fn random_programs_come_to_what_the_model_says() {
    Differential::default().check(nats);
}

#[test]
fn random_programs_over_deaths_of_the_server_come_to_what_the_model_says() {
    Differential::restarting().check(nats);
}
