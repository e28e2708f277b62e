//! A program that serves: from its configuration to its end.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::time::sleep;

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
    error::{Error, ErrorKind, Result},
    logging::{Level, Logging, install},
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
/// After this a bus that could not be joined is tried again.
const AGAIN: Duration = Duration::from_secs(15);

/// Serves until the program is told to end. When its configuration changes, what can change while it runs does.
pub async fn serve(host: &impl Host, config: Config) -> Result<(), Arc<Error>> {
    let mut changes = Changes::new(host.etcd().cloned())?;
    install(host.verbosity().logging(&config, host.usual_level())?);
    let supervised = Supervised::begin();
    let uri = host.bus(&config)?;
    let bus = open(host, &uri, &config).await?;
    let services = Services::new(bus, &config);
    // From here on a signal ends it in order: calls are answered before the start is over.
    let told = until_told(services.failure())?;
    let admin = match &config.common().admin {
        Some(place) => Some(Admin::serve(place, services.health().clone()).await?),
        None => None,
    };
    let mut serving = Serving { host, services, config, uri };
    serving.start().await?;
    supervised.ready(&serving.uri);
    tokio::pin!(told);
    let mut again = false;
    let told = loop {
        let asked = tokio::select! {
            told = &mut told => break told,
            change = changes.next() => change == Change::Asked,
            () = sleep(AGAIN), if again => false,
        };
        supervised.reloading();
        let loaded = tokio::select! {
            told = &mut told => break told,
            loaded = host.load() => loaded,
        };
        again = match serving.take_over(loaded, asked).await {
            Ok(()) => false,
            Err(Refused::Now(error)) => {
                refuse(&error);
                false
            }
            Err(Refused::Unreachable(error)) => {
                refuse(&error);
                true
            }
            Err(Refused::Nowhere(error)) => break Err(Arc::new(error)),
        };
        supervised.ready(&serving.uri);
    };
    supervised.ending();
    serving.host.leaving(&serving.config);
    let grace = serving.grace();
    serving.services.finish(grace).await?;
    drop(admin);
    told
}

/// Services at work, and with what.
struct Serving<'h, H> {
    host: &'h H,
    services: Services,
    /// What holds.
    config: Config,
    uri: BusUri,
}

/// Why a configuration was not taken over.
enum Refused {
    /// It cannot be used.
    Now(Error),
    /// Its bus cannot be joined now.
    Unreachable(Error),
    /// The bus was left, and there is no way back: the program cannot go on.
    Nowhere(Error),
}

impl<H: Host> Serving<'_, H> {
    /// Takes what was loaded over, as far as that can be while the program runs. If it was `asked` for, files of the log are
    /// opened again whatever was loaded.
    async fn take_over(&mut self, loaded: Result<Config>, asked: bool) -> Result<(), Refused> {
        let new = match loaded {
            Ok(new) => new,
            Err(error) => {
                if asked && let Ok(logging) = self.logging(&self.config) {
                    install(logging);
                }
                return Err(Refused::Now(error));
            }
        };
        let changed = self.config.changes(&new);
        let has = |names: &[&str]| changed.iter().any(|name| names.contains(&name.as_str()));
        let logging = (asked || has(&["logging", "debug"])).then(|| self.logging(&new)).transpose();
        let logging = logging.map_err(Refused::Now)?;
        if changed.is_empty() {
            logging.into_iter().for_each(install);
            tracing::info!("the configuration was read again: it is as before");
            return Ok(());
        }
        let within = |names: &[&str]| -> Vec<String> {
            changed.iter().filter(|name| names.contains(&name.as_str())).cloned().collect()
        };
        let mut left = within(&OF_THE_START);
        let new = new.but(&self.config, &left);
        // A bus in the memory of this process ends with the last who leaves it.
        let uri = self.host.bus(&new).map_err(Refused::Now)?;
        if has(&OF_THE_BUS) && (uri.scheme() != "memory" || uri != self.uri) {
            self.move_to(uri, new, logging).await?;
        } else {
            logging.into_iter().for_each(install);
            left.extend(within(&OF_THE_BUS));
            left.extend(self.services.reconfigure(&new, &changed));
            self.config = new.but(&self.config, &left);
        }
        let changed = changed.join(", ");
        if left.is_empty() {
            tracing::info!(changed, "the configuration has changed");
        } else {
            let left = left.join(", ");
            tracing::warn!(
                changed,
                "the configuration has changed; after a restart of the program this holds as well: {left}"
            );
        }
        Ok(())
    }

    /// Joins the bus at `uri`, leaves the one before, and has all services begin again there. If they cannot, back again.
    async fn move_to(&mut self, uri: BusUri, new: Config, logging: Option<Logging>) -> Result<(), Refused> {
        // First of all: where it cannot be joined, all stays as it is.
        let bus = open(self.host, &uri, &new).await.map_err(|error| match error.kind() {
            ErrorKind::Unavailable | ErrorKind::Timeout => Refused::Unreachable(error),
            _ => Refused::Now(error),
        })?;
        logging.into_iter().for_each(install);
        tracing::info!(bus = %uri, "the configuration has changed: leaving the bus for another");
        let old = (std::mem::replace(&mut self.config, new), std::mem::replace(&mut self.uri, uri));
        self.leave(&old.0, bus).await;
        let Err(why) = self.start().await else { return Ok(()) };
        tracing::error!("the services cannot start on the other bus: back again; {}", why.chain());
        let new = std::mem::replace(&mut self.config, old.0);
        self.uri = old.1;
        // Whatever is wrong now may be over when the program is started again.
        let nowhere = |error: Error| {
            Refused::Nowhere(Error::unavailable("the bus was left, and there is no way back").because(error))
        };
        let bus = open(self.host, &self.uri, &self.config).await.map_err(nowhere)?;
        if let Ok(logging) = self.logging(&self.config) {
            install(logging);
        }
        self.leave(&new, bus).await;
        self.start().await.map_err(nowhere)?;
        Err(Refused::Now(why))
    }

    async fn leave(&mut self, config: &Config, bus: Arc<dyn Bus>) {
        self.host.leaving(config);
        if let Err(error) = self.services.move_to(bus, &self.config, self.grace()).await {
            tracing::warn!(%error, "the bus was not left in order");
        }
    }

    async fn start(&mut self) -> Result<()> {
        for program in self.host.programs() {
            self.services.start(program, self.config.of(program.name)).await?;
            self.host.ready(program.name);
        }
        self.host.all_ready(&self.config, &self.uri);
        Ok(())
    }

    fn logging(&self, config: &Config) -> Result<Logging> {
        self.host.verbosity().logging(config, self.host.usual_level())
    }

    fn grace(&self) -> Duration {
        self.config.common().grace_seconds.map_or(DEFAULT_GRACE, Duration::from_secs)
    }
}

fn refuse(error: &Error) {
    tracing::error!("the configuration has changed, and cannot be used; nothing changes: {}", error.chain());
}

async fn open(host: &impl Host, uri: &BusUri, config: &Config) -> Result<Arc<dyn Bus>> {
    open_bus(uri, config, &host.client_name(), host.drivers()).await
}
