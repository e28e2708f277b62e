//! The `commissaire` program: runs the services, and talks to them from the shell.

mod asking;
mod bridge;
mod call;
mod cluster;
mod config;
mod connection;
mod container_manager;
mod dlq;
mod doctor;
mod enqueue;
mod host;
mod input;
mod key;
mod listen;
mod output;
mod publish;
mod storage;
mod subscription;
mod table;
mod up;

use std::{process::ExitCode, time::Duration};

use clap::{Parser, Subcommand};
use commissaire::{
    Error,
    app::{Exit, Verbosity, forbid_core_dumps},
    logging::Level,
};

/// Manages fleets of Linux hosts: a set of services on one message bus
#[derive(Debug, Parser)]
#[command(name = "commissaire", version, arg_required_else_help = true, after_help = AFTER)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    verbosity: Verbosity,
}

const AFTER: &str = "\
Which bus: --bus-uri URI, else COMMISSAIRE_BUS_URI, else that of a running `commissaire up`.

Try:
  commissaire up &
  commissaire call simple.add '{\"x\": 2, \"y\": 3}'

Exit codes: 0 well, 1 the service answered with an error or the doctor found something, 2 no running service answers,
3 the bus cannot be reached, 4 the time ran out, 5 there was nothing to do, 64 wrong usage, 78 wrong configuration,
130 a signal ended it before it was done.";

#[derive(Debug, Subcommand)]
enum Command {
    Up(up::Up),
    Call(call::Call),
    Publish(publish::Publish),
    Enqueue(enqueue::Enqueue),
    Listen(listen::Listen),
    Key(key::Keys),
    Dlq(dlq::Dlq),
    Subscription(subscription::Subscription),
    Doctor(doctor::Doctor),
    Config(config::Configuration),
    Storage(storage::Storage),
    Host(host::Hosts),
    ContainerManager(container_manager::ContainerManagers),
    Cluster(cluster::Clusters),
    Bridge(bridge::Bridge),
}

/// How a command went wrong.
#[derive(Debug)]
enum Failed {
    /// To be said in words.
    Error(Error),
    /// Said already.
    Said(Exit),
}

impl<E: Into<Error>> From<E> for Failed {
    fn from(error: E) -> Self {
        Self::Error(error.into())
    }
}

fn main() -> ExitCode {
    let line = match CommandLine::try_parse() {
        Ok(line) => line,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage.into() } else { Exit::Well.into() };
        }
    };
    let usual = if matches!(line.command, Command::Up(_)) { up::USUAL_LEVEL } else { Level::ERROR };
    line.verbosity.start(usual);
    forbid_core_dumps();
    match run(line.command, line.verbosity) {
        Ok(()) => Exit::Well.into(),
        Err(Failed::Said(exit)) => exit.into(),
        Err(Failed::Error(error)) => {
            output::complain(&format!("commissaire: {}", error.chain()));
            Exit::from(&error).into()
        }
    }
}

fn run(command: Command, verbosity: Verbosity) -> Result<(), Failed> {
    let mut builder = match command {
        // What its services do is short, and goes from one to the other: a second worker costs a fifth more of the
        // processor, for waking each other, and is no faster (`cargo bench … --bench hosts -- facts`, on two cores).
        Command::Up(_) => {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            builder.worker_threads(1);
            builder
        }
        Command::Bridge(_) => tokio::runtime::Builder::new_multi_thread(),
        _ => tokio::runtime::Builder::new_current_thread(),
    };
    let runtime = builder.enable_all().build().map_err(|e| Error::config("cannot start").because(e))?;
    let outcome = runtime.block_on(async {
        match command {
            Command::Up(up) => up.run(verbosity).await,
            Command::Call(call) => call.run().await,
            Command::Publish(publish) => publish.run().await,
            Command::Enqueue(enqueue) => enqueue.run().await,
            Command::Listen(listen) => listen.run().await,
            Command::Key(key) => key.run(),
            Command::Dlq(dlq) => dlq.run().await,
            Command::Subscription(subscription) => subscription.run().await,
            Command::Doctor(doctor) => doctor.run().await,
            Command::Config(config) => config.run().await,
            Command::Storage(storage) => storage.run().await,
            Command::Host(hosts) => hosts.run().await,
            Command::ContainerManager(managers) => managers.run().await,
            Command::Cluster(clusters) => clusters.run().await,
            Command::Bridge(bridge) => bridge.run().await,
        }
    });
    // A task that reads a terminal must not keep the program.
    runtime.shutdown_timeout(Duration::from_millis(500));
    outcome
}
