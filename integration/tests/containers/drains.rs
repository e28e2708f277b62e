//! Drains: what leaves, what stays, what stands in the way, and what a death in the middle changes.

use std::time::{Duration, Instant};

use commissaire_api::{
    NodeDrain,
    container::{DrainParams, FailureKind, Uncordon},
};
use commissaire_integration::{Cluster, ClusterKind, Outcome, Sort, ensure, until};
use serde_json::json;

use super::{Control, K, PATIENCE, cordon, failure, heard};

each_cluster!(
    a_drain_waits_for_a_budget_and_spares_what_must_stay,
    a_drain_that_is_killed_goes_on_in_another_instance,
);

/// Pods of all sorts on `n1`.
async fn crowd(cluster: &Cluster) -> Outcome {
    let owner = |kind: &str| json!({"ownerReferences": [{"apiVersion": "apps/v1", "kind": kind, "name": "o", "uid": "u", "controller": true}]});
    let set = owner("ReplicaSet");
    for name in ["web", "free"] {
        cluster.pod(name, "n1", set.clone(), json!({})).await?;
    }
    cluster.pod("agent", "n1", owner("DaemonSet"), json!({})).await?;
    cluster.pod("elsewhere", "n2", set.clone(), json!({})).await?;
    cluster.budget("web", 0).await
}

async fn a_drain_waits_for_a_budget_and_spares_what_must_stay(kind: ClusterKind) -> Outcome {
    let cluster = Cluster::start(kind).await?;
    let control = Control::over(&cluster).await?;
    control.register("n1").await?;
    control.register("n2").await?;
    crowd(&cluster).await?;
    cluster.pod("bare", "n1", json!({}), json!({})).await?;
    let volume = json!({"volumes": [{"name": "v", "emptyDir": {}}]});
    let set = json!({"ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "o", "uid": "u", "controller": true}]});
    cluster.pod("scratch", "n1", set, volume).await?;
    let ears = control.listen().await?;

    // What would be lost is named before anything leaves.
    let refused = failure(control.drain("n1", DrainParams::default()).await)?;
    let named: Vec<_> = refused.blockers.iter().map(|blocker| blocker.pod.as_str()).collect();
    ensure!(
        refused.kind == FailureKind::Drain && named == ["default/bare", "default/scratch"],
        "{refused:?}"
    );
    ensure!(!cluster.is_leaving("free").await?, "a pod was evicted all the same");

    let all =
        DrainParams { force: true, delete_empty_dir: true, grace_seconds: Some(7), ..DrainParams::default() };
    // One whose time runs out says what stood in its way, and lets its cordon stay.
    let short = DrainParams { deadline_seconds: Some(3), ..all.clone() };
    let late = failure(control.drain("n1", short).await)?;
    ensure!(late.kind == FailureKind::Drain && late.text.contains("at the deadline"), "{late:?}");
    let web = late.blockers.iter().find(|blocker| blocker.pod == "default/web");
    ensure!(web.is_some_and(|web| web.why.contains("web-budget")), "{late:?}");
    ensure!(
        cluster.is_leaving("free").await? && cluster.is_leaving("bare").await?,
        "pods that may leave do not"
    );
    let pod = cluster.get(Sort::Pod, "free").await?.unwrap_or_default();
    if kind == ClusterKind::Real {
        ensure!(
            pod["metadata"]["deletionGracePeriodSeconds"] == 7,
            "the grace was lost: {}",
            pod["metadata"]
        );
    }
    for pod in ["free", "bare", "scratch"] {
        cluster.gone(pod).await?;
    }
    let nodes = control.nodes().await?;
    ensure!(nodes[0].cordoned_by == "upgrade 7", "{nodes:?}");

    // Freed, it ends; who asks for the same joins it, who asks for another is refused.
    let (drained, freed) = tokio::join!(
        async { tokio::join!(control.drain("n1", all.clone()), control.drain("n1", all.clone())) },
        async {
            until("web is blocked", PATIENCE, async || heard(&ears, "blocked").len() >= 2).await?;
            let other = DrainParams { force: false, ..all.clone() };
            let busy = control.drain("n1", other).await.err().and_then(|error| error.remote().cloned());
            ensure!(busy.as_ref().is_some_and(|busy| busy.code == 409), "{busy:?}");
            cluster.allow("web", 1).await?;
            until("web leaves", PATIENCE, async || cluster.is_leaving("web").await.unwrap_or_default())
                .await?;
            tokio::time::sleep(Duration::from_secs(2)).await;
            ensure!(heard(&ears, "drained").is_empty(), "it is over while a pod is still there");
            cluster.gone("web").await
        }
    );
    freed?;
    let (one, other) = (drained.0?, drained.1?);
    ensure!(one.run == other.run && one.status == "finished", "{one:?} {other:?}");
    ensure!(one.progress.evicted == ["default/web"], "{one:?}");
    ensure!(one.progress.kept == ["default/agent: each node has one"], "{one:?}");
    for pod in ["agent", "elsewhere"] {
        ensure!(!cluster.is_leaving(pod).await?, "{pod} was told to leave");
    }
    until("the end is told", PATIENCE, async || !heard(&ears, "drained").is_empty()).await?;
    let gone = heard(&ears, "gone");
    ensure!(
        gone.iter().any(|event| event["pod"] == "default/web" && event["operation"] == "upgrade 7"),
        "{gone:?}"
    );
    let blocked = heard(&ears, "blocked");
    ensure!(
        blocked.iter().all(|event| event["text"].as_str().is_some_and(|text| text.contains("web-budget"))),
        "{blocked:?}"
    );

    // At the deadline what is left may be deleted, whatever its budget.
    cluster.pod("last", "n1", json!({}), json!({})).await?;
    cluster.budget("last", 0).await?;
    let last = DrainParams { deadline_seconds: Some(2), delete_at_deadline: true, ..all };
    let (drained, gone) = tokio::join!(control.drain("n1", last), async {
        until("last leaves", PATIENCE, async || cluster.is_leaving("last").await.unwrap_or_default()).await?;
        cluster.gone("last").await
    });
    gone?;
    ensure!(drained?.progress.evicted == ["default/last"], "it was not deleted");
    Ok(())
}

async fn a_drain_that_is_killed_goes_on_in_another_instance(kind: ClusterKind) -> Outcome {
    let cluster = Cluster::start(kind).await?;
    let mut control = Control::over(&cluster).await?;
    control.register("n1").await?;
    crowd(&cluster).await?;
    let ears = control.listen().await?;
    let wanted = DrainParams { no_wait: true, ..DrainParams::default() };
    let begun = control.drain("n1", wanted.clone()).await?;
    ensure!(begun.status != "finished", "{begun:?}");
    until("one has left, one may not", PATIENCE, async || {
        !heard(&ears, "evicted").is_empty() && !heard(&ears, "blocked").is_empty()
    })
    .await?;
    let before = cluster.get(Sort::Pod, "free").await?.unwrap_or_default()["metadata"].clone();
    if let Some(service) = control.services.pop() {
        service.kill().await?;
    }
    let killed = Instant::now();
    let second = control.service().await?;
    cluster.allow("web", 1).await?;
    until("another goes on with it", PATIENCE, async || cluster.is_leaving("web").await.unwrap_or_default())
        .await?;
    println!("another instance went on after {:?}", killed.elapsed());
    let after = cluster.get(Sort::Pod, "free").await?.unwrap_or_default()["metadata"].clone();
    // A second eviction would have changed it.
    ensure!(before["resourceVersion"] == after["resourceVersion"], "it was evicted again: {before} {after}");
    for pod in ["free", "web"] {
        cluster.gone(pod).await?;
    }
    let ended = control.drain("n1", DrainParams { no_wait: false, ..wanted }).await?;
    ensure!(ended.run == begun.run && ended.status == "finished", "{ended:?}");
    let record = control.storage.get::<NodeDrain>(&format!("n1@{K}")).await?;
    ensure!(record.progress().attempts == 2, "{record:?}");
    ensure!(ended.progress.evicted == ["default/free", "default/web"], "{ended:?}");
    let evicted = heard(&ears, "evicted");
    ensure!(evicted.len() == 2, "{evicted:?}");
    // The cordon is still that of its owner, and only he lifts it.
    let other = control.client.call(Uncordon, &cordon("n1", "upgrade 8")).await?;
    ensure!(!other.changed && other.cordoned_by == "upgrade 7", "{other:?}");
    let owner = control.client.call(Uncordon, &cordon("n1", "upgrade 7")).await?;
    ensure!(owner.changed && !owner.cordoned, "{owner:?}");
    second.terminate().await?.expect(0).map(drop)
}
