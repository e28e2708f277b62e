//! An etcd (version 3 of its API), which other services and programs may use at the same time.
//!
//! A record is the JSON below the key that the first Commissaire gave it; a secret record is sealed with the master key
//! that all services which share this etcd must have. The revisions are etcd's: of a record that of its last change, and
//! records that were saved together share one. A change is one transaction of etcd: what it expects, the records, and a
//! note of who wanted it.
//!
//! What others write below the same keys is read as if it had been saved here, with defaults for what is missing, and
//! announced like everything else. What is no JSON object is refused where it is asked for, and left out of lists.
//!
//! Changes are told by etcd itself, for as long as it keeps them: until somebody compacts it.

mod changes;
mod commit;
mod keys;
mod lease;
mod link;
mod read;
mod relay;
mod term;

use std::{fmt, path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use commissaire::{Bus, Error, Result, config::EtcdMachines};
use commissaire_api::{
    model::{Kept, Model},
    storage::{Fence, Lease},
};
use etcd_client::{Compare, CompareOp, GetResponse, KeyValue, ResponseHeader, Txn, TxnOp, TxnOpResponse};
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{ChangeSet, Handler, Query, Rows, StoreError, Stored, Transaction, master_key, seal::Sealer};
use link::Link;

/// An etcd.
pub struct Etcd {
    link: Link,
    id: Uuid,
    sealer: Sealer,
}

impl Etcd {
    /// The etcd on these machines, with the master key in `dir`. Fails when none of them answers, or when the key is not
    /// the one that secrets there are sealed with.
    pub async fn open(machines: EtcdMachines, dir: &Path) -> Result<Self> {
        let link = Link::new(machines);
        let failed = |error: StoreError| match error {
            StoreError::Failed { .. } => Error::unavailable(error.to_string()),
            other => Error::config(other.to_string()),
        };
        let new = Uuid::new_v4().to_string();
        let id = once(&link, keys::ID, new.into_bytes()).await.map_err(failed)?;
        let id = str::from_utf8(&id).ok().and_then(|id| id.parse().ok());
        let place = link.place();
        let id = id.ok_or_else(|| Error::config(format!("{place}: {} holds no id", keys::ID)))?;
        let wrapped = link.read(|mut client| async move { client.get(keys::KEY, None).await }).await;
        let wrapped = wrapped.map_err(failed)?.kvs().first().map(|pair| pair.value().to_vec());
        let mut sealer = master_key::sealer(dir, &place, wrapped.as_deref())?;
        if wrapped.is_none() {
            let kept = once(&link, keys::KEY, sealer.wrapped().to_vec()).await.map_err(failed)?;
            // Another may have been first, with another key.
            if kept != sealer.wrapped() {
                sealer = master_key::sealer(dir, &place, Some(&kept))?;
            }
        }
        relay::begin(&link).await.map_err(failed)?;
        Ok(Self { link, id, sealer })
    }

    /// What is stored as the record `key` of `model`, in the clear and whole.
    fn opened(&self, model: &Model, key: &str, stored: &[u8]) -> Result<Zeroizing<Vec<u8>>, StoreError> {
        let whole = match model.kept {
            Kept::Sealed => stored.to_vec(),
            Kept::Plain | Kept::Nowhere => whole(model, key, stored)?.to_vec(),
        };
        let opened = self.sealer.of_kept(model, key, whole);
        opened.ok_or_else(|| StoreError::Unsealable { key: key.to_owned() })
    }
}

/// The record in the JSON that somebody stored: with its key, with defaults for what is missing, and without what the
/// model does not know.
fn whole(model: &Model, key: &str, stored: &[u8]) -> Result<Zeroizing<Vec<u8>>, StoreError> {
    let damaged = |_| StoreError::Damaged { key: key.to_owned() };
    let mut record: Map<String, Value> = serde_json::from_slice(stored).map_err(damaged)?;
    // Who knows the model knows nothing else of it; and it may be what is no one's business.
    let known = record.len();
    record.retain(|name, _| model.field(name).is_some());
    let missing = model.fields.iter().any(|field| !record.contains_key(field.name));
    if !missing && record.len() == known && model.key_of(&record) == Some(key) {
        return Ok(Zeroizing::new(stored.to_vec()));
    }
    for (name, value) in model.blank(key) {
        if model.key == Some(name.as_str()) || !record.contains_key(&name) {
            record.insert(name, value);
        }
    }
    serde_json::to_vec(&record).map(Zeroizing::new).map_err(damaged)
}

/// What is at `key`; `value`, if there was nothing.
async fn once(link: &Link, key: &str, value: Vec<u8>) -> Result<Vec<u8>, StoreError> {
    let answer = link.write(|mut client| {
        let txn = Txn::new()
            .when([Compare::version(key, CompareOp::Equal, 0)])
            .and_then([TxnOp::put(key, value.clone(), None)])
            .or_else([TxnOp::get(key, None)]);
        async move { client.txn(txn).await }
    });
    let found = gets(answer.await?.op_responses()).into_iter().flatten().next();
    Ok(found.map_or(value, |pair| pair.value().to_vec()))
}

/// What the reads of a transaction found, for each.
fn gets(answers: Vec<TxnOpResponse>) -> Vec<Option<KeyValue>> {
    let one = |answer: TxnOpResponse| match answer {
        TxnOpResponse::Get(mut found) => Some(found.take_kvs().into_iter().next()),
        _ => None,
    };
    answers.into_iter().filter_map(one).collect()
}

/// The revision of etcd when it answered.
fn revision(header: Option<&ResponseHeader>) -> u64 {
    header.map_or(0, |header| unsigned(header.revision()))
}

/// A revision of etcd as ours.
fn unsigned(revision: i64) -> u64 {
    u64::try_from(revision).unwrap_or(0)
}

/// A revision of ours as etcd's.
fn signed(revision: u64) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}

/// The revision of the one key that was asked for, 0 if it is not there.
fn of_one(answer: &GetResponse) -> u64 {
    answer.kvs().first().map_or(0, |pair| unsigned(pair.mod_revision()))
}

#[async_trait]
impl Handler for Arc<Etcd> {
    fn id(&self) -> Uuid {
        self.id
    }

    fn is_shared(&self) -> bool {
        true
    }

    async fn get(&self, model: &'static Model, keys: &[String]) -> Result<Vec<Option<Stored>>, StoreError> {
        Etcd::get(self, model, keys).await
    }

    async fn list(&self, model: &'static Model, query: Query) -> Result<Rows, StoreError> {
        Etcd::list(self, model, &query).await
    }

    async fn commit(&self, transaction: Transaction) -> Result<Vec<u64>, StoreError> {
        Etcd::commit(self, &transaction).await
    }

    async fn changes(&self, since: u64, most: usize, bytes: usize) -> Result<ChangeSet, StoreError> {
        Etcd::changes(self, since, most, bytes).await
    }

    async fn acquire_lease(&self, name: String, holder: String, ttl: Duration) -> Result<Lease, StoreError> {
        Etcd::acquire_lease(self, &name, &holder, ttl).await
    }

    async fn renew_lease(&self, lease: Fence) -> Result<Lease, StoreError> {
        Etcd::renew_lease(self, lease).await
    }

    async fn release_lease(&self, lease: Fence) -> Result<bool, StoreError> {
        Etcd::release_lease(self, &lease).await
    }

    async fn announce(&self, bus: Arc<dyn Bus>, stop: CancellationToken) {
        relay::announce(self, bus, stop).await;
    }

    async fn broken(&self) -> Error {
        std::future::pending().await
    }

    fn sealer(&self) -> Option<&Sealer> {
        Some(&self.sealer)
    }

    async fn rewrap(&self) -> Result<()> {
        let (old, new) = (self.sealer.wrapped(), self.sealer.wrapped_by_next()?);
        let answer = self.link.write(|mut client| {
            let txn = Txn::new()
                .when([Compare::value(keys::KEY, CompareOp::Equal, old)])
                .and_then([TxnOp::put(keys::KEY, new.clone(), None)]);
            async move { client.txn(txn).await }
        });
        let answer = answer.await.map_err(|error| Error::unavailable(error.to_string()))?;
        if answer.succeeded() {
            return Ok(());
        }
        let place = self.link.place();
        Err(Error::config(format!(
            "{place}: the master key was rotated by another at this moment: copy it from that machine"
        )))
    }
}

impl fmt::Debug for Etcd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Etcd").field("link", &self.link).field("id", &self.id).finish_non_exhaustive()
    }
}
