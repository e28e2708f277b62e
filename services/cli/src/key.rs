//! `commissaire key`: makes the keys that prove who a program is.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use commissaire::SecretKey;

use crate::{Failed, output};

/// Make keys that prove who a program is
#[derive(Debug, Args)]
#[command(after_help = "\
Example: commissaire key new /etc/commissaire/keys/clusterexec.key

The file is the secret half: the program that it belongs to names it as identity.key_file. The line that is printed is the
public half: the services that know the program have it in access.actors.")]
pub(crate) struct Keys {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a key, keep it in FILE (mode 0600; never overwritten), and print its public half
    New {
        /// The file
        file: PathBuf,
    },
    /// Print the public half of the key in FILE
    Show {
        /// The file
        file: PathBuf,
    },
}

impl Keys {
    pub(crate) fn run(self) -> Result<(), Failed> {
        let key = match self.command {
            Command::New { file } => {
                let key = SecretKey::generate()?;
                key.save(&file)?;
                key
            }
            Command::Show { file } => SecretKey::load(&file)?,
        };
        output::print(&key.public().to_string())
    }
}
