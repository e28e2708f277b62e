//! The configuration of the storage service.

mod places;
mod secrets;

use std::path::{Path, PathBuf};

use commissaire::{Error, Result, app::data_dir, config::Config};
use serde::{Deserialize, Serialize};

pub use places::{Kind, PlaceConfig, Places};
pub use secrets::{SecretHandler, Secrets};

use crate::handler::{custodia::SOCKET, make_dir};

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
    /// The socket of the Custodia that keeps secrets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub custodia_socket_path: Option<PathBuf>,
    /// What keeps secrets otherwise. Without either it is the Custodia at [`SOCKET`] where that is there; else secrets are
    /// sealed in the first place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_handler: Option<SecretHandler>,
}

impl Default for Members {
    fn default() -> Self {
        Self {
            change_log: 100_000,
            storage_handlers: Places::default(),
            custodia_socket_path: None,
            secret_handler: None,
        }
    }
}

impl StorageConfig {
    /// The defaults, with this directory.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self { data_dir: data_dir.into(), members: Members::default() }
    }

    /// What keeps secrets. An error where two are named.
    pub fn secrets(&self) -> Result<Secrets> {
        match (&self.members.custodia_socket_path, &self.members.secret_handler) {
            (Some(socket), None) => Ok(Secrets::Custodia(socket.clone())),
            (None, Some(handler)) => Ok(handler.secrets.clone()),
            (Some(_), Some(_)) => Err(Error::config(
                "custodia_socket_path and secret_handler are both set: one thing keeps secrets",
            )),
            (None, None) if Path::new(SOCKET).exists() || self.custodia_note().exists() => {
                Ok(Secrets::Custodia(SOCKET.into()))
            }
            (None, None) => Ok(Secrets::Sealed),
        }
    }

    /// Whether nobody has said what keeps secrets, so that a Custodia that is there does.
    pub(crate) fn is_custodia_found(&self) -> bool {
        self.members.custodia_socket_path.is_none() && self.members.secret_handler.is_none()
    }

    /// Notes that a Custodia was found, so that it is the one from now on, there or not.
    pub(crate) fn note_custodia(&self) -> Result<()> {
        let note = self.custodia_note();
        make_dir(&self.data_dir)?;
        std::fs::write(&note, "secrets are in the Custodia at its usual socket\n")
            .map_err(|e| Error::config(format!("{} cannot be written: {e}", note.display())))
    }

    fn custodia_note(&self) -> PathBuf {
        self.data_dir.join("secrets-are-in-custodia")
    }

    /// What the program was configured with.
    pub fn read(config: &Config) -> Result<Self> {
        Ok(Self { data_dir: data_dir(config, "storage")?, members: config.own()? })
    }
}
