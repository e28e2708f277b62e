//! Container managers: the same promises on an API server of these tests' own, and on a real kube-apiserver.

use std::time::{Duration, Instant};

use commissaire::{Client, Error, Result as Asked};
use commissaire_api::{
    ContainerManagerConfig, ContainerManagerKind, StorageClient,
    container::{
        Changed, Cordon, CordonParams, Cordoned, Drain, DrainParams, Drained, FailureKind, GetNodeStatus,
        ManagerFailure, ManagerParams, Node, NodeParams, Nodes, RegisterNode, RemoveAllNodes,
        RemoveAllParams, RemoveNode, Removed, Uncordon, WaitReady, WaitReadyParams,
    },
};
use commissaire_integration::{
    Cluster, ClusterKind, Failure, Outcome, Place, Process, Sort, ensure, join, until,
};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(40);
/// The name of the container manager.
const K: &str = "honeynut";

/// Makes a test of each function that takes a [`ClusterKind`] for both.
macro_rules! each_cluster {
    ($($promise:ident),+ $(,)?) => {
        each_cluster!(@ fake, Fake, $($promise),+);
        each_cluster!(@ real, Real, $($promise),+);
    };
    (@ $module:ident, $kind:ident, $($promise:ident),+) => {
        mod $module {
            use commissaire_integration::{ClusterKind, Outcome};
            $(#[tokio::test]
            async fn $promise() -> Outcome {
                let kind = ClusterKind::$kind;
                if kind.left_out(concat!(stringify!($module), "::", stringify!($promise))) {
                    return Ok(());
                }
                super::$promise(kind).await
            })+
        }
    };
}

mod configured;
mod drains;
mod refusals;

each_cluster!(
    nodes_are_registered_and_removed_and_others_are_left_alone,
    a_cordon_is_lifted_by_its_owner_only,
    a_node_is_ready_when_it_has_been_for_long_enough_in_another_boot,
    a_container_manager_that_is_away_for_twenty_seconds_is_waited_for,
);

/// The services, and this test on their bus.
pub(crate) struct Control {
    pub(crate) place: Place,
    services: Vec<Process>,
    client: Client,
    storage: StorageClient,
}

impl Control {
    /// Storage in one process, the container managers' service in another.
    async fn new() -> Outcome<Self> {
        let place = Place::new()?;
        let up = place.up(&["--only", "storage", "-v"]).await?;
        let bus = join(&place.socket_uri()).await?;
        let client = Client::new(bus).with_timeout(Duration::from_secs(90));
        let storage = StorageClient::new(client.clone());
        let mut control = Self { place, services: vec![up], client, storage };
        let service = control.service().await?;
        control.services.push(service);
        Ok(control)
    }

    async fn service(&self) -> Outcome<Process> {
        let order = self.place.order("commissaire-containermgr-service")?.arg("-vv");
        let mut service = order.env("COMMISSAIRE_BUS_URI", self.place.socket_uri()).start()?;
        service.logs("ready", |line| line.contains(" ready ")).await?;
        Ok(service)
    }

    async fn add(&self, name: &str, kind: ContainerManagerKind, options: Value) -> Outcome {
        let options = options.as_object().cloned().unwrap_or_default();
        self.storage.save(&ContainerManagerConfig { name: name.to_owned(), kind, options }).await?;
        Ok(())
    }

    /// The container manager of `cluster`, with its token.
    async fn over(cluster: &Cluster) -> Outcome<Self> {
        let control = Self::new().await?;
        control.add(K, ContainerManagerKind::Openshift, options(cluster, Cluster::TOKEN)).await?;
        Ok(control)
    }

    async fn register(&self, address: &str) -> Asked<Option<Changed>> {
        self.client.call(RegisterNode, &node(address)).await
    }

    async fn nodes(&self) -> Asked<Vec<Node>> {
        self.client.call(Nodes, &ManagerParams { container_manager_name: K.to_owned() }).await
    }

    async fn drain(&self, address: &str, more: DrainParams) -> Asked<Drained> {
        let asked = DrainParams {
            container_manager_name: K.to_owned(),
            address: address.to_owned(),
            operation: "upgrade 7".to_owned(),
            ..more
        };
        self.client.call(Drain, &asked).await
    }

    /// Hears what the service tells, from now on.
    async fn listen(&self) -> Outcome<Process> {
        let order = self.place.cli(&["listen", "notify.containermgr.*"])?;
        let mut ears = order.env("COMMISSAIRE_BUS_URI", self.place.socket_uri()).start()?;
        ears.logs("listening", |line| line == "listening").await?;
        Ok(ears)
    }
}

fn options(cluster: &Cluster, token: &str) -> Value {
    json!({"server_url": cluster.url(), "token": token, "certificate_ca_path": cluster.certificates().of("ca")})
}

fn node(address: &str) -> NodeParams {
    NodeParams { container_manager_name: K.to_owned(), address: address.to_owned(), extended: true }
}

fn cordon(address: &str, operation: &str) -> CordonParams {
    let (container_manager_name, address) = (K.to_owned(), address.to_owned());
    CordonParams { container_manager_name, address, operation: operation.to_owned() }
}

/// What was told of a pod, or of all.
fn heard(ears: &Process, state: &str) -> Vec<Value> {
    let events = ears.out().into_iter().filter_map(|line| serde_json::from_str::<Value>(&line).ok());
    events.map(|event| event["body"].clone()).filter(|body| body["state"] == state).collect()
}

/// What a container manager is said to be at fault with.
fn failure<T: std::fmt::Debug>(answer: Asked<T>) -> Outcome<ManagerFailure> {
    let error: Error = answer.err().ok_or_else(|| Failure::new("it was answered"))?;
    let remote = error.remote().filter(|remote| remote.code == -20001);
    let data = remote.and_then(|remote| remote.data.clone());
    let data = data.ok_or_else(|| Failure::new(format!("it is no −20001 with data: {error:?}")))?;
    serde_json::from_value(data).map_err(|e| Failure::new(format!("{error:?}: {e}")))
}

async fn nodes_are_registered_and_removed_and_others_are_left_alone(kind: ClusterKind) -> Outcome {
    let cluster = Cluster::start(kind).await?;
    cluster.create(Sort::Node, json!({"metadata": {"name": "theirs"}})).await?;
    let control = Control::over(&cluster).await?;
    let ears = control.listen().await?;
    // As callers of the first Commissaire ask, by position and by name, and what they got.
    let call = async |code: i32, method: &str, params: Value| {
        let order = control.place.cli(&["call", &format!("container.{method}"), &params.to_string()])?;
        order.env("COMMISSAIRE_BUS_URI", control.place.socket_uri()).run().await?.expect(code)
    };
    let named = |address: &str| json!({"container_manager_name": K, "address": address});
    let refused = call(1, "node_registered", json!([K, "10.0.0.7"])).await?.error()?;
    ensure!(refused["code"] == -20001 && refused["data"]["kind"] == "not_registered", "{refused}");
    for params in [json!([K, "10.0.0.7"]), named("10.0.0.7"), named("10.0.0.8")] {
        ensure!(
            call(0, "register_node", params).await?.out == "null\n",
            "register_node does not answer null"
        );
    }
    ensure!(call(0, "node_registered", json!([K, "10.0.0.7"])).await?.out == "null\n", "node_registered");
    let status = call(0, "get_node_status", named("10.0.0.7")).await?.json()?;
    ensure!(status["kind"] == "Node" && status["metadata"]["name"] == "10.0.0.7", "{status}");
    for _ in 0..2 {
        ensure!(call(0, "remove_node", named("10.0.0.8")).await?.out == "null\n", "remove_node");
    }
    let unknown = call(1, "node_registered", json!(["nobody", "10.0.0.7"])).await?.error()?;
    ensure!(unknown["code"] == 404 && unknown["data"]["container_manager_name"] == "nobody", "{unknown}");
    let bad = call(1, "register_node", json!([K, "a/b"])).await?.error()?;
    ensure!(bad["code"] == -32602, "{bad}");

    // What is ours tells more.
    ensure!(control.register("10.0.0.7").await? == Some(Changed { changed: false }), "it was there");
    ensure!(control.register("10.0.0.9").await? == Some(Changed { changed: true }), "it was not there");
    ensure!(
        control.register("theirs").await? == Some(Changed { changed: false }),
        "a node of others was made ours"
    );
    let nodes = control.nodes().await?;
    let ours: Vec<_> = nodes.iter().map(|node| (node.name.as_str(), node.ours)).collect();
    ensure!(ours == [("10.0.0.7", true), ("10.0.0.9", true), ("theirs", false)], "{ours:?}");
    let all = |expected| RemoveAllParams { container_manager_name: K.to_owned(), extended: true, expected };
    let refused = control.client.call(RemoveAllNodes, &all(Some(3))).await;
    let refused = refused.err().and_then(|error| error.remote().cloned());
    ensure!(refused.as_ref().is_some_and(|refused| refused.code == 409), "{refused:?}");
    let removed = control.client.call(RemoveAllNodes, &all(Some(2))).await?;
    ensure!(removed == Some(Removed { changed: true, removed: 2, left: 1 }), "{removed:?}");
    let removed = control.client.call(RemoveAllNodes, &all(None)).await?;
    ensure!(removed == Some(Removed { changed: false, removed: 0, left: 1 }), "{removed:?}");
    ensure!(cluster.get(Sort::Node, "theirs").await?.is_some(), "a node of others is gone");
    ensure!(call(0, "remove_all_nodes", json!([K])).await?.out == "null\n", "remove_all_nodes");
    let gone = control.client.call(RemoveNode, &node("10.0.0.7")).await?;
    ensure!(gone == Some(Changed { changed: false }), "{gone:?}");
    // Each change is told once.
    until("all is told", PATIENCE, async || heard(&ears, "removed").len() >= 3).await?;
    let (registered, removed) = (heard(&ears, "registered"), heard(&ears, "removed"));
    ensure!(registered.len() == 3 && removed.len() == 3, "{registered:?} {removed:?}");
    Ok(())
}

async fn a_cordon_is_lifted_by_its_owner_only(kind: ClusterKind) -> Outcome {
    let cluster = Cluster::start(kind).await?;
    let control = Control::over(&cluster).await?;
    control.register("n1").await?;
    let is = |changed, cordoned, by: &str| Cordoned { changed, cordoned, cordoned_by: by.to_owned() };
    for (cordons, operation, wanted) in [
        (true, "one", is(true, true, "one")),
        (true, "one", is(false, true, "one")),
        (true, "two", is(false, true, "one")),
        (false, "two", is(false, true, "one")),
        (false, "one", is(true, false, "")),
        (false, "one", is(false, false, "")),
    ] {
        let asked = cordon("n1", operation);
        let told = if cordons {
            control.client.call(Cordon, &asked).await?
        } else {
            control.client.call(Uncordon, &asked).await?
        };
        ensure!(told == wanted, "{cordons} {operation}: {told:?}, not {wanted:?}");
    }
    // A person's cordon stays.
    cluster.patch(Sort::Node, "n1", json!({"spec": {"unschedulable": true}})).await?;
    let told = control.client.call(Cordon, &cordon("n1", "one")).await?;
    ensure!(told == is(false, true, ""), "{told:?}");
    let told = control.client.call(Uncordon, &cordon("n1", "one")).await?;
    ensure!(told == is(false, true, ""), "{told:?}");
    let drained = control.drain("n1", DrainParams::default()).await?;
    ensure!(drained.status == "finished" && drained.progress.cordoned_by.is_empty(), "{drained:?}");
    let node = cluster.get(Sort::Node, "n1").await?.unwrap_or_default();
    ensure!(node["spec"]["unschedulable"] == true, "{node}");
    // One that a person lets in again may be cordoned anew, whatever its annotation says.
    let annotated = json!({"metadata": {"annotations": {"commissaire/cordoned-by": "one"}}, "spec": {"unschedulable": null}});
    cluster.patch(Sort::Node, "n1", annotated).await?;
    let told = control.client.call(Cordon, &cordon("n1", "two")).await?;
    ensure!(told == is(true, true, "two"), "{told:?}");
    let gone = failure(control.client.call(Cordon, &cordon("n2", "one")).await)?;
    ensure!(gone.kind == FailureKind::NotRegistered, "{gone:?}");
    Ok(())
}

async fn a_node_is_ready_when_it_has_been_for_long_enough_in_another_boot(kind: ClusterKind) -> Outcome {
    let cluster = Cluster::start(kind).await?;
    let control = Control::over(&cluster).await?;
    control.register("n1").await?;
    cluster.kubelet("n1", true, "boot-1").await?;
    let wait = |healthy, timeout| WaitReadyParams {
        container_manager_name: K.to_owned(),
        address: "n1".to_owned(),
        min_healthy_seconds: Some(healthy),
        other_boot_than: Some("boot-1".to_owned()),
        timeout_seconds: Some(timeout),
    };
    let still = failure(control.client.call(WaitReady, &wait(0, 2)).await)?;
    ensure!(still.kind == FailureKind::NotReady && still.text.contains("boot-1"), "{still:?}");
    let asked = wait(3, 30);
    let (ready, told) = tokio::join!(control.client.call(WaitReady, &asked), async {
        cluster.kubelet("n1", false, "boot-2").await?;
        tokio::time::sleep(Duration::from_secs(2)).await;
        let since = Instant::now();
        cluster.kubelet("n1", true, "boot-2").await?;
        Ok::<_, Failure>(since)
    });
    let (ready, since) = (ready?, told?.elapsed());
    ensure!(ready.boot_id == "boot-2" && ready.healthy_seconds >= 3, "{ready:?}");
    ensure!(since >= Duration::from_secs(3), "it was called ready after {since:?}");
    let nodes = control.nodes().await?;
    ensure!(nodes[0].ready && nodes[0].version == "v1.20.2" && nodes[0].boot_id == "boot-2", "{nodes:?}");
    let gone = failure(control.client.call(GetNodeStatus, &node("n9")).await)?;
    ensure!(gone.kind == FailureKind::NotRegistered, "{gone:?}");
    Ok(())
}

async fn a_container_manager_that_is_away_for_twenty_seconds_is_waited_for(kind: ClusterKind) -> Outcome {
    const AWAY: Duration = Duration::from_secs(20);
    let mut cluster = Cluster::start(kind).await?;
    let control = Control::over(&cluster).await?;
    control.register("n1").await?;
    cluster.down();
    let began = Instant::now();
    let short = Client::new(control.client.bus().clone()).with_timeout(Duration::from_secs(3));
    let told = failure(short.call(RegisterNode, &node("n2")).await)?;
    ensure!(told.kind == FailureKind::Unreachable && told.status.is_none(), "{told:?}");
    let (registered, drained, back) =
        tokio::join!(control.register("n2"), control.drain("n1", DrainParams::default()), async {
            tokio::time::sleep(AWAY.saturating_sub(began.elapsed())).await;
            cluster.up().await
        });
    back?;
    ensure!(registered? == Some(Changed { changed: true }), "it was not registered then");
    ensure!(drained?.status == "finished", "it was not drained then");
    println!("all was well {:?} after the server had gone", began.elapsed());
    Ok(())
}
