//! `commissaire config`: what a service would be configured with, and who says so.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use commissaire::{
    Error,
    app::{Exit, Program, print_config},
    config::{ConfigFile, EtcdKey, Layers},
};

use crate::{
    Failed, output,
    up::{PROGRAMS, layers_of},
};

/// See what a service would be configured with, and where each value comes from
#[derive(Debug, Args)]
pub(crate) struct Configuration {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print each value with where it was set and what it overrode; secrets are hidden
    #[command(after_help = "\
Examples:
  commissaire config explain storage
  commissaire config explain up storage.change_log
  COMMISSAIRE_BUS_URI=redis://localhost commissaire config explain simple bus_uri --json

What the service's own command line would set is not known here: its --show-config tells that too.
Exit code 5: nothing sets KEY. Exit code 78: the service would not start; all that is wrong is printed.")]
    Explain {
        /// The service, or up
        service: String,
        /// Only this member, or what is below it: logging.root
        key: Option<String>,
        /// Read this JSON file instead of /etc/commissaire/SERVICE.conf; - is standard input
        #[arg(short, long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Print JSON, one member a line
        #[arg(long)]
        json: bool,
    },
}

impl Configuration {
    pub(crate) async fn run(self) -> Result<(), Failed> {
        let Command::Explain { service, key, config, json } = self.command;
        let layers = if service == "up" { layers_of(PROGRAMS, config)? } else { of(&service, config)? };
        let layers = layers.etcd(EtcdKey::from_env(&service, false)?.as_ref()).await?;
        if print_config(&layers.environment().load()?, key.as_deref(), json) > 0 {
            return Ok(());
        }
        output::complain(&format!("commissaire: nothing sets {}", key.unwrap_or_default()));
        Err(Failed::Said(Exit::Nothing))
    }
}

/// The layers of the program of one service, up to the file.
fn of(service: &str, config: Option<PathBuf>) -> Result<Layers, Failed> {
    let known = |program: &&Program| program.name == service;
    let Some(program) = PROGRAMS.iter().find(known) else {
        let names: Vec<&str> = PROGRAMS.iter().map(|program| program.name).collect();
        return Err(Error::invalid(format!(
            "{service:?} is no service: there are {}, and up",
            names.join(", ")
        ))
        .into());
    };
    Ok(Layers::new().own(program.members).file(&ConfigFile::of(program.name, config))?)
}
