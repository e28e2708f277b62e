//! Opening the file, and what may be wrong with it, in words for whoever starts the service.

use std::{
    fs::OpenOptions,
    io,
    os::unix::fs::OpenOptionsExt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use commissaire::{Error, Result};
use redb::{Builder, Database, DatabaseError, StorageError, backends::FileBackend};

/// The most bytes of the file that are kept in memory.
const CACHE: usize = 16 << 20;

/// Why a store cannot be used.
#[derive(Debug)]
pub(super) enum Problem {
    /// Another process has it.
    Locked,
    /// It is no redb file, or damaged.
    Corrupt(String),
    /// It is a redb file of another program.
    Foreign,
    /// It was made by another version of this program.
    Format(u64),
    /// It cannot be read or written.
    Io(String),
}

/// Opens the file, or makes it; repairs it after a crash.
pub(super) fn open(path: &Path) -> Result<Database, Problem> {
    let file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    let backend = FileBackend::new(file)?;
    Ok(Builder::new().set_cache_size(CACHE).create_with_backend(backend)?)
}

/// Does `work`, which reads the file `path` for the first time: redb may panic on one that others have damaged.
pub(super) fn unpanicked<T>(path: &Path, work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(Problem::Corrupt("reading it failed".into()).explain(path)))
}

impl Problem {
    /// The problem with the file `path`, and what to do.
    pub(super) fn explain(self, path: &Path) -> Error {
        let path = path.display();
        Error::config(match self {
            Self::Locked => format!(
                "store {path} is open in another process: a store has one owner; stop that process, or set another data_dir"
            ),
            Self::Corrupt(what) => format!(
                "store {path} is not a store, or is damaged ({what}): restore it from a backup, or set another data_dir"
            ),
            Self::Foreign => {
                format!("file {path} is the database of another program: set another data_dir")
            }
            Self::Format(found) => format!(
                "store {path} has format {found}, this program reads {}: use the version of this program that made it",
                super::tables::FORMAT
            ),
            Self::Io(what) => format!("store {path} cannot be opened: {what}: check the disk, and data_dir"),
        })
    }
}

impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => Self::Corrupt(error.to_string()),
            _ => Self::Io(error.to_string()),
        }
    }
}

impl From<DatabaseError> for Problem {
    fn from(error: DatabaseError) -> Self {
        match error {
            DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => Self::Locked,
            DatabaseError::Storage(StorageError::Io(error)) => error.into(),
            DatabaseError::Storage(StorageError::Corrupted(what)) => Self::Corrupt(what),
            other => Self::Corrupt(other.to_string()),
        }
    }
}

impl From<redb::Error> for Problem {
    fn from(error: redb::Error) -> Self {
        match error {
            redb::Error::Io(error) => error.into(),
            redb::Error::TableTypeMismatch { .. } | redb::Error::TypeDefinitionChanged { .. } => {
                Self::Foreign
            }
            other => Self::Corrupt(other.to_string()),
        }
    }
}
