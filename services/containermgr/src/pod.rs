//! A pod, and whether it may be told to leave: the rules of `kubectl drain`.

use commissaire_api::container::DrainParams;
use k8s_openapi::api::core::v1 as core;

/// A pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Pod {
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// Tells it from another of the same name.
    pub(crate) uid: String,
    /// Whether it was told to leave already.
    pub(crate) leaving: bool,
    /// Whether it has ended.
    ended: bool,
    /// Whether its node runs it by itself, from a file.
    mirror: bool,
    /// Whether each node has one.
    daemon: bool,
    /// Whether somebody makes it anew elsewhere.
    managed: bool,
    /// Whether it keeps something that goes with it.
    empty_dir: bool,
}

/// What is to become of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is to leave.
    Leave,
    /// It stays, and why that is well.
    Stay(&'static str),
    /// It may not be told to leave, and why.
    Refuse(&'static str),
}

impl Pod {
    /// Of Kubernetes.
    pub(crate) fn of(pod: core::Pod) -> Self {
        let annotations = pod.metadata.annotations.unwrap_or_default();
        let owners = pod.metadata.owner_references.unwrap_or_default();
        let owner = owners.iter().find(|owner| owner.controller == Some(true));
        let phase = pod.status.and_then(|status| status.phase).unwrap_or_default();
        let volumes = pod.spec.and_then(|spec| spec.volumes).unwrap_or_default();
        Self {
            leaving: pod.metadata.deletion_timestamp.is_some(),
            ended: ["Succeeded", "Failed"].contains(&phase.as_str()),
            mirror: annotations.contains_key("kubernetes.io/config.mirror"),
            daemon: owner.is_some_and(|owner| owner.kind == "DaemonSet"),
            managed: owner.is_some(),
            empty_dir: volumes.iter().any(|volume| volume.empty_dir.is_some()),
            namespace: pod.metadata.namespace.unwrap_or_default(),
            name: pod.metadata.name.unwrap_or_default(),
            uid: pod.metadata.uid.unwrap_or_default(),
        }
    }

    /// How it is called.
    pub(crate) fn path(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// What a drain of this kind makes of it.
    pub(crate) fn fate(&self, wanted: &DrainParams) -> Fate {
        if self.mirror {
            return Fate::Stay("its node runs it by itself");
        }
        if self.ended {
            return Fate::Leave;
        }
        if self.daemon {
            return Fate::Stay("each node has one");
        }
        if !self.managed && !wanted.force {
            return Fate::Refuse("nobody makes it anew: say force to evict it all the same");
        }
        if self.empty_dir && !wanted.delete_empty_dir {
            return Fate::Refuse(
                "it keeps something in an emptyDir: say delete_empty_dir to evict it all the same",
            );
        }
        Fate::Leave
    }
}
