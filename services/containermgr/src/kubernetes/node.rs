//! A node as services see it.

use commissaire_api::container::{Condition, Node};
use k8s_openapi::{api::core::v1 as core, apimachinery::pkg::apis::meta::v1::Time};

use super::{CORDONED_BY, OURS};

/// What `node` comes to.
pub(super) fn of(node: core::Node) -> Node {
    let owner = owner(&node);
    let labels = node.metadata.labels.unwrap_or_default();
    let status = node.status.unwrap_or_default();
    let conditions: Vec<Condition> =
        status.conditions.unwrap_or_default().into_iter().map(condition).collect();
    let ready = conditions.iter().find(|condition| condition.kind == "Ready");
    let info = status.node_info.unwrap_or_default();
    let cordoned = node.spec.and_then(|spec| spec.unschedulable).unwrap_or_default();
    Node {
        name: node.metadata.name.unwrap_or_default(),
        ours: labels.get(OURS.0).is_some_and(|value| value == OURS.1),
        ready: ready.is_some_and(|ready| ready.status == "True"),
        ready_since: ready.map(|ready| ready.since.clone()).unwrap_or_default(),
        cordoned,
        cordoned_by: owner.filter(|_| cordoned).unwrap_or_default(),
        conditions,
        version: info.kubelet_version,
        os: info.os_image,
        boot_id: info.boot_id,
    }
}

/// The operation that the node's annotation names, whether the node is cordoned or not.
pub(super) fn owner(node: &core::Node) -> Option<String> {
    node.metadata.annotations.as_ref()?.get(CORDONED_BY).filter(|owner| !owner.is_empty()).cloned()
}

fn condition(condition: core::NodeCondition) -> Condition {
    Condition {
        kind: condition.type_,
        status: condition.status,
        reason: condition.reason.unwrap_or_default(),
        message: condition.message.unwrap_or_default(),
        since: condition.last_transition_time.map(|Time(at)| at.to_string()).unwrap_or_default(),
    }
}
