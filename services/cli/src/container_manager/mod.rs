//! `commissaire container-manager`: container managers and their nodes from the shell.

mod add;
mod nodes;

use std::time::Duration;

use clap::{Args, Subcommand};
use commissaire::{Error, app::Exit};
use commissaire_api::{
    ContainerManagerConfig,
    container::{ManagerParams, Node, Nodes},
};
use futures_util::{StreamExt, stream};
use serde_json::json;

use crate::{
    Failed,
    asking::Asking,
    output::print,
    table::{plain, print_table},
};

/// How many container managers are asked at one time.
const AT_ONCE: usize = 16;

/// Add, look at and look after container managers
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  commissaire container-manager add web --server-url https://10.0.0.1:6443 --token-file token --ca /etc/pki/kube.pem
  commissaire container-manager nodes web
  commissaire container-manager drain web 10.0.0.7 --operation repair")]
pub(crate) struct ContainerManagers {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Add(add::Add),
    Rm(add::Rm),
    List(List),
    Nodes(nodes::OfManager),
    Drain(nodes::DrainNode),
}

/// Show container managers, and whether they answer
#[derive(Debug, Args)]
struct List {
    #[command(flatten)]
    asking: Asking,
}

impl ContainerManagers {
    pub(crate) async fn run(self) -> Result<(), Failed> {
        match self.command {
            Command::Add(add) => add.run().await,
            Command::Rm(rm) => rm.run().await,
            Command::List(list) => list.run().await,
            Command::Nodes(nodes) => nodes.run().await,
            Command::Drain(drain) => drain.run().await,
        }
    }
}

impl List {
    async fn run(self) -> Result<(), Failed> {
        let (client, storage) = self.asking.client().await?;
        let all = storage.list::<ContainerManagerConfig>().await?;
        // One that is away is not waited for: the others are to be seen.
        let quick = client.clone().with_timeout(self.asking.timeout.min(Duration::from_secs(8)));
        let asked: Vec<Result<Vec<Node>, Error>> = stream::iter(all.iter().map(|one| one.name.clone()))
            .map(|container_manager_name| {
                let client = quick.clone();
                async move { client.call(Nodes, &ManagerParams { container_manager_name }).await }
            })
            .buffered(AT_ONCE)
            .collect()
            .await;
        let mut rows = Vec::new();
        for (one, asked) in all.iter().zip(&asked) {
            let kind = serde_json::to_value(one.kind).unwrap_or_default();
            let server = one.options.get("server_url").cloned().unwrap_or_default();
            let ours = |nodes: &Vec<Node>| nodes.iter().filter(|node| node.ours).count();
            if self.asking.json {
                let (nodes, error) = match asked {
                    Ok(nodes) => (json!({"ours": ours(nodes), "all": nodes.len()}), json!(null)),
                    Err(error) => (json!(null), json!(error.chain())),
                };
                let line = json!({"name": one.name, "type": kind, "server_url": server, "nodes": nodes, "error": error});
                print(&line.to_string())?;
                continue;
            }
            let (nodes, why) = match asked {
                Ok(nodes) => (format!("{} of {}", ours(nodes), nodes.len()), String::new()),
                Err(error) => ("-".to_owned(), plain(&error.chain())),
            };
            let text = |value: &serde_json::Value| plain(value.as_str().unwrap_or("-"));
            rows.push([plain(&one.name), text(&kind), text(&server), nodes, why]);
        }
        if !self.asking.json {
            print_table(["NAME", "TYPE", "SERVER", "OUR NODES", ""], &rows)?;
        }
        client.bus().close().await?;
        if asked.iter().all(Result::is_ok) { Ok(()) } else { Err(Failed::Said(Exit::Failed)) }
    }
}
