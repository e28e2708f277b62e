//! Why the store did not do something.

use std::{fmt, path::Path, time::Duration};

/// Why the store did not do something. Nothing was changed then, unless it is [`Uncertain`](Self::Uncertain).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreError {
    /// These keys are not there.
    Missing(Vec<String>),
    /// A record does not have the revision that was expected.
    Conflict {
        /// The record's key.
        key: String,
        /// The revision that it has; 0: it is not there.
        revision: u64,
    },
    /// The token is not the current one of this lease.
    Fenced {
        /// The lease.
        name: String,
    },
    /// Somebody holds this lease.
    Held {
        /// The lease.
        name: String,
        /// Who.
        holder: String,
        /// How long still, unless it is renewed.
        expires_in: Duration,
    },
    /// There are as many leases as there may be.
    TooManyLeases,
    /// Changes were asked for that the log does not hold.
    Compacted {
        /// The oldest revision in the log.
        oldest: u64,
        /// The latest.
        latest: u64,
    },
    /// A sealed record cannot be opened: it, or the master key, is not what it was when it was sealed.
    Unsealable {
        /// The record's key.
        key: String,
    },
    /// The file cannot be read or written: the disk is full, or fails. In words. Nothing was changed.
    Broken(String),
    /// The disk failed so late that what was to be written may be there. In words.
    Uncertain(String),
}

impl StoreError {
    /// The failure of redb in words, which never hold data; `uncertain`: what was to be written may be there.
    pub(crate) fn broken(path: &Path, error: &redb::Error, uncertain: bool) -> Self {
        let path = path.display();
        let what = match error {
            redb::Error::Io(error) => {
                format!("store {path} failed: {error}: check the disk and its free space")
            }
            redb::Error::PreviousIo | redb::Error::DatabaseClosed => {
                format!("store {path} is being opened again after a failure of the disk: try again")
            }
            redb::Error::Corrupted(what) => {
                format!("store {path} is corrupt ({what}): restore it from a backup")
            }
            other => format!("store {path} failed: {other}"),
        };
        if uncertain { Self::Uncertain(what) } else { Self::Broken(what) }
    }

    /// The writer is gone.
    pub(crate) fn stopped(path: &Path) -> Self {
        Self::Broken(format!("store {} takes no writes any more: restart the service", path.display()))
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(keys) => write!(f, "not in the store: {}", keys.join(", ")),
            Self::Conflict { key, revision: 0 } => write!(f, "record {key:?} is not there"),
            Self::Conflict { key, revision } => write!(f, "record {key:?} has revision {revision} now"),
            Self::Fenced { name } => write!(f, "lease {name:?} has gone to another token, or was given back"),
            Self::Held { name, holder, expires_in } => {
                write!(f, "lease {name:?} is held by {holder:?} for {} ms", expires_in.as_millis())
            }
            Self::TooManyLeases => f.write_str("there are too many leases: wait until some have expired"),
            Self::Compacted { oldest, latest } => {
                write!(f, "the log holds the changes {oldest} to {latest} only: list the records anew")
            }
            Self::Unsealable { key } => {
                write!(f, "the sealed record {key:?} cannot be opened: it or the master key was changed")
            }
            Self::Broken(what) => f.write_str(what),
            Self::Uncertain(what) => write!(f, "{what} (maybe written)"),
        }
    }
}

impl std::error::Error for StoreError {}
