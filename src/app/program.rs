//! The program of one service.

use std::{ffi::OsString, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use async_trait::async_trait;
use clap::{Args, CommandFactory, FromArgMatches, Parser};
use futures_util::future::BoxFuture;

use super::{Exit, Host, Instance, LookFlags, Start, Verbosity, find_bus, forbid_core_dumps, serve};
use crate::{
    config::{Config, ConfigFile, EtcdKey, Hidden, Layers, OwnMembers},
    driver::{BusUri, Driver},
    error::{Error, Result},
    logging::Level,
};

/// A service as a program, and as a part of `commissaire up`.
#[derive(Clone, Copy)]
pub struct Program {
    /// The service's name, `storage`; its program is called `commissaire-NAME-service`.
    pub name: &'static str,
    /// What it does, in one line.
    pub about: &'static str,
    /// What can be configured beside what every service has: `OwnMembers::of::<MyMembers>()`, with [`NoMembers`] for
    /// nothing.
    ///
    /// [`NoMembers`]: crate::config::NoMembers
    pub members: OwnMembers,
    /// Starts it. Returns when it answers.
    pub start: fn(Start) -> BoxFuture<'static, Result<Box<dyn Instance>>>,
}

/// The options of every service's program.
#[derive(Debug, Args)]
struct ServiceFlags {
    /// Read this JSON file instead of /etc/commissaire/NAME.conf; - is standard input
    #[arg(short, long, visible_alias = "config-file", value_name = "FILE")]
    config: Option<PathBuf>,
    /// The bus, such as memory://, unix:///path/bus.sock or redis://HOST; without one: that of a running `commissaire up`.
    /// A password is better put into COMMISSAIRE_BUS_URI or the file than here, where every user of the machine sees it
    #[arg(long, value_name = "URI")]
    bus_uri: Option<Hidden>,
    /// The name space on the bus [default: commissaire]
    #[arg(long, value_name = "NAME")]
    bus_exchange: Option<String>,
    /// Serve /healthz, /readyz and /metrics on this address (127.0.0.1:9100) or socket path
    #[arg(long, value_name = "ADDR|SOCKET")]
    admin: Option<String>,
    /// Keep data below this directory
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Do not start without the key /commissaire/config/NAME of the etcd that ETCD_MACHINES names
    #[arg(long)]
    require_etcd: bool,
    #[command(flatten)]
    look: LookFlags,
    #[command(flatten)]
    verbosity: Verbosity,
}

#[derive(Debug, Parser)]
#[command(version, disable_help_subcommand = true)]
struct CommandLine {
    #[command(flatten)]
    flags: ServiceFlags,
}

/// Runs a service's program to its end: all that its `main` does. The drivers are the transports that it can use.
pub fn run(program: Program, drivers: &'static [Driver]) -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let name = format!("commissaire-{}-service", program.name);
    let command = CommandLine::command().bin_name(&name).display_name(&name).about(program.about);
    let flags =
        match command.try_get_matches_from(arguments).and_then(|found| CommandLine::from_arg_matches(&found))
        {
            Ok(line) => line.flags,
            Err(error) => {
                let _ = error.print();
                return if error.use_stderr() { Exit::Usage.into() } else { Exit::Well.into() };
            }
        };
    flags.verbosity.start(Level::INFO);
    forbid_core_dumps();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "cannot start");
            return Exit::Failed.into();
        }
    };
    let ended = runtime.block_on(begin(program, flags, drivers));
    runtime.shutdown_timeout(Duration::from_secs(1));
    match ended {
        Ok(()) => Exit::Well.into(),
        Err(error) => {
            eprintln!("commissaire-{}-service: {}", program.name, error.chain());
            Exit::from(&*error).into()
        }
    }
}

/// The program of one service.
struct Alone {
    program: Program,
    flags: ServiceFlags,
    drivers: &'static [Driver],
    etcd: Option<EtcdKey>,
}

async fn begin(program: Program, flags: ServiceFlags, drivers: &'static [Driver]) -> Result<(), Arc<Error>> {
    let etcd = EtcdKey::from_env(program.name, flags.require_etcd)?;
    let alone = Alone { program, flags, drivers, etcd };
    let config = alone.load().await?;
    if alone.flags.look.done(&config) {
        return Ok(());
    }
    serve(&alone, config).await
}

#[async_trait]
impl Host for Alone {
    fn client_name(&self) -> String {
        format!("commissaire-{}", self.program.name)
    }

    fn programs(&self) -> &[Program] {
        std::slice::from_ref(&self.program)
    }

    fn drivers(&self) -> &'static [Driver] {
        self.drivers
    }

    fn verbosity(&self) -> Verbosity {
        self.flags.verbosity
    }

    fn usual_level(&self) -> Level {
        Level::INFO
    }

    fn etcd(&self) -> Option<&EtcdKey> {
        self.etcd.as_ref()
    }

    async fn load(&self) -> Result<Config> {
        if let Some(uri) = &self.flags.bus_uri {
            let _: BusUri = uri.0.parse()?;
        }
        let layers = Layers::new()
            .own(self.program.members)
            .file(&ConfigFile::of(self.program.name, self.flags.config.clone()))?;
        layers
            .etcd(self.etcd.as_ref())
            .await?
            .environment()
            .set("bus_uri", self.flags.bus_uri.as_ref())
            .set("bus_exchange", self.flags.bus_exchange.as_ref())
            .set("admin", self.flags.admin.as_ref())
            .set("data_dir", self.flags.data_dir.as_ref())
            .load()
    }

    fn bus(&self, config: &Config) -> Result<BusUri> {
        config.common().bus_uri.clone().map_or_else(find_bus, Ok)
    }

    fn ready(&self, _: &'static str) {}

    fn all_ready(&self, config: &Config, uri: &BusUri) {
        let exchange = config.bus_options("").exchange;
        tracing::info!(service = self.program.name, bus = %uri, %exchange, "ready");
    }

    fn leaving(&self, _: &Config) {}
}

impl std::fmt::Debug for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}
