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
        Admin, BUS_SOCKET, DEFAULT_GRACE, Program, Services, announce_bus, open_bus, state_dir, until_told,
        withdraw_bus,
    },
};

use crate::{Failed, connection::Connection};

/// Every service that there is, in the order of their start.
const PROGRAMS: &[Program] = &[commissaire_storage::PROGRAM, commissaire_simple::PROGRAM];

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
    #[command(flatten)]
    connection: Connection,
}

impl Up {
    pub(crate) async fn run(self) -> Result<(), Failed> {
        let programs = chosen(&self.only)?;
        self.connection.check()?;
        let layers = self
            .connection
            .layers()
            .set("admin", self.admin.as_ref())
            .set("data_dir", self.data_dir.as_ref());
        let layers = match layers.clone().load()?.common().data_dir {
            Some(_) => layers,
            None => layers.set("data_dir", Some(state_dir()?)),
        };
        let config = layers.load()?;
        let common = config.common();
        let dir = common.data_dir.clone().unwrap_or_default();
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
            services.start(program, config.clone()).await?;
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
