//! Why the store did not do something.

use std::{fmt, path::Path, time::Duration};

const DISK: &str = "the store's disk fails or is full";

/// Why the store did not do something. Nothing was changed then, unless it has [`Failed`](Self::Failed) and says so.
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
    /// What is stored under this key is no record of its model. Somebody else has written it.
    Damaged {
        /// The record's key.
        key: String,
    },
    /// It cannot be done here, in words for the caller.
    Unfit(String),
    /// The place cannot be used now: the disk is full or fails, the server is away or refuses us.
    Failed {
        /// What is wrong, in words for everybody.
        told: &'static str,
        /// All about it, for the log. Never holds data.
        why: String,
        /// Whether what was to be written may be there; else nothing was changed.
        uncertain: bool,
    },
}

impl StoreError {
    /// The failure of redb in words, which never hold data; `uncertain`: what was to be written may be there.
    pub(super) fn broken(path: &Path, error: &redb::Error, uncertain: bool) -> Self {
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
        Self::Failed { told: DISK, why: what, uncertain }
    }

    /// Nothing can be sealed.
    pub(super) fn no_random_numbers() -> Self {
        let told = "the system gives no random numbers to seal a secret with";
        Self::Failed { told, why: told.to_owned(), uncertain: false }
    }

    /// A keeper of secrets does not know this.
    pub(super) fn unknown(what: &str) -> Self {
        Self::Unfit(format!("the keeper of these records does not know {what}"))
    }

    /// A server does not tell what it was asked for.
    pub(super) fn silent() -> Self {
        let told = "the store's server does not answer";
        Self::Failed { told, why: told.to_owned(), uncertain: false }
    }

    /// The writer has died over what it was to do.
    pub(super) fn died(path: &Path) -> Self {
        let why = format!("the writer of store {} has died: restart the service", path.display());
        Self::Failed { told: DISK, why, uncertain: true }
    }

    /// The writer is gone.
    pub(super) fn stopped(path: &Path) -> Self {
        let why = format!("store {} takes no writes any more: restart the service", path.display());
        Self::Failed { told: DISK, why, uncertain: false }
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
            Self::Damaged { key } => {
                write!(f, "what is stored as {key:?} is no JSON object: another program has written it")
            }
            Self::Unfit(what) => f.write_str(what),
            Self::Failed { why, uncertain: false, .. } => f.write_str(why),
            Self::Failed { why, uncertain: true, .. } => write!(f, "{why} (maybe written)"),
        }
    }
}

impl std::error::Error for StoreError {}
