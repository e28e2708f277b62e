//! `container.wait_ready`.

use std::{sync::Arc, time::Duration};

use commissaire::{Context, RpcError};
use commissaire_api::container::{FailureKind, Node, Ready, WaitReadyParams};
use tokio::time::{Instant, sleep};

use crate::{
    fault::{Fault, rpc},
    methods::check_node,
    state::State,
};

/// How often a node is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How long to wait where nobody says.
const USUAL: u32 = 600;
/// What is left of a call's time for its answer.
const FOR_THE_ANSWER: Duration = Duration::from_millis(500);

pub(crate) async fn wait_ready(
    state: Arc<State>,
    asked: WaitReadyParams,
    context: Context,
) -> Result<Ready, RpcError> {
    let (name, address) = (&asked.container_manager_name, &asked.address);
    check_node(address)?;
    let manager = state.managers.find(name).await?;
    let own = Instant::now() + Duration::from_secs(asked.timeout_seconds.unwrap_or(USUAL).into());
    let until = context.deadline.map_or(own, |deadline| own.min(deadline - FOR_THE_ANSWER));
    let healthy = Duration::from_secs(asked.min_healthy_seconds.unwrap_or_default().into());
    // Since when it was seen ready without a break, and since when it says to be.
    let mut since: Option<(Instant, String)> = None;
    loop {
        let looked = manager.node(address).await;
        let why = match &looked {
            Ok(Some(node)) => not_ready(node, asked.other_boot_than.as_deref()),
            Ok(None) => Some("it is not registered".to_owned()),
            // It is the container manager that is away: the node may be well.
            Err(fault) if fault.is_temporary() => Some(fault.text().to_owned()),
            Err(fault) => return Err(rpc(&fault.clone().of(name))),
        };
        match (&looked, &why) {
            (Ok(Some(node)), None) => {
                let now = Instant::now();
                let known = since.take().filter(|(_, ready_since)| *ready_since == node.ready_since);
                let (begun, ready_since) = known.unwrap_or_else(|| (now, node.ready_since.clone()));
                let seen = now - begun;
                if seen >= healthy {
                    return Ok(Ready { boot_id: node.boot_id.clone(), healthy_seconds: seen.as_secs() });
                }
                since = Some((begun, ready_since));
            }
            (Ok(_), _) => since = None,
            (Err(_), _) => {}
        }
        let now = Instant::now();
        if now >= until {
            let why = why.unwrap_or_else(|| format!("it was ready for less than {} s", healthy.as_secs()));
            let text = format!("node {address} was not ready in time: {why}");
            return Err(rpc(&Fault::new(FailureKind::NotReady, text).of(name)));
        }
        sleep(LOOK.min(until - now)).await;
    }
}

/// Why a node is not ready, if it is not.
fn not_ready(node: &Node, before: Option<&str>) -> Option<String> {
    if let Some(before) = before.filter(|before| *before == node.boot_id) {
        return Some(format!("it is still in boot {before}"));
    }
    if node.ready {
        return None;
    }
    let ready = node.conditions.iter().find(|condition| condition.kind == "Ready");
    Some(match ready {
        Some(ready) if !ready.message.is_empty() => format!("{}: {}", ready.reason, ready.message),
        Some(ready) => format!("Ready is {}", ready.status),
        None => "it has not said anything".to_owned(),
    })
}
