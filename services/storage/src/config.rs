//! The configuration of the storage service.

mod places;

use std::path::PathBuf;

use commissaire::{Result, app::Start};
use serde::{Deserialize, Serialize};

pub use places::{Kind, PlaceConfig, Places};

use crate::handler::custodia::SOCKET;

/// What the storage service is configured with, beside what every service is.
#[derive(Debug, Clone)]
pub struct StorageConfig {
    /// The directory of the embedded store's file, `storage.redb`, and of the key that secrets are sealed with,
    /// `master.key`.
    pub data_dir: PathBuf,
    /// The service's own members.
    pub members: Members,
}

/// The members that only this service has.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Members {
    /// How many changes `storage.changes` knows at least, of embedded stores. Each takes about the size of its record on
    /// the disk.
    pub change_log: u64,
    /// The places where records are kept; by default one embedded store.
    pub storage_handlers: Places,
    /// The socket of the Custodia that keeps secrets. Without, one is used where [`SOCKET`] is there; else secrets are
    /// sealed in the first place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub custodia_socket_path: Option<PathBuf>,
}

impl Default for Members {
    fn default() -> Self {
        Self { change_log: 100_000, storage_handlers: Places::default(), custodia_socket_path: None }
    }
}

impl StorageConfig {
    /// The defaults, with this directory.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self { data_dir: data_dir.into(), members: Members::default() }
    }

    /// Where the Custodia is that keeps secrets, if one does.
    pub fn custodia(&self) -> Option<PathBuf> {
        let usual = || Some(PathBuf::from(SOCKET)).filter(|socket| socket.exists());
        self.members.custodia_socket_path.clone().or_else(usual)
    }

    /// What the program was configured with.
    pub fn read(start: &Start) -> Result<Self> {
        Ok(Self { data_dir: start.data_dir("storage")?, members: start.config.own()? })
    }
}
