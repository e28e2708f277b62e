//! `commissaire up`: all services in one process.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use commissaire::{
    BusUri, Error, Result,
    app::{
        Admin, BUS_SOCKET, DEFAULT_GRACE, LookFlags, Program, Services, announce_bus, open_bus, state_dir,
        until_told, withdraw_bus,
    },
    config::{ConfigFile, Layers},
};

use crate::{Failed, connection::Connection};

/// Every service that there is, in the order of their start.
pub(crate) const PROGRAMS: &[Program] = &[commissaire_storage::PROGRAM, commissaire_simple::PROGRAM];

/// Run all services in one process
#[derive(Debug, Args)]
#[command(after_help = "\
Without a bus URI the services share a bus in memory, on the socket DIR/bus.sock; other commands of the same user find
it by themselves. What is in queues on that bus ends with this process; records in storage do not.
Prints a line for each service that is ready, then `ready`. SIGTERM ends it in order.")]
pub(crate) struct Up {
    /// Keep data here [default: commissaire in the user's state directory]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Run only these services
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<String>,
    /// Serve /healthz, /readyz and /metrics on this address (127.0.0.1:9100) or socket path
    #[arg(long, value_name = "ADDR|SOCKET")]
    admin: Option<String>,
    /// Read this JSON file instead of /etc/commissaire/up.conf; what one service has of its own stands below its name
    #[arg(short, long, visible_alias = "config-file", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    look: LookFlags,
    #[command(flatten)]
    connection: Connection,
}

impl Up {
    pub(crate) async fn run(self) -> Result<(), Failed> {
        let programs = chosen(&self.only)?;
        self.connection.check()?;
        let layers = layers(PROGRAMS, self.config)?;
        let layers = self.connection.over(layers);
        let config =
            layers.set("admin", self.admin.as_ref()).set("data_dir", self.data_dir.as_ref()).load()?;
        if self.look.done(&config) {
            return Ok(());
        }
        let common = config.common();
        let dir = match &common.data_dir {
            Some(dir) => dir.clone(),
            None => state_dir()?,
        };
        make_private(&dir)?;
        let socket =
            std::path::absolute(dir.join(BUS_SOCKET)).map_err(|e| Error::config("--data-dir").because(e))?;
        let shared = common.bus_uri.is_none();
        let uri = match &common.bus_uri {
            Some(uri) => uri.clone(),
            None => sharing(&socket)?,
        };
        let bus = open_bus(&uri, &config, "commissaire-up", commissaire_transports::ALL).await?;
        let mut services = Services::new(bus, &config);
        // From here on a signal ends it in order: calls are answered before the start is over.
        let told = until_told(services.failure())?;
        let admin = match &common.admin {
            Some(place) => Some(Admin::serve(place, services.health().clone()).await?),
            None => None,
        };
        for program in &programs {
            services.start(program, config.of(program.name)).await?;
            say(&format!("{} ready", program.name));
        }
        if shared && let Err(error) = announce_bus(&socket) {
            tracing::warn!(%error, "other commands will not find this bus by themselves: give them --bus-uri");
        }
        say("ready");
        let told = told.await;
        if shared {
            withdraw_bus(&socket);
        }
        services.finish(common.grace_seconds.map_or(DEFAULT_GRACE, Duration::from_secs)).await?;
        drop(admin);
        told.map_err(|error| {
            eprintln!("commissaire: {}", error.chain());
            Failed::Said((&*error).into())
        })
    }
}

/// The layers of a configuration of several services, up to the file; the environment is not among them.
pub(crate) fn layers(programs: &[Program], file: Option<PathBuf>) -> Result<Layers> {
    let layers = Layers::new();
    let all = programs.iter().fold(layers, |all, program| all.section(program.name, program.members));
    all.file(&ConfigFile::of("up", file))
}

/// The programs that were asked for, in the order of their start.
fn chosen(only: &[String]) -> Result<Vec<Program>> {
    if let Some(unknown) = only.iter().find(|name| !PROGRAMS.iter().any(|program| program.name == **name)) {
        let known: Vec<&str> = PROGRAMS.iter().map(|program| program.name).collect();
        return Err(Error::invalid(format!("--only {unknown:?}: there are {}", known.join(", "))));
    }
    Ok(PROGRAMS
        .iter()
        .filter(|program| only.is_empty() || only.iter().any(|name| name == program.name))
        .copied()
        .collect())
}

/// The URI of a bus in memory that is shared on `socket`.
fn sharing(socket: &Path) -> Result<BusUri> {
    let mut url =
        url::Url::parse("memory://").map_err(|e| Error::config("cannot name the bus").because(e))?;
    let socket = socket.to_str().ok_or_else(|| Error::config("--data-dir: the path must be UTF-8"))?;
    url.query_pairs_mut().append_pair("listen", socket);
    url.as_str().parse()
}

fn make_private(dir: &Path) -> Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|e| {
        Error::config(format!("cannot make the data directory {}: {e}", dir.display())).because(e)
    })
}

/// One line on standard output, at once; nobody reading it is no reason to end.
fn say(line: &str) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
