//! Joining the bus that is configured.

use std::sync::Arc;

use crate::{
    bus::{Bus, Guarantees},
    config::{Config, Requirement},
    driver::{BusUri, Driver, connect},
    error::{Error, ErrorKind, Result},
};

/// Connects to the bus at `uri` as `client_name`, and refuses one that does not give what `config` requires.
pub async fn open_bus(
    uri: &BusUri,
    config: &Config,
    client_name: &str,
    drivers: &[Driver],
) -> Result<Arc<dyn Bus>> {
    let bus = connect(uri, &config.bus_options(client_name), drivers).await?;
    let given = bus.guarantees();
    if let Err(refusal) = check(&config.common().require.0, &given, uri, drivers) {
        if let Err(error) = bus.close().await {
            tracing::debug!(%error, "the bus that was refused was not left in order");
        }
        return Err(refusal);
    }
    Ok(bus)
}

/// What of `required` a bus with these guarantees does not give.
pub fn unmet(required: &[Requirement], given: &Guarantees) -> Vec<Requirement> {
    required.iter().copied().filter(|one| !one.is_met_by(given)).collect()
}

fn check(required: &[Requirement], given: &Guarantees, uri: &BusUri, drivers: &[Driver]) -> Result<()> {
    let unmet = unmet(required, given);
    let Some(first) = unmet.first() else { return Ok(()) };
    let durable = matches!(first, Requirement::Durable | Requirement::DurablePower);
    let lacks: Vec<String> = unmet.iter().map(|one| format!("{} ({})", one.name(), one.lacks())).collect();
    let would: Vec<&str> = drivers
        .iter()
        .filter(|driver| required.iter().all(|one| one.is_met_by(&driver.promises)))
        .map(|driver| driver.example)
        .collect();
    let next = if would.is_empty() {
        "no bus of this build gives all that is required: take some of it out of `require`".to_owned()
    } else {
        format!("a bus_uri such as {} gives it, where the server is set up for it", would.join(" or "))
    };
    let kind = if durable { ErrorKind::NotDurable } else { ErrorKind::Config };
    Err(Error::new(
        kind,
        format!("the bus at {uri} does not give what `require` asks for: {}; {next}", lacks.join(", ")),
    ))
}
