//! `commissaire host`: hosts from the shell.

mod add;
mod investigate;
mod show;

use std::collections::HashMap;

use clap::{Args, Subcommand};
use commissaire::{Error, app::Exit};
use commissaire_api::{
    Cluster, Host, HostCreds, HostState, Investigation, Record, StorageClient,
    watcher::{Check, CheckParams, Checked},
};
use futures_util::{StreamExt, stream};
use serde::Serialize;

use crate::{
    Failed,
    asking::Asking,
    output::{complain, print},
    table::{plain, print_table},
};

/// How many hosts are asked for at one time.
const AT_ONCE: usize = 64;

/// Add, look at and look after hosts
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  commissaire host add 10.0.0.7 --key ~/.ssh/fleet --user fedora --cluster web
  commissaire host list --status failed
  commissaire host investigate 10.0.0.7 --dry-run

Work that takes long shows its progress on standard error. Exit code 1: something is wrong with at least one host.")]
pub(crate) struct Hosts {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Add(add::Add),
    Rm(add::Rm),
    Show(show::Show),
    List(show::List),
    Check(CheckHosts),
    Investigate(investigate::Investigate),
    Trust(investigate::Trust),
}

/// Look at hosts now, in full, whatever their turn
#[derive(Debug, Args)]
struct CheckHosts {
    /// Their addresses
    #[arg(required = true)]
    addresses: Vec<String>,
    #[command(flatten)]
    asking: Asking,
}

impl Hosts {
    pub(crate) async fn run(self) -> Result<(), Failed> {
        match self.command {
            Command::Add(add) => add.run().await,
            Command::Rm(rm) => rm.run().await,
            Command::Show(show) => show.run().await,
            Command::List(list) => list.run().await,
            Command::Check(check) => check.run().await,
            Command::Investigate(investigate) => investigate.run().await,
            Command::Trust(trust) => trust.run().await,
        }
    }
}

impl CheckHosts {
    async fn run(self) -> Result<(), Failed> {
        let (client, _) = self.asking.client().await?;
        let checks = stream::iter(self.addresses.iter().cloned()).map(|address| {
            let client = client.clone();
            async move {
                client.call(Check, &CheckParams { address: address.clone() }).await.map_err(|e| (address, e))
            }
        });
        let all: Vec<_> = checks.buffered(AT_ONCE).collect().await;
        let mut checked: Vec<Checked> = Vec::new();
        let mut errors = Vec::new();
        for one in all {
            match one {
                Ok(one) => checked.push(one),
                Err((address, error)) => errors.push((address, error)),
            }
        }
        if self.asking.json {
            checked.iter().try_for_each(json)?;
        } else {
            let rows: Vec<_> = checked
                .iter()
                .map(|one| {
                    let state = if one.well { "well".to_owned() } else { one.cause.clone() };
                    let more = if one.well { one.warnings.join("; ") } else { one.text.clone() };
                    [one.address.clone(), state, format!("{} ms", one.latency_ms), plain(&more)]
                })
                .collect();
            print_table(["ADDRESS", "STATE", "ANSWERED IN", ""], &rows)?;
        }
        let unwell = checked.iter().any(|one| !one.well);
        client.bus().close().await?;
        done(errors, unwell)
    }
}

/// Says what went wrong with some of many. One error alone is that of the command.
fn done(mut errors: Vec<(String, Error)>, unwell: bool) -> Result<(), Failed> {
    if errors.len() == 1 && !unwell {
        return Err(errors.remove(0).1.into());
    }
    for (address, error) in &errors {
        complain(&format!("commissaire: {address}: {}", error.chain()));
    }
    if unwell || !errors.is_empty() { Err(Failed::Said(Exit::Failed)) } else { Ok(()) }
}

fn json(value: &impl Serialize) -> Result<(), Failed> {
    let line = serde_json::to_string(value)
        .map_err(|e| Error::malformed("it cannot be written as JSON").because(e))?;
    print(&line)
}

/// All that is known of some hosts.
#[derive(Debug)]
struct Known {
    hosts: Vec<Host>,
    states: HashMap<String, HostState>,
    clusters: Vec<Cluster>,
}

/// All that is known of a host, in one object.
#[derive(Debug, Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    host: &'a Host,
    cluster: Option<&'a str>,
    state: Option<&'a HostState>,
    #[serde(skip_serializing_if = "Option::is_none")]
    investigation: Option<&'a Investigation>,
}

impl Known {
    /// Of these; of all where none is named.
    async fn of(storage: &StorageClient, addresses: &[String]) -> Result<Self, Failed> {
        let clusters = storage.list::<Cluster>().await?;
        let (hosts, states) = if addresses.is_empty() {
            (storage.list::<Host>().await?, storage.list::<HostState>().await?)
        } else {
            let (mut hosts, mut states) = (Vec::new(), Vec::new());
            for address in addresses {
                let unknown = || {
                    let text = format!("there is no host {address:?}");
                    Error::from(commissaire::RpcError::new(commissaire::RpcError::NOT_FOUND, text))
                };
                hosts.push(storage.find::<Host>(address).await?.ok_or_else(unknown)?.record);
                states.extend(storage.find::<HostState>(address).await?.map(|found| found.record));
            }
            (hosts, states)
        };
        let states = states.into_iter().map(|state| (state.address.clone(), state)).collect();
        Ok(Self { hosts, states, clusters })
    }

    fn cluster(&self, address: &str) -> Option<&str> {
        let cluster = self.clusters.iter().find(|cluster| cluster.hostset.iter().any(|host| host == address));
        cluster.map(|cluster| cluster.name.as_str())
    }

    fn line<'a>(&'a self, host: &'a Host, investigation: Option<&'a Investigation>) -> Line<'a> {
        let address = &host.address;
        Line { host, cluster: self.cluster(address), state: self.states.get(address), investigation }
    }

    /// Why a host is not well, in few words.
    fn why(&self, host: &Host) -> String {
        let Some(state) = self.states.get(&host.address) else { return String::new() };
        let watched = state.watch.get("text").and_then(serde_json::Value::as_str).unwrap_or_default();
        let why = match state.failure() {
            Some(failure) => format!("{}: {}", failure.step, failure.text),
            None if !watched.is_empty() => watched.to_owned(),
            None => state.warnings.join("; "),
        };
        plain(why.lines().next().unwrap_or_default())
    }

    fn print(&self) -> Result<(), Failed> {
        let rows: Vec<_> = self
            .hosts
            .iter()
            .map(|host| {
                [
                    plain(&host.address),
                    plain(&host.status),
                    plain(self.cluster(&host.address).unwrap_or("-")),
                    plain(&host.os),
                    host.cpus.to_string(),
                    format!("{} MiB", host.memory),
                    format!("{} GiB", host.space >> 30),
                    self.why(host),
                ]
            })
            .collect();
        print_table(["ADDRESS", "STATUS", "CLUSTER", "OS", "CPUS", "MEMORY", "SPACE", ""], &rows)
    }
}

/// Deletes a record, if it is there.
async fn forget<T: Record>(storage: &StorageClient, address: &str) -> Result<bool, Error> {
    match storage.delete::<T>(address).await {
        Ok(()) => Ok(true),
        Err(error) if error.remote().is_some_and(|e| e.code == commissaire::RpcError::STORAGE_LOOKUP) => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Deletes all that is known of a host. Whether it was there.
async fn forget_all(storage: &StorageClient, address: &str) -> Result<bool, Error> {
    for cluster in storage.list::<Cluster>().await? {
        if cluster.hostset.iter().any(|host| host == address) {
            storage
                .update::<Cluster>(&cluster.name, |cluster| cluster.hostset.retain(|host| host != address))
                .await?;
        }
    }
    let was = forget::<Host>(storage, address).await?;
    forget::<HostCreds>(storage, address).await?;
    forget::<Investigation>(storage, address).await?;
    forget::<HostState>(storage, address).await?;
    Ok(was)
}
