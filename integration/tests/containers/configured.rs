//! Which container managers there are: after a restart, by configuration, and for a host.

use std::fs;

use commissaire_api::{
    ContainerManagerConfig, ContainerManagerKind,
    container::{GetNodeStatus, ManagerParams, NodeParams, Nodes, RegisterNode},
};
use commissaire_integration::{Cluster, ClusterKind, Fleet, Outcome, Place, Sort, ensure, until};
use serde_json::{Map, Value, json};

use crate::{hosts::start_up, sealed::holding};

use super::{Control, K, PATIENCE, node, options};

#[tokio::test]
async fn managers_are_known_after_a_restart_as_they_are_then() -> Outcome {
    let cluster = Cluster::start(ClusterKind::Fake).await?;
    let mut control = Control::over(&cluster).await?;
    let trivial = ContainerManagerKind::Trivial;
    for name in ["changed", "deleted"] {
        control.add(name, trivial, json!({"persistent": true})).await?;
        let asked = NodeParams { container_manager_name: name.to_owned(), ..node("n1") };
        control.client.call(RegisterNode, &asked).await?;
    }
    control.register("n1").await?;
    if let Some(service) = control.services.pop() {
        service.kill().await?;
    }
    control.add("changed", ContainerManagerKind::Kubernetes, options(&cluster, Cluster::TOKEN)).await?;
    control.storage.delete::<ContainerManagerConfig>("deleted").await?;
    control.add("created", trivial, Value::Object(Map::new())).await?;
    let service = control.service().await?;
    control.services.push(service);
    let nodes = async |name: &str| {
        let asked = ManagerParams { container_manager_name: name.to_owned() };
        control.client.call(Nodes, &asked).await.map(|nodes| nodes.len())
    };
    ensure!(nodes(K).await? == 1, "one that was there is not known");
    ensure!(nodes("changed").await? == 1, "one that was changed is not");
    ensure!(nodes("created").await? == 0, "one that is new is not known");
    let gone = nodes("deleted").await.err().and_then(|error| error.remote().map(|remote| remote.code));
    ensure!(gone == Some(404), "one that was deleted: {gone:?}");
    // And while it runs; the nodes of a trivial one that is persistent outlive it.
    control.add("changed", trivial, json!({"persistent": true})).await?;
    until("the change is heard of", PATIENCE, async || {
        let asked = NodeParams { container_manager_name: "changed".to_owned(), ..node("n1") };
        let told = control.client.call(GetNodeStatus, &asked).await;
        told.is_ok_and(|told| told == json!({"node": "n1", "status": "ok"}))
    })
    .await?;
    Ok(())
}

each_cluster!(a_host_becomes_active_when_it_is_a_node);

/// The token goes from its file to the API server by way of the command line, storage and the bus.
async fn a_host_becomes_active_when_it_is_a_node(kind: ClusterKind) -> Outcome {
    let cluster = Cluster::start(kind).await?;
    let (fleet, place) = (Fleet::start(&["fedora"]).await?, Place::new()?);
    let up = start_up(&fleet, &place, json!({}), &["--only", "storage,investigator"]).await?;
    // The machines are in a network of their own, where no API server is.
    let order =
        place.order("commissaire-containermgr-service")?.env("COMMISSAIRE_BUS_URI", place.socket_uri());
    let mut manager = order.start()?;
    manager.logs("ready", |line| line.contains(" ready ")).await?;
    let run = async |arguments: &[&str]| {
        place.cli(arguments)?.env("COMMISSAIRE_BUS_URI", place.socket_uri()).run().await?.expect(0)
    };
    let (token, url) = (place.path().join("token").display().to_string(), cluster.url());
    fs::write(&token, Cluster::TOKEN)?;
    let ca = cluster.certificates().of("ca");
    run(&["container-manager", "add", K, "--server-url", &url, "--token-file", &token, "--ca", &ca]).await?;
    fs::remove_file(&token)?;
    run(&["cluster", "create", "web", "--container-manager", K]).await?;
    let (address, key) = (fleet.address(0), fleet.key_file().display().to_string());
    run(&["host", "add", &address, "--key", &key, "--cluster", "web"]).await?;
    let shown = run(&["host", "show", "--json", &address]).await?.json()?;
    ensure!(shown["status"] == "active", "{shown}");
    let node = cluster.get(Sort::Node, &address).await?;
    ensure!(node.is_some(), "it is no node of the cluster");
    let mut said = String::new();
    for process in [manager, up] {
        said.push_str(&format!("{:?}", process.terminate().await?.expect(0)?));
    }
    ensure!(!said.contains(Cluster::TOKEN), "a service tells the token");
    let found = holding(place.path(), Cluster::TOKEN)?;
    ensure!(found.is_empty(), "the token is in {found:?}");
    Ok(())
}

#[tokio::test]
async fn a_host_of_a_cluster_with_a_container_manager_becomes_active() -> Outcome {
    let control = crate::hosts::Control::over(&["fedora", "debian"], json!({})).await?;
    let (key, place) = (control.fleet.key_file().display().to_string(), &control.place);
    let order = place.cli(&["container-manager", "add", "demo", "--type", "trivial"])?;
    order.env("COMMISSAIRE_BUS_URI", place.socket_uri()).run().await?.expect(0)?;
    for (name, manager) in [("web", "demo"), ("lost", "nobody")] {
        let cluster = json!({"name": name, "container_manager": manager});
        let params = json!({"model_type_name": "Cluster", "model_json_data": cluster}).to_string();
        let order = place.cli(&["call", "storage.save", &params])?;
        order.env("COMMISSAIRE_BUS_URI", place.socket_uri()).run().await?.expect(0)?;
    }
    let addresses = control.addresses();
    control.host(0, &["add", &addresses[0], "--key", &key, "--cluster", "web"]).await?;
    ensure!(control.show(0).await?["status"] == "active", "{}", control.show(0).await?);
    let call =
        place.cli(&["call", "container.get_node_status", &json!(["demo", addresses[0]]).to_string()])?;
    let status = call.env("COMMISSAIRE_BUS_URI", place.socket_uri()).run().await?.expect(0)?.json()?;
    ensure!(status == json!({"node": addresses[0], "status": "ok"}), "{status}");
    // Again, and it stays; where there is no such container manager the reason says so.
    control.host(0, &["investigate", &addresses[0]]).await?;
    ensure!(control.show(0).await?["status"] == "active", "it did not stay active");
    control.host(1, &["add", &addresses[1], "--key", &key, "--cluster", "lost"]).await?;
    let lost = control.show(1).await?;
    let failure = &lost["state"]["failure"];
    ensure!(lost["status"] == "failed" && failure["step"] == "register", "{lost}");
    ensure!(failure["text"].as_str().is_some_and(|text| text.contains("nobody")), "{failure}");
    Ok(())
}

#[tokio::test]
async fn the_configuration_of_the_first_commissaire_is_taken_and_shows_no_token() -> Outcome {
    const SECRET: &str = "c4n4ry-t0ken";
    let control = Control::new().await?;
    let file = control.place.path().join("containermgr.conf");
    let run = async |handlers: Value, code: i32, more: &[&str]| {
        fs::write(&file, json!({"container-handlers": handlers}).to_string())?;
        let order = control.place.order("commissaire-containermgr-service")?.arg("-c").arg(&file).args(more);
        order.env("COMMISSAIRE_BUS_URI", control.place.socket_uri()).run().await?.expect(code)
    };
    let old = json!({"name": "OpenshiftA1", "handler": "commissaire.containermgr.kubernetes",
        "server_url": "https://192.168.152.102:8443/", "token": SECRET});
    for handlers in [old.clone(), json!([old, {"name": "t", "handler": "trivial"}])] {
        for json in [&["--show-config"][..], &["--show-config", "--json"]] {
            let shown = run(handlers.clone(), 0, json).await?;
            let all = format!("{}{}", shown.out, shown.err);
            ensure!(all.contains("OpenshiftA1") && !all.contains(SECRET), "{all}");
        }
    }
    for (handlers, says) in [
        (json!([{"name": "a", "handler": "kubernets"}]), "did you mean kubernetes?"),
        (json!([{"name": "a", "handler": "kubernetes"}]), "server_url"),
        (json!([{"handler": "trivial"}]), "name is missing"),
        (json!([{"name": "a", "handler": "trivial"}, {"name": "a", "handler": "trivial"}]), "already"),
        (
            json!([{"name": "a", "handler": "openshift", "server_url": "http://10.0.0.1", "token": SECRET}]),
            "https",
        ),
    ] {
        let refused = run(handlers, 78, &["--check-config"]).await?;
        refused.tells(&["[", says])?;
        ensure!(!refused.err.contains(SECRET), "{}", refused.err);
    }
    Ok(())
}
