//! What clusterexec answers.

use std::sync::Arc;

use commissaire::{Context, RpcError, Service, time::timestamp};
use commissaire_api::{
    Cluster, ClusterDeploy, ClusterRestart, ClusterUpgrade, Operation,
    client::request,
    clusterexec::{
        Cancel, CancelParams, ClusterParams, Control, Deploy, DeployJob, DeployParams, Events, EventsOutput,
        EventsParams, GetOperation, NameParams, OperationKind, Options, Pause, Plan, PlanParams, Planned,
        Restart, RestartJob, Resume, Told, Upgrade, UpgradeJob,
    },
    record::{IN_PROCESS, OperationWanted},
};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::{
    ledger::{all, event},
    options, plan,
    projection::{Said, View, set},
    run::missing,
    state::State,
};

pub(crate) fn service(state: Arc<State>) -> Service<State> {
    Service::new("clusterexec", state)
        .method(Upgrade, upgrade)
        .method(Restart, restart)
        .method(Deploy, deploy)
        .job(UpgradeJob, async |state, asked, context| upgrade(state, asked, context).await.map(drop))
        .job(RestartJob, async |state, asked, context| restart(state, asked, context).await.map(drop))
        .job(DeployJob, async |state, asked, context| deploy(state, asked, context).await.map(drop))
        .method(Plan, planned)
        .method(GetOperation, operation)
        .method(Events, events)
        .method(Pause, async |state, asked, _| control(&state, asked, Control::Pause).await)
        .method(Resume, async |state, asked, _| control(&state, asked, Control::Run).await)
        .method(Cancel, cancel)
}

async fn upgrade(
    state: Arc<State>,
    asked: ClusterParams,
    context: Context,
) -> Result<ClusterUpgrade, RpcError> {
    start(&state, OperationKind::Upgrade, &asked.cluster_name, "", asked.options.as_ref(), &context).await
}

async fn restart(
    state: Arc<State>,
    asked: ClusterParams,
    context: Context,
) -> Result<ClusterRestart, RpcError> {
    start(&state, OperationKind::Restart, &asked.cluster_name, "", asked.options.as_ref(), &context).await
}

async fn deploy(state: Arc<State>, asked: DeployParams, context: Context) -> Result<ClusterDeploy, RpcError> {
    let DeployParams { cluster_name, version, options } = asked;
    start(&state, OperationKind::Deploy, &cluster_name, &version, options.as_ref(), &context).await
}

/// Writes down what is to be done, and answers what the record of the first Commissaire says of it from now on.
async fn start<T: View>(
    state: &Arc<State>,
    kind: OperationKind,
    cluster: &str,
    version: &str,
    asked: Option<&Map<String, Value>>,
    context: &Context,
) -> Result<T, RpcError> {
    let wanted = wanted(state, kind, version, asked, context.actor.to_string())?;
    find(state, cluster).await?;
    let mut new = Operation { cluster: cluster.to_owned(), ..Operation::default() };
    request(&mut new, &Uuid::new_v4().simple().to_string(), &wanted);
    let mut other = None;
    state
        .storage
        .update_or_create(&new, |record| {
            other = (record.run != new.run && !record.run.is_empty() && !record.is_over())
                .then(|| record.clone());
            if other.is_none() {
                *record = new.clone();
            }
        })
        .await?;
    if let Some(other) = other {
        let kind = other.wanted().map(|wanted| wanted.kind.as_str()).unwrap_or_default();
        let text = format!(
            "another operation of cluster {cluster:?} is under way: {kind}, since {}",
            other.requested_at
        );
        let data = json!({"cluster_name": cluster, "operation": other.run, "kind": kind});
        return Err(RpcError::new(RpcError::CONFLICT, text).with_data(data));
    }
    tracing::info!(target: "audit", operation = new.run, actor = wanted.actor, cluster, kind = kind.as_str(), version, "an operation was asked for");
    let said = Said { status: IN_PROCESS.to_owned(), started_at: timestamp(), ..Said::default() };
    let record = set::<T>(&state.storage, cluster, version, &said).await?;
    state.runs.want(cluster);
    Ok(record)
}

fn wanted(
    state: &State,
    kind: OperationKind,
    version: &str,
    asked: Option<&Map<String, Value>>,
    actor: String,
) -> Result<OperationWanted, RpcError> {
    let invalid = |text: String| RpcError::new(RpcError::INVALID_PARAMS, text);
    if kind == OperationKind::Deploy && version.trim().is_empty() {
        return Err(invalid("version must not be empty".to_owned()));
    }
    let options: Options = options::over(&state.settings().members.options, asked)
        .map_err(|why| invalid(format!("options: {why}")))?;
    Ok(OperationWanted { kind, version: version.to_owned(), options, actor })
}

async fn find(state: &State, name: &str) -> Result<Cluster, RpcError> {
    let found = state.storage.find::<Cluster>(name).await?;
    found.map(|found| found.record).ok_or_else(|| missing(format!("there is no cluster {name:?}"), name))
}

async fn planned(state: Arc<State>, asked: PlanParams, context: Context) -> Result<Planned, RpcError> {
    let PlanParams { cluster_name, kind, version, options } = asked;
    let wanted = wanted(&state, kind, &version, options.as_ref(), context.actor.to_string())?;
    let cluster = find(&state, &cluster_name).await?;
    let hosts = plan::hosts(&state, &cluster, &wanted.options, "").await?;
    let hosts = plan::plan(&state, &state.settings(), &wanted, &cluster, hosts).await?;
    Ok(Planned { options: wanted.options, hosts })
}

async fn last(state: &State, cluster: &str) -> Result<Operation, RpcError> {
    let found = state.storage.find::<Operation>(cluster).await?;
    found
        .map(|found| found.record)
        .ok_or_else(|| missing(format!("cluster {cluster:?} has had no operation"), cluster))
}

async fn operation(state: Arc<State>, asked: NameParams, _: Context) -> Result<Told, RpcError> {
    let operation = last(&state, &asked.cluster_name).await?;
    let mut hosts = all(&state, &asked.cluster_name).await?;
    hosts.retain(|host| host.run == operation.run);
    Ok(Told { operation, hosts })
}

async fn events(state: Arc<State>, asked: EventsParams, _: Context) -> Result<EventsOutput, RpcError> {
    // Whether it is over is looked at first: what happens meanwhile is in the records of the hosts then.
    let operation = last(&state, &asked.cluster_name).await?;
    let Some(wanted) = operation.wanted() else { return Err(RpcError::internal()) };
    let of_all = operation.progress().history.into_iter().map(|happened| (happened, String::new()));
    let mut happened: Vec<_> = of_all.collect();
    for host in all(&state, &asked.cluster_name).await?.into_iter().filter(|host| host.run == operation.run) {
        let history = host.progress().history.into_iter();
        happened.extend(history.map(|happened| (happened, host.address.clone())));
    }
    happened.retain(|(happened, _)| happened.seq > asked.since);
    happened.sort_by_key(|(happened, _)| happened.seq);
    let of = |(happened, address): (_, String)| {
        event(wanted.kind, &asked.cluster_name, &operation.run, &happened, &address)
    };
    let events = happened.into_iter().map(of).collect();
    Ok(EventsOutput { operation: operation.run.clone(), events, over: operation.is_over() })
}

async fn cancel(state: Arc<State>, asked: CancelParams, _: Context) -> Result<Operation, RpcError> {
    let control_to = if asked.now { Control::CancelNow } else { Control::Cancel };
    control(&state, NameParams { cluster_name: asked.cluster_name }, control_to).await
}

/// Says what is wanted of an operation that is under way; of one that is over nothing can be.
async fn control(state: &State, asked: NameParams, to: Control) -> Result<Operation, RpcError> {
    let cluster = asked.cluster_name;
    last(state, &cluster).await?;
    let mut refused = None;
    let changed = state.storage.update::<Operation>(&cluster, |record| {
        let ends = [Control::Cancel, Control::CancelNow];
        refused = match record.is_over() {
            true if !ends.contains(&to) => Some(format!("the last operation of cluster {cluster:?} is over")),
            false if ends.contains(&record.control) && !ends.contains(&to) => {
                Some(format!("the operation of cluster {cluster:?} was cancelled"))
            }
            _ => None,
        };
        if refused.is_none() && !record.is_over() {
            record.control = to;
        }
    });
    let record = changed.await?.record;
    match refused {
        None => Ok(record),
        Some(text) => {
            let data = json!({"cluster_name": cluster, "operation": record.run});
            Err(RpcError::new(RpcError::CONFLICT, text).with_data(data))
        }
    }
}
