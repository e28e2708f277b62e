//! Cordons with an owner. Nothing is changed but what was looked at: somebody else may be at it at the same moment.

use commissaire_api::container::{Cordoned, FailureKind};
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use super::{CORDONED_BY, Kubernetes, node::owner};
use crate::fault::Fault;

/// How often a node may be changed by others in between.
const MOST_TRIES: usize = 20;

/// See [`Manager::cordon`](crate::manager::Manager::cordon).
pub(super) async fn cordon(kubernetes: &Kubernetes, name: &str, operation: &str) -> Result<Cordoned, Fault> {
    change(kubernetes, name, |cordoned, _| {
        // Of one that somebody has let in again the annotation says nothing.
        (!cordoned).then(|| (json!(operation), json!(true)))
    })
    .await
}

/// See [`Manager::uncordon`](crate::manager::Manager::uncordon).
pub(super) async fn uncordon(
    kubernetes: &Kubernetes,
    name: &str,
    operation: &str,
) -> Result<Cordoned, Fault> {
    change(kubernetes, name, |_, owner| (owner == Some(operation)).then_some((Value::Null, Value::Null)))
        .await
}

/// Changes the annotation and the cordon to what `wanted` says of the cordon and its owner, if that is to be.
async fn change(
    kubernetes: &Kubernetes,
    name: &str,
    wanted: impl Fn(bool, Option<&str>) -> Option<(Value, Value)>,
) -> Result<Cordoned, Fault> {
    for _ in 0..MOST_TRIES {
        let node = kubernetes.get(name).await?.ok_or_else(|| Fault::not_registered(name))?;
        let cordoned = told(&node);
        let Some((annotation, unschedulable)) = wanted(cordoned.cordoned, owner(&node).as_deref()) else {
            return Ok(cordoned);
        };
        let patch = &json!({
            "metadata": {
                "resourceVersion": node.metadata.resource_version,
                "annotations": {CORDONED_BY: annotation},
            },
            "spec": {"unschedulable": unschedulable},
        });
        let write = |client| async move {
            Api::<Node>::all(client).patch(name, &PatchParams::default(), &Patch::Merge(patch)).await
        };
        match kubernetes.connection.ask(write).await {
            Ok(node) => return Ok(Cordoned { changed: true, ..told(&node) }),
            // Somebody has changed it in between.
            Err(fault) if fault.status() == Some(409) => {}
            Err(fault) => return Err(fault),
        }
    }
    let text = format!("node {name} is changed by others all the time");
    Err(Fault::new(FailureKind::Refused, text).answered(409, "Conflict"))
}

/// How a node is.
fn told(node: &Node) -> Cordoned {
    let cordoned = node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or_default();
    let cordoned_by = owner(node).filter(|_| cordoned).unwrap_or_default();
    Cordoned { changed: false, cordoned, cordoned_by }
}
