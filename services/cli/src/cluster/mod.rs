//! `commissaire cluster`: clusters, and the operations over their hosts, from the shell.

mod operate;

use clap::{Args, Subcommand};
use commissaire_api::{Cluster, Host};

use crate::{
    Failed,
    asking::Asking,
    input::confirm,
    output::print,
    table::{plain, print_table},
};

/// Make clusters, and upgrade, restart and deploy all of their hosts
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  commissaire cluster restart web
  commissaire cluster upgrade web --max-concurrent 25% --max-failed 2
  commissaire cluster upgrade web --dry-run
  commissaire cluster operation web --follow

An operation goes on when the command that began it ends; what happens is shown on standard error. Exit code 1: it has not
finished with all hosts.")]
pub(crate) struct Clusters {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Create(Create),
    Rm(Rm),
    Show(Show),
    List(List),
    AddHost(AddHost),
    Upgrade(operate::Upgrade),
    Restart(operate::Restart),
    Deploy(operate::Deploy),
    Operation(operate::LastOperation),
    Pause(operate::Pause),
    Resume(operate::Resume),
    Cancel(operate::Cancel),
}

/// Make a cluster, or change what is said of one
#[derive(Debug, Args)]
struct Create {
    /// Its name
    name: String,
    /// The network of its hosts [default: default]
    #[arg(long, value_name = "NAME")]
    network: Option<String>,
    /// The container manager in which its hosts are registered
    #[arg(long, value_name = "NAME")]
    container_manager: Option<String>,
    #[command(flatten)]
    asking: Asking,
}

/// Remove a cluster; its hosts stay
#[derive(Debug, Args)]
struct Rm {
    /// Its name
    name: String,
    /// Do not ask; needed where there is no terminal to ask on
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    asking: Asking,
}

/// Show a cluster and its hosts
#[derive(Debug, Args)]
struct Show {
    /// Its name
    name: String,
    #[command(flatten)]
    asking: Asking,
}

/// Show all clusters
#[derive(Debug, Args)]
struct List {
    #[command(flatten)]
    asking: Asking,
}

/// Put hosts that are there into a cluster
#[derive(Debug, Args)]
struct AddHost {
    /// The cluster
    name: String,
    /// Their addresses
    #[arg(required = true)]
    addresses: Vec<String>,
    #[command(flatten)]
    asking: Asking,
}

impl Clusters {
    pub(crate) async fn run(self) -> Result<(), Failed> {
        match self.command {
            Command::Create(create) => create.run().await,
            Command::Rm(rm) => rm.run().await,
            Command::Show(show) => show.run().await,
            Command::List(list) => list.run().await,
            Command::AddHost(add) => add.run().await,
            Command::Upgrade(upgrade) => upgrade.run().await,
            Command::Restart(restart) => restart.run().await,
            Command::Deploy(deploy) => deploy.run().await,
            Command::Operation(operation) => operation.run().await,
            Command::Pause(pause) => pause.run().await,
            Command::Resume(resume) => resume.run().await,
            Command::Cancel(cancel) => cancel.run().await,
        }
    }
}

impl Create {
    async fn run(self) -> Result<(), Failed> {
        let (client, storage) = self.asking.client().await?;
        let new = Cluster {
            name: self.name,
            status: String::new(),
            network: "default".to_owned(),
            hostset: Vec::new(),
            container_manager: String::new(),
        };
        let saved = storage.update_or_create(&new, |cluster| {
            if let Some(network) = &self.network {
                cluster.network.clone_from(network);
            }
            if let Some(manager) = &self.container_manager {
                cluster.container_manager.clone_from(manager);
            }
        });
        let saved = saved.await?.record;
        client.bus().close().await?;
        show(&saved, self.asking.json)
    }
}

impl Rm {
    async fn run(self) -> Result<(), Failed> {
        if !self.yes {
            confirm(&format!("remove cluster {:?}", self.name))?;
        }
        let (client, storage) = self.asking.client().await?;
        storage.delete::<Cluster>(&self.name).await?;
        Ok(client.bus().close().await?)
    }
}

impl Show {
    async fn run(self) -> Result<(), Failed> {
        let (client, storage) = self.asking.client().await?;
        let cluster = storage.get::<Cluster>(&self.name).await?;
        show(&cluster, self.asking.json)?;
        if !self.asking.json {
            let mut rows = Vec::new();
            for address in &cluster.hostset {
                let found = storage.find::<Host>(address).await?;
                let (status, os) = match found {
                    Some(found) => (plain(&found.record.status), plain(&found.record.os)),
                    None => ("there is no such host".to_owned(), String::new()),
                };
                rows.push([plain(address), status, os]);
            }
            print_table(["ADDRESS", "STATUS", "OS"], &rows)?;
        }
        Ok(client.bus().close().await?)
    }
}

impl List {
    async fn run(self) -> Result<(), Failed> {
        let (client, storage) = self.asking.client().await?;
        let all = storage.list::<Cluster>().await?;
        if self.asking.json {
            all.iter().try_for_each(|cluster| show(cluster, true))?;
        } else {
            let row = |cluster: &Cluster| {
                let Cluster { name, network, container_manager, hostset, .. } = cluster;
                [plain(name), hostset.len().to_string(), plain(network), plain(container_manager)]
            };
            let rows: Vec<_> = all.iter().map(row).collect();
            print_table(["NAME", "HOSTS", "NETWORK", "CONTAINER MANAGER"], &rows)?;
        }
        Ok(client.bus().close().await?)
    }
}

impl AddHost {
    async fn run(self) -> Result<(), Failed> {
        let (client, storage) = self.asking.client().await?;
        for address in &self.addresses {
            storage.get::<Host>(address).await?;
        }
        let saved = storage.update::<Cluster>(&self.name, |cluster| {
            for address in &self.addresses {
                if !cluster.hostset.contains(address) {
                    cluster.hostset.push(address.clone());
                }
            }
        });
        let saved = saved.await?.record;
        client.bus().close().await?;
        show(&saved, self.asking.json)
    }
}

/// A cluster, as one line.
fn show(cluster: &Cluster, json: bool) -> Result<(), Failed> {
    if json {
        return print(&serde_json::to_string(cluster).unwrap_or_default());
    }
    let manager = match cluster.container_manager.as_str() {
        "" => "no container manager".to_owned(),
        name => format!("container manager {}", plain(name)),
    };
    let Cluster { name, network, hostset, .. } = cluster;
    print(&format!("{}: {} hosts, network {}, {manager}", plain(name), hostset.len(), plain(network)))
}
