//! What the service answers.

use std::sync::Arc;

use commissaire::{Context, RpcError, Service};
use commissaire_api::container::{
    Changed, ContainerState, Cordon, CordonParams, Cordoned, Drain, GetNodeStatus, ManagerParams, Node,
    NodeParams, NodeRegistered, Nodes, RegisterNode, RemoveAllNodes, RemoveAllParams, RemoveNode, Removed,
    Uncordon, WaitReady,
};
use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};

use crate::{
    drain,
    fault::{Fault, rpc},
    state::{State, event},
    wait,
};

/// How many calls are in hand: many of them wait.
const AT_ONCE: u16 = 1024;
/// How many nodes are removed at one time.
const REMOVED_AT_ONCE: usize = 8;
/// The most bytes of an operation's name.
const MAX_OPERATION: usize = 200;

pub(crate) fn service(state: Arc<State>) -> Service<State> {
    Service::new("containermgr", state)
        .method(NodeRegistered, node_registered)
        .method(RegisterNode, register_node)
        .method(RemoveNode, remove_node)
        .method(RemoveAllNodes, remove_all_nodes)
        .method(GetNodeStatus, get_node_status)
        .method(Nodes, nodes)
        .method(Cordon, cordon)
        .method(Uncordon, uncordon)
        .method(Drain, drain::drain)
        .method(WaitReady, wait::wait_ready)
        .concurrency(AT_ONCE)
}

async fn node_registered(state: Arc<State>, asked: NodeParams, context: Context) -> Result<(), RpcError> {
    status(&state, &asked, &context).await.map(drop)
}

async fn get_node_status(state: Arc<State>, asked: NodeParams, context: Context) -> Result<Value, RpcError> {
    status(&state, &asked, &context).await
}

async fn status(state: &State, asked: &NodeParams, context: &Context) -> Result<Value, RpcError> {
    let (name, address) = (&asked.container_manager_name, &asked.address);
    check_node(address)?;
    let manager = state.managers.find(name).await?;
    let status = state.patiently(context.deadline, |_| manager.status(address)).await;
    let status = status.and_then(|status| status.ok_or_else(|| Fault::not_registered(address)));
    status.map_err(|fault| rpc(&fault.of(name)))
}

async fn register_node(
    state: Arc<State>,
    asked: NodeParams,
    context: Context,
) -> Result<Option<Changed>, RpcError> {
    let (name, address) = (&asked.container_manager_name, &asked.address);
    check_node(address)?;
    let manager = state.managers.find(name).await?;
    let manager = &manager;
    let register = |doubtful: bool| async move {
        let changed = manager.register(address).await?;
        // Its answer may have been lost before.
        let was_us = !changed && doubtful && manager.node(address).await?.is_some_and(|node| node.ours);
        Ok(changed || was_us)
    };
    let changed = state.patiently(context.deadline, register).await.map_err(|fault| rpc(&fault.of(name)))?;
    if changed {
        state.tell(&event(ContainerState::Registered, name, address, "")).await;
    }
    Ok(asked.extended.then_some(Changed { changed }))
}

async fn remove_node(
    state: Arc<State>,
    asked: NodeParams,
    context: Context,
) -> Result<Option<Changed>, RpcError> {
    let (name, address) = (&asked.container_manager_name, &asked.address);
    check_node(address)?;
    let manager = state.managers.find(name).await?;
    let manager = &manager;
    let removed = state.patiently(context.deadline, |doubtful| async move {
        manager.remove(address).await.map(|removed| removed || doubtful)
    });
    let changed = removed.await.map_err(|fault| rpc(&fault.of(name)))?;
    if changed {
        state.tell(&event(ContainerState::Removed, name, address, "")).await;
    }
    Ok(asked.extended.then_some(Changed { changed }))
}

async fn remove_all_nodes(
    state: Arc<State>,
    asked: RemoveAllParams,
    context: Context,
) -> Result<Option<Removed>, RpcError> {
    let name = &asked.container_manager_name;
    let manager = state.managers.find(name).await?;
    let failed = |fault: Fault| rpc(&fault.of(name));
    let nodes = state.patiently(context.deadline, |_| manager.nodes()).await.map_err(failed)?;
    let (ours, others): (Vec<Node>, Vec<Node>) = nodes.into_iter().partition(|node| node.ours);
    if let Some(expected) = asked.expected.filter(|expected| *expected != ours.len()) {
        let text = format!("{} nodes of container manager {name:?} are ours, not {expected}", ours.len());
        return Err(RpcError::new(RpcError::CONFLICT, text).with_data(json!({"registered": ours.len()})));
    }
    let (state, manager) = (&state, &manager);
    let each = stream::iter(ours).map(|node| async move {
        let removed = state.patiently(context.deadline, |_| manager.remove(&node.name)).await;
        if *removed.as_ref().unwrap_or(&false) {
            state.tell(&event(ContainerState::Removed, name, &node.name, "")).await;
        }
        removed.map(usize::from)
    });
    let removed = each.buffer_unordered(REMOVED_AT_ONCE).try_fold(0, |all, one| async move { Ok(all + one) });
    let removed = removed.await.map_err(failed)?;
    tracing::info!(
        container_manager = name,
        removed,
        left = others.len(),
        "all nodes that are ours were removed"
    );
    Ok(asked.extended.then_some(Removed { changed: removed > 0, removed, left: others.len() }))
}

async fn nodes(state: Arc<State>, asked: ManagerParams, context: Context) -> Result<Vec<Node>, RpcError> {
    let name = &asked.container_manager_name;
    let manager = state.managers.find(name).await?;
    let nodes = state.patiently(context.deadline, |_| manager.nodes()).await;
    nodes.map_err(|fault| rpc(&fault.of(name)))
}

async fn cordon(state: Arc<State>, asked: CordonParams, context: Context) -> Result<Cordoned, RpcError> {
    let CordonParams { container_manager_name: name, address, operation } = &asked;
    check_node(address)?;
    check_operation(operation)?;
    let manager = state.managers.find(name).await?;
    let cordoned = state.patiently(context.deadline, |_| manager.cordon(address, operation)).await;
    let cordoned = cordoned.map_err(|fault| rpc(&fault.of(name)))?;
    if cordoned.changed {
        state.tell(&event(ContainerState::Cordoned, name, address, operation)).await;
    }
    Ok(cordoned)
}

async fn uncordon(state: Arc<State>, asked: CordonParams, context: Context) -> Result<Cordoned, RpcError> {
    let CordonParams { container_manager_name: name, address, operation } = &asked;
    check_node(address)?;
    check_operation(operation)?;
    let manager = state.managers.find(name).await?;
    let cordoned = state.patiently(context.deadline, |_| manager.uncordon(address, operation)).await;
    let cordoned = cordoned.map_err(|fault| rpc(&fault.of(name)))?;
    if cordoned.changed {
        state.tell(&event(ContainerState::Uncordoned, name, address, operation)).await;
    }
    Ok(cordoned)
}

/// Refuses what can be no node's name: it becomes part of a path, and of a journal's key.
pub(crate) fn check_node(address: &str) -> Result<(), RpcError> {
    let fits = |c: char| c.is_ascii_alphanumeric() || ".-_:[]".contains(c);
    let problem = match address.chars().find(|c| !fits(*c)) {
        _ if address.is_empty() => "must not be empty".to_owned(),
        _ if [".", ".."].contains(&address) || address.len() > 253 => "is no name of a node".to_owned(),
        Some(bad) => format!("must not hold {bad:?}"),
        None => return Ok(()),
    };
    Err(RpcError::invalid_params(&[("address".to_owned(), problem)]))
}

pub(crate) fn check_operation(operation: &str) -> Result<(), RpcError> {
    let problem = match operation.chars().find(|c| c.is_control()) {
        _ if operation.is_empty() => "must not be empty".to_owned(),
        _ if operation.len() > MAX_OPERATION => format!("has more than {MAX_OPERATION} bytes"),
        Some(bad) => format!("must not hold {bad:?}"),
        None => return Ok(()),
    };
    Err(RpcError::invalid_params(&[("operation".to_owned(), problem)]))
}
