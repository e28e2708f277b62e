//! Random programs come to what the contract says, also when the broker is killed and started again in the middle.

use commissaire::testkit::{Differential, Failure, Server, Target};

/// Each program leaves a dozen quorum queues behind, of which a node bears so many on a small machine.
const PROGRAMS_A_NODE: u64 = 50;

async fn own() -> Result<Target, Failure> {
    let server = Server::rabbitmq(&[]).await?;
    let uri = format!("{}/%2F?durability=strict-power", server.uri());
    Ok(Target::driver(commissaire_amqp::DRIVER, uri).on(server))
}

#[test]
fn random_programs_come_to_what_the_model_says() {
    Differential { a_server: PROGRAMS_A_NODE, ..Differential::default() }.check(own);
}

#[test]
fn random_programs_over_deaths_of_the_broker_come_to_what_the_model_says() {
    let all = Differential::restarting();
    Differential { programs: all.programs / 10, ..all }.check(own);
}
