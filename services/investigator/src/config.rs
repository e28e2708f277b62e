//! The configuration of the investigator.

use std::path::PathBuf;

use commissaire_ssh::SshOptions;
use serde::{Deserialize, Serialize};

/// The members that only this service has.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Members {
    /// How hosts are reached.
    pub ssh: SshOptions,
    /// A file whose rows go over those that say what each kind of operating system is told to do (see
    /// `services/ssh/src/os/default.toml`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub os_file: Option<PathBuf>,
    /// How many hosts are investigated at one time.
    pub concurrency: usize,
    /// What containers run in.
    pub container_runtime: Runtime,
    /// Whether hosts get the network of their cluster.
    pub network: NetworkChoice,
    /// The etcd that flannel uses on hosts; without, the first one in which the storage service keeps records.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub etcd: Option<HostEtcd>,
    /// Below which key of that etcd flannel has its settings.
    pub flannel_etcd_prefix: String,
    /// A folder with templates: `flanneld.j2`, which goes before the one that is built in, and `daemon.json.j2`, of which
    /// hosts get `/etc/docker/daemon.json`; without it that is left alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub templates_path: Option<PathBuf>,
    /// How long a step may take on a host, in seconds.
    pub step_seconds: u64,
}

/// What containers run in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Runtime {
    /// Docker, or Moby.
    Docker,
    /// Podman.
    Podman,
    /// containerd.
    Containerd,
    /// Nothing is installed.
    None,
}

/// Which network hosts get.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkChoice {
    /// That of their cluster; the network `default` without a cluster.
    Cluster,
    /// None.
    None,
}

/// The etcd that hosts use. The files are those on the machine of the investigator; hosts get copies.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HostEtcd {
    /// Its URLs, with commas between.
    pub server_url: String,
    /// The client's certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_path: Option<PathBuf>,
    /// Its key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_key_path: Option<PathBuf>,
    /// Who signs the server's certificates.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_ca_path: Option<PathBuf>,
}

impl Default for Members {
    fn default() -> Self {
        Self {
            ssh: SshOptions::default(),
            os_file: None,
            concurrency: 32,
            container_runtime: Runtime::Docker,
            network: NetworkChoice::Cluster,
            etcd: None,
            flannel_etcd_prefix: "/coreos.com/network".to_owned(),
            templates_path: None,
            step_seconds: 900,
        }
    }
}

impl Runtime {
    /// Its name in the OS table, its daemon, and the unit that runs it.
    pub(crate) fn names(self) -> Option<(&'static str, &'static str, &'static str)> {
        match self {
            Self::Docker => Some(("docker", "dockerd", "docker.service")),
            Self::Podman => Some(("podman", "podman", "podman.socket")),
            Self::Containerd => Some(("containerd", "containerd", "containerd.service")),
            Self::None => None,
        }
    }
}
