//! A program that serves: from its configuration to its end.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;

use super::{
    Admin, DEFAULT_GRACE, Program, Services, Verbosity,
    change::{Change, Changes},
    open_bus,
    supervisor::Supervised,
    until_told,
};
use crate::{
    bus::Bus,
    config::{Config, EtcdKey},
    driver::{BusUri, Driver},
    error::{Error, Result},
    logging::{Level, install},
};

/// A program that serves.
#[async_trait]
pub trait Host: Sync {
    /// What it is called in the broker's list of clients.
    fn client_name(&self) -> String;
    /// The services that it runs, in the order of their start.
    fn programs(&self) -> &[Program];
    /// The transports that it can use.
    fn drivers(&self) -> &'static [Driver];
    /// How much it says.
    fn verbosity(&self) -> Verbosity;
    /// What it says when nobody asks for more.
    fn usual_level(&self) -> Level;
    /// The key in etcd that is a layer of its configuration.
    fn etcd(&self) -> Option<&EtcdKey>;
    /// Reads its configuration.
    async fn load(&self) -> Result<Config>;
    /// The bus to serve on.
    fn bus(&self, config: &Config) -> Result<BusUri>;
    /// A service answers.
    fn ready(&self, service: &'static str);
    /// All answer, on the bus at `uri`.
    fn all_ready(&self, config: &Config, uri: &BusUri);
    /// The bus is about to be left.
    fn leaving(&self, config: &Config);
}

/// What takes another connection to the bus.
const OF_THE_BUS: [&str; 6] =
    ["bus_uri", "bus_exchange", "require", "identity", "access", "subscription_expiry_seconds"];
/// What holds only from the start of the program on.
const OF_THE_START: [&str; 2] = ["admin", "data_dir"];

/// Serves until the program is told to end. When its configuration changes, what can change while it runs does.
pub async fn serve(host: &impl Host, mut config: Config) -> Result<(), Arc<Error>> {
    install(host.verbosity().logging(&config, host.usual_level())?);
    let supervised = Supervised::begin();
    let (uri, bus) = join(host, &config).await?;
    let mut services = Services::new(bus, &config);
    // From here on a signal ends it in order: calls are answered before the start is over.
    let told = until_told(services.failure())?;
    let mut changes = Changes::new(host.etcd().cloned())?;
    let admin = match &config.common().admin {
        Some(place) => Some(Admin::serve(place, services.health().clone()).await?),
        None => None,
    };
    start(host, &mut services, &config, &uri).await?;
    supervised.ready(&uri);
    tokio::pin!(told);
    let told = loop {
        let change = tokio::select! {
            told = &mut told => break told,
            change = changes.next() => change,
        };
        supervised.reloading();
        match host.load().await {
            Ok(new) => {
                if let Err(Broken(error)) = reconfigure(host, &mut services, &mut config, new, change).await {
                    break Err(Arc::new(error));
                }
            }
            Err(error) => refuse(&error),
        }
        supervised.reloaded();
    };
    supervised.ending();
    host.leaving(&config);
    services.finish(grace(&config)).await?;
    drop(admin);
    told
}

/// The bus was left and no other joined: the program cannot go on.
struct Broken(Error);

/// Takes `new` over, as far as that can be while the program runs.
async fn reconfigure(
    host: &impl Host,
    services: &mut Services,
    config: &mut Config,
    new: Config,
    change: Change,
) -> Result<(), Broken> {
    let changed = config.changes(&new);
    let has = |names: &[&str]| changed.iter().any(|name| names.contains(&name.as_str()));
    if change == Change::Asked || has(&["logging", "debug"]) {
        match host.verbosity().logging(&new, host.usual_level()) {
            Ok(logging) => install(logging),
            Err(error) => {
                refuse(&error);
                return Ok(());
            }
        }
    }
    if changed.is_empty() {
        tracing::info!("the configuration was read again: it is as before");
        return Ok(());
    }
    let mut left: Vec<String> =
        changed.iter().filter(|name| OF_THE_START.contains(&name.as_str())).cloned().collect();
    let uri = host.bus(&new);
    // A bus in the memory of this process ends with the last who leaves it.
    let in_memory = uri.as_ref().is_ok_and(|uri| uri.scheme() == "memory" && !has(&["bus_uri"]));
    if in_memory {
        left.extend(changed.iter().filter(|name| OF_THE_BUS.contains(&name.as_str())).cloned());
    }
    if has(&OF_THE_BUS) && !in_memory {
        // The new bus first: where it cannot be joined, all stays as it is.
        let (uri, bus) = match join(host, &new).await {
            Ok(joined) => joined,
            Err(error) => {
                refuse(&error);
                return Ok(());
            }
        };
        tracing::info!(bus = %uri, "the configuration has changed: leaving the bus for another");
        host.leaving(config);
        if let Err(error) = services.move_to(bus, &new, grace(config)).await {
            tracing::warn!(%error, "the bus was not left in order");
        }
        *config = new;
        start(host, services, config, &uri).await.map_err(Broken)?;
    } else {
        left.extend(services.reconfigure(&new, &changed));
        *config = new.but(config, &left);
    }
    if left.is_empty() {
        tracing::info!(changed = changed.join(", "), "the configuration has changed");
    } else {
        tracing::warn!(
            changed = changed.join(", "),
            "the configuration has changed; after a restart of the program this holds as well: {}",
            left.join(", ")
        );
    }
    Ok(())
}

fn refuse(error: &Error) {
    tracing::error!("the configuration has changed, and cannot be used; nothing changes: {}", error.chain());
}

async fn join(host: &impl Host, config: &Config) -> Result<(BusUri, Arc<dyn Bus>)> {
    let uri = host.bus(config)?;
    let bus = open_bus(&uri, config, &host.client_name(), host.drivers()).await?;
    Ok((uri, bus))
}

async fn start(host: &impl Host, services: &mut Services, config: &Config, uri: &BusUri) -> Result<()> {
    for program in host.programs() {
        services.start(program, config.of(program.name)).await?;
        host.ready(program.name);
    }
    host.all_ready(config, uri);
    Ok(())
}

fn grace(config: &Config) -> Duration {
    config.common().grace_seconds.map_or(DEFAULT_GRACE, Duration::from_secs)
}
