//! `commissaire container-manager nodes` and `drain`.

use clap::Args;
use commissaire::{Event, Pattern, Received, Source};
use commissaire_api::container::{
    ContainerEvent, ContainerState, Drain, DrainParams, ManagerFailure, ManagerParams, Node, Nodes,
};

use crate::{
    Failed,
    asking::Asking,
    output::{complain, print},
    table::{plain, print_table},
};

/// Show the nodes of a container manager
#[derive(Debug, Args)]
pub(super) struct OfManager {
    /// Its name
    name: String,
    #[command(flatten)]
    asking: Asking,
}

/// Cordon a node and have its pods leave
#[derive(Debug, Args)]
#[command(after_help = "\
Pods leave by eviction, as their disruption budgets allow; those of daemon sets, and those that the node runs by itself, stay.
The cordon stays as well: `commissaire call container.uncordon` with the same operation lifts it. Said again, it joins a drain
that is under way; what stops waiting for one does not stop it.")]
pub(super) struct DrainNode {
    /// The container manager's name
    name: String,
    /// The node's address
    address: String,
    /// Who owns the cordon and the drain: only the same lifts the cordon
    #[arg(long, value_name = "NAME", default_value = "commissaire drain")]
    operation: String,
    /// How long it may take, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "600")]
    deadline: u32,
    /// How long a pod may take to end, in seconds; else what it says itself
    #[arg(long, value_name = "SECONDS")]
    grace: Option<u32>,
    /// Evict pods as well that lose what they keep in an emptyDir
    #[arg(long)]
    delete_empty_dir: bool,
    /// Evict pods as well that nobody makes anew
    #[arg(long)]
    force: bool,
    /// Delete what is still there at the deadline, whatever its disruption budget
    #[arg(long)]
    delete_at_deadline: bool,
    /// Do not wait for its end
    #[arg(long)]
    no_wait: bool,
    #[command(flatten)]
    asking: Asking,
}

impl OfManager {
    pub(super) async fn run(self) -> Result<(), Failed> {
        let (client, _) = self.asking.client().await?;
        let params = ManagerParams { container_manager_name: self.name };
        let nodes = client.call(Nodes, &params).await?;
        if self.asking.json {
            nodes.iter().try_for_each(json)?;
        } else {
            let rows: Vec<_> = nodes.iter().map(row).collect();
            print_table(["NAME", "READY", "CORDONED", "OURS", "VERSION", "OS"], &rows)?;
        }
        client.bus().close().await?;
        Ok(())
    }
}

fn row(node: &Node) -> [String; 6] {
    let cordoned = match (node.cordoned, node.cordoned_by.as_str()) {
        (false, _) => "no".to_owned(),
        (true, "") => "yes".to_owned(),
        (true, owner) => format!("by {}", plain(owner)),
    };
    let word = |is: bool| if is { "yes" } else { "no" }.to_owned();
    [plain(&node.name), word(node.ready), cordoned, word(node.ours), plain(&node.version), plain(&node.os)]
}

impl DrainNode {
    pub(super) async fn run(self) -> Result<(), Failed> {
        let (client, _) = self.asking.client().await?;
        let heard = Source::Topic(vec![Pattern::new(ContainerEvent::PATTERN)?]);
        let mut ears = client.bus().subscribe(heard, 64).await?;
        let params = DrainParams {
            container_manager_name: self.name,
            address: self.address,
            operation: self.operation,
            deadline_seconds: Some(self.deadline),
            grace_seconds: self.grace,
            delete_empty_dir: self.delete_empty_dir,
            force: self.force,
            delete_at_deadline: self.delete_at_deadline,
            no_wait: self.no_wait,
        };
        let drained = {
            let tell = async {
                while let Some(received) = ears.next().await {
                    let Received::Delivery(delivery) = received else { continue };
                    if let Ok(event) = serde_json::from_slice::<ContainerEvent>(delivery.message().body())
                        && event.container_manager_name == params.container_manager_name
                        && event.address == params.address
                    {
                        say(&event);
                    }
                    let _ = delivery.ack().await;
                }
                std::future::pending::<()>().await;
            };
            tokio::select! {
                drained = client.call(Drain, &params) => drained,
                () = tell => unreachable!("it never ends"),
            }
        };
        let drained = match drained {
            Err(error) => {
                let failure = error.remote().and_then(|remote| remote.data.clone());
                let failure = failure.and_then(|data| serde_json::from_value::<ManagerFailure>(data).ok());
                for blocker in failure.iter().flat_map(|failure| &failure.blockers) {
                    complain(&format!("{}: {}", plain(&blocker.pod), plain(&blocker.why)));
                }
                return Err(error.into());
            }
            Ok(drained) => drained,
        };
        if self.asking.json {
            json(&drained)?;
        } else if drained.status == "finished" {
            let (evicted, kept) = (drained.progress.evicted.len(), drained.progress.kept.len());
            print(&format!("{} drained: {evicted} pods were evicted, {kept} stay", params.address))?;
        } else {
            print(&format!("{} is to be drained: run {}", params.address, drained.run))?;
        }
        client.bus().close().await?;
        Ok(())
    }
}

/// Tells how far it is.
fn say(event: &ContainerEvent) {
    let pod = plain(&event.pod);
    let line = match event.state {
        ContainerState::Evicted => format!("{pod} leaves"),
        ContainerState::Blocked => format!("{pod} may not leave yet: {}", plain(&event.text)),
        ContainerState::Gone => format!("{pod} has left"),
        ContainerState::Cordoned => format!("{} is cordoned", plain(&event.address)),
        _ => return,
    };
    complain(&line);
}

fn json(value: &impl serde::Serialize) -> Result<(), Failed> {
    let line = serde_json::to_string(value)
        .map_err(|e| commissaire::Error::malformed("it cannot be written as JSON").because(e))?;
    print(&line)
}
