//! `commissaire dlq`: looks at dead letters, brings them back, throws them away.

mod act;
mod filter;
mod list;
mod origin;
#[cfg(test)]
mod tests;
mod walk;

use clap::{Args, Subcommand};

use crate::Failed;

/// Look at dead letters, bring them back or throw them away
#[derive(Debug, Args)]
#[command(after_help = "\
ORIGIN is `queue KEY` or `durable NAME`, or KEY or NAME alone where only one of them has dead letters.

A letter is looked at by taking it and giving it back: while a command runs, others do not see what it has in hand. At
most 10,000 letters or 256 MiB are in hand at one time; where there are more, the command says so.

Exit codes beside those of all commands: 5 there was no such letter, 130 a signal ended it before it was done.

Try:
  commissaire dlq ls
  commissaire dlq ls jobs.investigate --filter cause=attempts
  commissaire dlq redrive jobs.investigate --dry-run")]
pub(crate) struct Dlq {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Ls(list::Ls),
    Show(list::Show),
    Redrive(act::Redrive),
    Purge(act::Purge),
}

impl Dlq {
    pub(crate) async fn run(self) -> Result<(), Failed> {
        match self.command {
            Command::Ls(ls) => ls.run().await,
            Command::Show(show) => show.run().await,
            Command::Redrive(redrive) => redrive.run().await,
            Command::Purge(purge) => purge.run().await,
        }
    }
}
