//! To which hosts an operation comes, and what it would do to each.

use std::collections::HashMap;

use commissaire::Result;
use commissaire_api::{
    Cluster, HostState,
    clusterexec::{OperationKind, Options, Order, PlannedHost},
    record::{HostStage, OperationWanted},
};
use commissaire_ssh::os::{Booted, OsRelease};

use crate::{
    host::Commands,
    ledger,
    state::{Settings, State},
};

/// The hosts of an operation, in their order. `run`: which operation it is, where it has begun.
pub(crate) async fn hosts(
    state: &State,
    cluster: &Cluster,
    options: &Options,
    run: &str,
) -> Result<Vec<String>> {
    let mut hosts: Vec<String> = Vec::new();
    for address in &cluster.hostset {
        if !hosts.contains(address) {
            hosts.push(address.clone());
        }
    }
    if options.failed_only {
        let before = ledger::all(state, &cluster.name).await?;
        // Those of this operation are there when it was interrupted while they were made.
        let wanted = before.iter().filter(|host| host.run == run || host.stage != HostStage::Done);
        let wanted: Vec<&String> = wanted.map(|host| &host.address).collect();
        hosts.retain(|address| wanted.contains(&address));
    }
    if options.order == Order::Reverse {
        hosts.reverse();
    }
    Ok(hosts)
}

/// What would be done to these hosts, as far as they were investigated.
pub(crate) async fn plan(
    state: &State,
    settings: &Settings,
    wanted: &OperationWanted,
    cluster: &Cluster,
    hosts: Vec<String>,
) -> Result<Vec<PlannedHost>> {
    let known = state.storage.list::<HostState>().await?;
    let known: HashMap<&str, &HostState> = known.iter().map(|host| (host.address.as_str(), host)).collect();
    let plan = hosts.into_iter().map(|address| {
        let release = known.get(address.as_str()).map(|host| release(host)).unwrap_or_default();
        let Some(os) = settings.systems.find(&release) else {
            let impossible = match release.id.as_str() {
                "" => "it is not known what it runs: `commissaire host investigate` finds out".to_owned(),
                id => format!("no row of the OS table is for {id:?}"),
            };
            return PlannedHost { address, impossible, ..PlannedHost::default() };
        };
        let mut steps = Vec::new();
        if !cluster.container_manager.is_empty() {
            steps.extend(["cordon", "drain"].map(str::to_owned));
        }
        let mut impossible = String::new();
        match wanted.command(os) {
            Ok(command) => {
                let command = command.map(|command| command.replace("\"$VERSION\"", &wanted.version));
                steps.extend(command.map(|command| command.trim().to_owned()));
            }
            Err(why) => impossible = why,
        }
        steps.push(match (wanted.kind, &os.needs_reboot) {
            (OperationKind::Restart, _) => os.reboot.clone(),
            (_, Some(_)) => format!("{}, if that is needed", os.reboot),
            (_, None) => "no reboot: it cannot say whether it needs one".to_owned(),
        });
        steps.push("wait until it is well".to_owned());
        if !cluster.container_manager.is_empty() {
            steps.push("uncordon".to_owned());
        }
        PlannedHost { address, os: os.name.clone(), steps, impossible }
    });
    Ok(plan.collect())
}

/// What an investigation has found.
fn release(host: &HostState) -> OsRelease {
    let text =
        |name: &str| host.facts.get(name).and_then(|value| value.as_str()).unwrap_or_default().to_owned();
    let like = host.facts.get("os_like").and_then(|value| value.as_array());
    OsRelease {
        id: text("os"),
        like: like.into_iter().flatten().filter_map(|word| word.as_str()).map(str::to_owned).collect(),
        version: text("os_version"),
        variant: text("os_variant"),
        booted: match text("booted").as_str() {
            "bootc" => Some(Booted::Bootc),
            "ostree" => Some(Booted::Ostree),
            _ => None,
        },
    }
}
