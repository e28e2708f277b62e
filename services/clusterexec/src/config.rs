//! The configuration of clusterexec.

use std::path::PathBuf;

use commissaire_api::clusterexec::Options;
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
    /// How many operations are under way at one time, each of another cluster.
    pub operations: usize,
    /// How operations go over the hosts where those who ask say nothing else.
    pub options: Options,
}

impl Default for Members {
    fn default() -> Self {
        Self { ssh: SshOptions::default(), os_file: None, operations: 64, options: Options::default() }
    }
}
