//! `commissaire subscription`: durable subscriptions, which live on the broker while nobody reads them.

use std::time::Duration;

use clap::{Args, Subcommand};
use commissaire::{Declared, Token, What, app::Exit};

use crate::{
    Failed,
    connection::Connection,
    input::{self, confirm},
    output::{complain, print},
    table::{count, oldest, plain, print_table, time},
};

/// Look at durable subscriptions, or remove one
#[derive(Debug, Args)]
#[command(after_help = "\
A durable subscription keeps what is announced while nobody reads it. One that is forgotten fills up, and then publishers
are refused; so it is removed by itself when nobody has read it for its time (subscription_expiry_seconds of who made
it, usually 7 days), and that is announced on bus.subscription.expired.

Exit code 5: there is no such subscription, or somebody has read it within --idle.")]
pub(crate) struct Subscription {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Ls(Ls),
    Rm(Rm),
}

/// Show all
#[derive(Debug, Args)]
struct Ls {
    /// Print JSON, one object a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

/// Remove one with what it holds; its dead letters stay
#[derive(Debug, Args)]
struct Rm {
    /// Its name
    name: String,
    /// Only if nobody has read it for so long: 1d, 12h
    #[arg(long, value_name = "DURATION", value_parser = input::duration)]
    idle: Option<Duration>,
    /// Do not ask; needed where there is no terminal to ask on
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    connection: Connection,
}

impl Subscription {
    pub(crate) async fn run(self) -> Result<(), Failed> {
        match self.command {
            Command::Ls(ls) => ls.run().await,
            Command::Rm(rm) => rm.run().await,
        }
    }
}

impl Ls {
    async fn run(self) -> Result<(), Failed> {
        let bus = self.connection.open().await?;
        let survey = bus.survey().await?;
        bus.close().await?;
        let found: Vec<&Declared> =
            survey.declared.iter().filter(|declared| matches!(declared.what, What::Durable(_))).collect();
        if self.json {
            for declared in &found {
                print(&line(declared)?)?;
            }
        } else {
            print_subscriptions(&found)?;
        }
        if found.is_empty() {
            complain("no durable subscription is known");
        }
        Ok(())
    }
}

impl Rm {
    async fn run(self) -> Result<(), Failed> {
        let name = Token::new(&self.name)?;
        if !self.yes {
            confirm(&format!("remove the durable subscription {name} with all that it holds"))?;
        }
        let bus = self.connection.open().await?;
        let removed = bus.remove_durable(&name, self.idle).await?;
        bus.close().await?;
        if removed {
            return print(&format!("{name} removed"));
        }
        complain(&match self.idle {
            Some(_) => format!("{name} is not there, or somebody has read it within that time"),
            None => format!("there is no durable subscription {name}"),
        });
        Err(Failed::Said(Exit::Nothing))
    }
}

/// A table of durable subscriptions.
pub(crate) fn print_subscriptions(found: &[&Declared]) -> Result<(), Failed> {
    let rows: Vec<_> = found
        .iter()
        .filter_map(|declared| {
            let What::Durable(name) = &declared.what else { return None };
            let patterns = declared.patterns.as_ref();
            Some([
                name.to_string(),
                patterns.map_or_else(|| "unknown".to_owned(), |patterns| plain(&patterns.join(" "))),
                count(declared.consumers),
                count(declared.waiting),
                count(declared.in_hand),
                count(declared.resting),
                oldest(declared),
                time(declared.idle),
                time(declared.expires_after),
            ])
        })
        .collect();
    let head =
        ["NAME", "PATTERNS", "READERS", "WAITING", "IN HAND", "RESTING", "OLDEST", "IDLE", "EXPIRES AFTER"];
    print_table(head, &rows)
}

fn line(declared: &Declared) -> Result<String, Failed> {
    serde_json::to_string(declared).map_err(|e| {
        commissaire::Error::malformed("a subscription cannot be written as JSON").because(e).into()
    })
}
