//! Handlers: the places where records are kept, all behind one trait.
//!
//! * [`embedded`]: a file of this service's own, for records and, sealed, for secrets.
//! * [`etcd`]: an etcd, shared with other services and programs.
//! * [`custodia`]: a keeper of secrets on the same machine.
//! * [`openbao`]: an OpenBao, or a Vault, for secrets.

pub mod custodia;
pub mod embedded;
mod error;
pub mod etcd;
mod found;
mod http;
mod kept;
mod master_key;
pub mod openbao;
mod seal;
mod transaction;

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use commissaire::{Bus, Error};
use commissaire_api::{
    model::Model,
    storage::{Fence, Lease},
};
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub use error::StoreError;
pub use found::{ChangeSet, Query, Rows, Stored};
pub(crate) use master_key::{finish_rotation, make_dir};
pub use seal::Sealer;
pub(crate) use transaction::is_same;
pub use transaction::{Author, Content, Transaction, Write};

/// An id made of what was hashed: always the same for the same.
pub(crate) fn hashed_id(hash: Sha256) -> Uuid {
    let mut id = [0; 16];
    id.copy_from_slice(&hash.finalize()[..16]);
    // Version 8 is for ids made in one's own way.
    uuid::Builder::from_custom_bytes(id).into_uuid()
}

/// A place where records are kept. Whoever calls has checked records and keys against their models.
///
/// Revisions are the handler's own: each change has a greater one than all before, and those that were made together
/// may share one.
#[async_trait]
pub trait Handler: fmt::Debug + Send + Sync {
    /// Which place this is, in data: the same for all services that share it.
    fn id(&self) -> Uuid;

    /// Whether other storage services may use the same place at the same time.
    fn is_shared(&self) -> bool;

    /// The records of these keys, in their order.
    async fn get(&self, model: &'static Model, keys: &[String]) -> Result<Vec<Option<Stored>>, StoreError>;

    /// Records of a model, sorted by key, all as they were at one moment.
    async fn list(&self, model: &'static Model, query: Query) -> Result<Rows, StoreError>;

    /// Carries `transaction` out and returns the revision of each write. When it refuses, nothing was changed:
    /// [`Fenced`](StoreError::Fenced), [`Missing`](StoreError::Missing) with all keys that are to be deleted and not
    /// there, or [`Conflict`](StoreError::Conflict).
    async fn commit(&self, transaction: Transaction) -> Result<Vec<u64>, StoreError>;

    /// Resolves when it can never be used again.
    async fn broken(&self) -> Error;

    // What follows is of those that keep records. Keepers of secrets have none of it, and are not asked.

    /// The changes after the revision `since`: at most `most`, and of at most `bytes` together, but one at least; those
    /// that share a revision are never told apart. [`Compacted`](StoreError::Compacted) when not all of them are known
    /// any more, or when the store has not come so far: it is another than the one that gave that revision, or was
    /// restored.
    async fn changes(&self, _since: u64, _most: usize, _bytes: usize) -> Result<ChangeSet, StoreError> {
        Err(StoreError::unknown("which changes there were"))
    }

    /// Takes the lease unless somebody holds it, the same holder included.
    async fn acquire_lease(
        &self,
        _name: String,
        _holder: String,
        _ttl: Duration,
    ) -> Result<Lease, StoreError> {
        Err(StoreError::unknown("leases"))
    }

    /// Holds the lease for its time to live from now.
    async fn renew_lease(&self, _lease: Fence) -> Result<Lease, StoreError> {
        Err(StoreError::unknown("leases"))
    }

    /// Gives the lease back. `false`: the token is not the current.
    async fn release_lease(&self, _lease: Fence) -> Result<bool, StoreError> {
        Err(StoreError::unknown("leases"))
    }

    /// Announces on `bus` what has changed, and what changes, until `stop`.
    async fn announce(&self, _bus: Arc<dyn Bus>, _stop: CancellationToken) {}

    /// What seals secrets there.
    fn sealer(&self) -> Option<&Sealer> {
        None
    }

    /// Has the key that secrets are sealed with there wrapped by the master key that is to be.
    async fn rewrap(&self) -> Result<(), Error> {
        Ok(())
    }

    /// Keeps so many changes at least, where that is the service's to say.
    fn keep_changes(&self, _change_log: u64) {}
}
