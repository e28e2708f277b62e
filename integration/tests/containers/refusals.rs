//! What a container manager refuses, and that no secret is told.

use std::fs;

use commissaire_api::{
    ContainerManagerKind,
    container::{FailureKind, NodeParams, NodeRegistered, RegisterNode},
};
use commissaire_integration::{Cluster, ClusterKind, Outcome, Sort, ensure, until};
use serde_json::{Value, json};

use crate::sealed::holding;

use super::{Control, K, PATIENCE, failure, node, options};

each_cluster!(each_refusal_has_its_own_kind_and_no_secret_is_told);

async fn each_refusal_has_its_own_kind_and_no_secret_is_told(kind: ClusterKind) -> Outcome {
    let cluster = Cluster::start(kind).await?;
    let files = cluster.certificates();
    let expired = Cluster::showing(kind, "expired").await?;
    let mut control = Control::new().await?;
    let wrong = "c4n4ry-wr0ng-token";
    let with = |change: Value| {
        let mut options = options(&cluster, Cluster::TOKEN);
        for (name, value) in change.as_object().into_iter().flatten() {
            options[name] = value.clone();
        }
        options
    };
    let own = |token: Value, name: &str| {
        with(
            json!({"token": token, "certificate_path": files.of(name), "certificate_key_path": files.key(name)}),
        )
    };
    let of_expired =
        json!({"server_url": expired.url(), "certificate_ca_path": expired.certificates().of("ca")});
    let localhost = cluster.url().replace("127.0.0.1", "localhost");
    for (name, options, kind, status, says) in [
        (
            "a wrong token",
            with(json!({"token": wrong})),
            FailureKind::Unauthorized,
            Some(401),
            "does not know who we are",
        ),
        ("no rights", with(json!({"token": Cluster::READER})), FailureKind::Forbidden, Some(403), "cannot"),
        (
            "another authority",
            with(json!({"certificate_ca_path": files.of("other")})),
            FailureKind::Tls,
            None,
            "certificate_ca_path",
        ),
        (
            "the system's authorities",
            with(json!({"certificate_ca_path": null})),
            FailureKind::Tls,
            None,
            "certificate_ca_path",
        ),
        ("a certificate that has ended", with(of_expired), FailureKind::Tls, None, "expired"),
        ("another name", with(json!({"server_url": localhost})), FailureKind::Tls, None, "another name"),
        (
            "a key alone",
            with(json!({"certificate_key_path": files.key("client")})),
            FailureKind::Config,
            None,
            "go together",
        ),
        (
            "a file that is not there",
            with(json!({"certificate_ca_path": "/nowhere/ca.pem"})),
            FailureKind::Config,
            None,
            "/nowhere/ca.pem",
        ),
        (
            "a token in the clear",
            with(json!({"server_url": "http://10.255.0.1:1"})),
            FailureKind::Config,
            None,
            "https",
        ),
    ] {
        control.add(name, ContainerManagerKind::Kubernetes, options).await?;
        let asked = NodeParams { container_manager_name: name.to_owned(), ..node("n1") };
        let told = failure(control.client.call(RegisterNode, &asked).await)
            .map_err(|failure| failure.in_step(name))?;
        ensure!(told.kind == kind && told.status == status && told.text.contains(says), "{name}: {told:?}");
        let known = control.client.call(NodeRegistered, &asked).await;
        ensure!(failure(known)?.kind == kind, "{name}: node_registered tells another kind");
    }
    // A name that nobody knows may be that of a secret: it is not even stored.
    let misspelled = with(json!({"tokne": wrong}));
    let told = control.add("misspelled", ContainerManagerKind::Kubernetes, misspelled).await;
    let told = told.err().map(|failure| failure.to_string()).unwrap_or_default();
    ensure!(told.contains("did you mean token?") && !told.contains(wrong), "{told}");
    // A stranger's certificate is not believed; one that is known may do what it may.
    control.add(K, ContainerManagerKind::Kubernetes, own(Value::Null, "client")).await?;
    if kind == ClusterKind::Real {
        let told = failure(control.register("n1").await)?;
        ensure!(told.kind == FailureKind::Forbidden && told.text.contains("\"client\""), "{told:?}");
        cluster.create(Sort::Binding, json!({"metadata": {"name": "client"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "client"}]})).await?;
    }
    until("the certificate is enough", PATIENCE, async || control.register("n1").await.is_ok()).await?;
    control.add("stranger", ContainerManagerKind::Kubernetes, own(Value::Null, "stranger")).await?;
    let asked = NodeParams { container_manager_name: "stranger".to_owned(), ..node("n1") };
    let told = failure(control.client.call(NodeRegistered, &asked).await)?;
    ensure!([FailureKind::Tls, FailureKind::Unauthorized].contains(&told.kind), "{told:?}");

    // A token that is replaced in its file is taken without a word.
    let file = control.place.path().join("token");
    fs::write(&file, format!("{wrong}\n"))?;
    let rotated = with(json!({"token": null, "token_path": file}));
    control.add("rotated", ContainerManagerKind::Kubernetes, rotated).await?;
    let asked = NodeParams { container_manager_name: "rotated".to_owned(), ..node("n1") };
    let told = failure(control.client.call(NodeRegistered, &asked).await)?;
    ensure!(told.kind == FailureKind::Unauthorized, "{told:?}");
    fs::write(&file, format!("{}\n", Cluster::TOKEN))?;
    control.client.call(NodeRegistered, &asked).await?;
    // A kubeconfig says all of it; one in a record names no program to be run.
    let kubeconfig = |user: Value| {
        json!({"clusters": [{"name": "t", "cluster": {"server": cluster.url(), "certificate-authority": files.of("ca")}}],
            "users": [{"name": "t", "user": user}], "contexts": [{"name": "t", "context": {"cluster": "t", "user": "t"}}],
            "current-context": "t"})
        .to_string()
    };
    let text = kubeconfig(json!({"token": Cluster::TOKEN}));
    control.add("config", ContainerManagerKind::Kubernetes, json!({"kubeconfig": text})).await?;
    let asked = NodeParams { container_manager_name: "config".to_owned(), ..node("n1") };
    control.client.call(NodeRegistered, &asked).await?;
    let text =
        kubeconfig(json!({"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "touch"}}));
    control.add("exec", ContainerManagerKind::Kubernetes, json!({"kubeconfig": text})).await?;
    let asked = NodeParams { container_manager_name: "exec".to_owned(), ..node("n1") };
    let told = failure(control.client.call(NodeRegistered, &asked).await)?;
    ensure!(told.kind == FailureKind::Config && told.text.contains("kubeconfig_path"), "{told:?}");

    // No token is in any log, or any file but that of the token.
    let mut said = String::new();
    while let Some(service) = control.services.pop() {
        let ended = service.terminate().await?.expect(0)?;
        said.push_str(&ended.out);
        said.push_str(&ended.err);
    }
    ensure!(said.contains("container_manager"), "the log says nothing of container managers: {said}");
    fs::remove_file(&file)?;
    for secret in ["c4n4ry-t0ken", wrong] {
        ensure!(!said.contains(secret), "{secret} is in a log");
        let files = holding(control.place.path(), secret)?;
        ensure!(files.is_empty(), "{secret} is in {files:?}");
    }
    ensure!(!holding(control.place.path(), "certificate_ca_path")?.is_empty(), "not even an option is found");
    Ok(())
}
