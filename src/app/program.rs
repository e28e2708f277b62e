//! The program of one service.

use std::{ffi::OsString, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use clap::{Args, CommandFactory, FromArgMatches, Parser};
use futures_util::future::BoxFuture;
use tracing::level_filters::LevelFilter;

use super::{
    Admin, DEFAULT_GRACE, Exit, Instance, LookFlags, Services, Start, Verbosity, find_bus, forbid_core_dumps,
    log_to_stderr, open_bus, until_told,
};
use crate::{
    config::{Config, ConfigFile, Hidden, Layers, OwnMembers},
    driver::{BusUri, Driver},
    error::{Error, Result},
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
    log_to_stderr(flags.verbosity, LevelFilter::INFO);
    forbid_core_dumps();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "cannot start");
            return Exit::Failed.into();
        }
    };
    let ended = runtime.block_on(serve(program, &flags, drivers));
    runtime.shutdown_timeout(Duration::from_secs(1));
    match ended {
        Ok(()) => Exit::Well.into(),
        Err(error) => {
            eprintln!("commissaire-{}-service: {}", program.name, error.chain());
            Exit::from(&*error).into()
        }
    }
}

async fn serve(program: Program, flags: &ServiceFlags, drivers: &[Driver]) -> Result<(), Arc<Error>> {
    let config = configure(program, flags)?;
    if flags.look.done(&config) {
        return Ok(());
    }
    let common = config.common();
    let uri = match &common.bus_uri {
        Some(uri) => uri.clone(),
        None => find_bus()?,
    };
    let client_name = format!("commissaire-{}", program.name);
    let bus = open_bus(&uri, &config, &client_name, drivers).await?;
    let mut services = Services::new(bus, &config);
    // From here on a signal ends it in order: calls are answered before the start is over.
    let told = until_told(services.failure())?;
    let admin = match &common.admin {
        Some(place) => Some(Admin::serve(place, services.health().clone()).await?),
        None => None,
    };
    services.start(&program, config.clone()).await?;
    let exchange = config.bus_options(&client_name).exchange;
    tracing::info!(service = program.name, bus = %uri, %exchange, "ready");
    let told = told.await;
    services.finish(common.grace_seconds.map_or(DEFAULT_GRACE, Duration::from_secs)).await?;
    drop(admin);
    told
}

fn configure(program: Program, flags: &ServiceFlags) -> Result<Config> {
    if let Some(uri) = &flags.bus_uri {
        let _: BusUri = uri.0.parse()?;
    }
    Layers::new()
        .own(program.members)
        .file(&ConfigFile::of(program.name, flags.config.clone()))?
        .environment()
        .set("bus_uri", flags.bus_uri.as_ref())
        .set("bus_exchange", flags.bus_exchange.as_ref())
        .set("admin", flags.admin.as_ref())
        .set("data_dir", flags.data_dir.as_ref())
        .load()
}

impl std::fmt::Debug for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}
