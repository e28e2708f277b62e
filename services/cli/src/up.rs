//! `commissaire up`: all services in one process.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use async_trait::async_trait;
use clap::Args;
use commissaire::{
    BusUri, Driver, Error, Result,
    app::{BUS_SOCKET, Host, LookFlags, Program, Verbosity, announce_bus, serve, state_dir, withdraw_bus},
    config::{Config, ConfigFile, EtcdKey, Layers},
    logging::Level,
};

use crate::{Failed, connection::Connection};

/// Every service that there is, in the order of their start.
pub(crate) const PROGRAMS: &[Program] = &[
    commissaire_storage::PROGRAM,
    commissaire_investigator::PROGRAM,
    commissaire_watcher::PROGRAM,
    commissaire_containermgr::PROGRAM,
    commissaire_clusterexec::PROGRAM,
    commissaire_simple::PROGRAM,
];

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
    /// Do not start without the key /commissaire/config/up of the etcd that ETCD_MACHINES names
    #[arg(long)]
    require_etcd: bool,
    #[command(flatten)]
    look: LookFlags,
    #[command(flatten)]
    connection: Connection,
}

/// How much it says when nobody asks for more.
pub(crate) const USUAL_LEVEL: Level = Level::WARNING;

impl Up {
    pub(crate) async fn run(self, verbosity: Verbosity) -> Result<(), Failed> {
        let programs = chosen(&self.only)?;
        self.connection.check()?;
        let etcd = EtcdKey::from_env("up", self.require_etcd)?;
        let together = Together { up: self, programs, etcd, verbosity };
        let config = together.load().await?;
        if together.up.look.done(&config) {
            return Ok(());
        }
        make_private(&data_dir(&config)?)?;
        serve(&together, config).await.map_err(|error| {
            eprintln!("commissaire: {}", error.chain());
            Failed::Said((&*error).into())
        })
    }
}

/// All services in one process.
struct Together {
    up: Up,
    programs: Vec<Program>,
    etcd: Option<EtcdKey>,
    verbosity: Verbosity,
}

#[async_trait]
impl Host for Together {
    fn client_name(&self) -> String {
        "commissaire-up".to_owned()
    }

    fn programs(&self) -> &[Program] {
        &self.programs
    }

    fn drivers(&self) -> &'static [Driver] {
        commissaire_transports::ALL
    }

    fn verbosity(&self) -> Verbosity {
        self.verbosity
    }

    fn usual_level(&self) -> Level {
        USUAL_LEVEL
    }

    fn etcd(&self) -> Option<&EtcdKey> {
        self.etcd.as_ref()
    }

    async fn load(&self) -> Result<Config> {
        let layers = layers_of(PROGRAMS, self.up.config.clone())?.etcd(self.etcd.as_ref()).await?;
        self.up
            .connection
            .over(layers)
            .set("admin", self.up.admin.as_ref())
            .set("data_dir", self.up.data_dir.as_ref())
            .load()
    }

    fn bus(&self, config: &Config) -> Result<BusUri> {
        config.common().bus_uri.clone().map_or_else(|| sharing(&socket(config)?), Ok)
    }

    fn ready(&self, service: &'static str) {
        say(&format!("{service} ready"));
    }

    fn all_ready(&self, config: &Config, _: &BusUri) {
        if let Some(socket) = shared(config)
            && let Err(error) = announce_bus(&socket)
        {
            tracing::warn!(%error, "other commands will not find this bus by themselves: give them --bus-uri");
        }
        say("ready");
    }

    fn leaving(&self, config: &Config) {
        if let Some(socket) = shared(config) {
            withdraw_bus(&socket);
        }
    }
}

fn data_dir(config: &Config) -> Result<PathBuf> {
    config.common().data_dir.clone().map_or_else(state_dir, Ok)
}

/// Where a bus in memory is shared.
fn socket(config: &Config) -> Result<PathBuf> {
    std::path::absolute(data_dir(config)?.join(BUS_SOCKET))
        .map_err(|e| Error::config("--data-dir").because(e))
}

/// Where the bus is shared, if it is one in memory of ours.
fn shared(config: &Config) -> Option<PathBuf> {
    if config.common().bus_uri.is_none() { socket(config).ok() } else { None }
}

/// The layers of a configuration of several services, up to the file; the environment is not among them.
pub(crate) fn layers_of(programs: &[Program], file: Option<PathBuf>) -> Result<Layers> {
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
