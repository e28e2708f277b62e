//! Leases: keys that etcd removes when their time is over. The token is the revision in which the key was made.

use std::time::Duration;

use commissaire_api::storage::{Fence, Lease};
use etcd_client::{Compare, CompareOp, Error as EtcdError, PutOptions, Txn, TxnOp};
use serde::{Deserialize, Serialize};

use super::{Etcd, gets, keys, revision, signed, unsigned};
use crate::handler::StoreError;

/// What is stored of a lease.
#[derive(Serialize, Deserialize)]
struct Held {
    holder: String,
}

impl Etcd {
    pub(super) async fn acquire_lease(
        &self,
        name: &str,
        holder: &str,
        ttl: Duration,
    ) -> Result<Lease, StoreError> {
        // etcd counts in seconds, and gives more than it was asked for where that is less than it can keep.
        let seconds = i64::try_from(ttl.as_millis().div_ceil(1000)).unwrap_or(i64::MAX);
        let granted = self.link.write(|mut client| async move { client.lease_grant(seconds, None).await });
        let granted = granted.await?;
        let id = granted.id();
        let path = keys::lease(name);
        let held = serde_json::to_vec(&Held { holder: holder.to_owned() }).unwrap_or_default();
        let txn = Txn::new()
            .when([Compare::version(path.clone(), CompareOp::Equal, 0)])
            .and_then([TxnOp::put(path.clone(), held, Some(PutOptions::new().with_lease(id)))])
            .or_else([TxnOp::get(path, None)]);
        let answer = self.link.write(|mut client| async move { client.txn(txn).await }).await;
        if let Ok(answer) = &answer
            && answer.succeeded()
        {
            return Ok(Lease { token: revision(answer.header()), ttl_ms: milliseconds(granted.ttl()) });
        }
        // Whoever hears that it failed need not wait for what may have been done.
        self.revoke(id).await;
        let found = gets(answer?.op_responses()).into_iter().flatten().next();
        let Some(pair) = found else { return Err(gone(name)) };
        let held: Option<Held> = serde_json::from_slice(pair.value()).ok();
        let left = self.left(pair.lease()).await?;
        Err(StoreError::Held {
            name: name.to_owned(),
            holder: held.map_or_else(String::new, |held| held.holder),
            expires_in: left,
        })
    }

    pub(super) async fn renew_lease(&self, lease: Fence) -> Result<Lease, StoreError> {
        let id = self.lease(&lease).await?.ok_or_else(|| fenced(&lease))?;
        let ttl = self.keep_alive(id).await?;
        // It may have ended in between, and somebody else may have it.
        if ttl == 0 || self.lease(&lease).await? != Some(id) {
            return Err(fenced(&lease));
        }
        Ok(Lease { token: lease.token, ttl_ms: milliseconds(ttl) })
    }

    pub(super) async fn release_lease(&self, lease: &Fence) -> Result<bool, StoreError> {
        let Some(id) = self.lease(lease).await? else { return Ok(false) };
        let revoked = self.link.write(|mut client| async move {
            match client.lease_revoke(id).await {
                // Not found: it is over.
                Err(EtcdError::GRpcStatus(status)) if status.code() as i32 == 5 => Ok(false),
                answer => answer.map(|_| true),
            }
        });
        revoked.await
    }

    /// etcd's lease for as long as it lasts; its time to live in seconds from now, 0 when it is over.
    pub(super) async fn keep_alive(&self, id: i64) -> Result<i64, StoreError> {
        let asked = self.link.write(|mut client| async move {
            let asked = async {
                let (mut keeper, mut answers) = client.lease_keep_alive(id).await?;
                keeper.keep_alive().await?;
                answers.message().await
            };
            match asked.await {
                // It is over.
                Err(EtcdError::LeaseKeepAliveError(_)) => Ok(None),
                answer => answer,
            }
        });
        Ok(asked.await?.map_or(0, |answer| answer.ttl().max(0)))
    }

    /// Gives etcd's lease back, if it can be reached: else it ends by itself.
    pub(super) async fn revoke(&self, id: i64) {
        let asked = self.link.write(|mut client| async move {
            match client.lease_revoke(id).await {
                Err(EtcdError::GRpcStatus(status)) if status.code() as i32 == 5 => Ok(()),
                answer => answer.map(drop),
            }
        });
        if let Err(error) = asked.await {
            tracing::debug!(%error, "a lease ends by itself");
        }
    }

    /// etcd's lease behind ours, if its token is the current.
    async fn lease(&self, lease: &Fence) -> Result<Option<i64>, StoreError> {
        let path = keys::lease(&lease.name);
        let found = self.link.read(|mut client| {
            let path = path.clone();
            async move { client.get(path, None).await }
        });
        let found = found.await?;
        let pair = found.kvs().first().filter(|pair| pair.mod_revision() == signed(lease.token));
        Ok(pair.map(etcd_client::KeyValue::lease))
    }

    async fn left(&self, id: i64) -> Result<Duration, StoreError> {
        let asked = self.link.read(|mut client| async move { client.lease_time_to_live(id, None).await });
        match asked.await {
            Ok(answer) => Ok(Duration::from_secs(unsigned(answer.ttl().max(0)))),
            // It has just ended.
            Err(StoreError::Failed { .. }) => Ok(Duration::ZERO),
            Err(error) => Err(error),
        }
    }
}

fn milliseconds(seconds: i64) -> u64 {
    unsigned(seconds).saturating_mul(1000)
}

fn fenced(lease: &Fence) -> StoreError {
    StoreError::Fenced { name: lease.name.clone() }
}

/// Somebody else held it, and has just given it back.
fn gone(name: &str) -> StoreError {
    StoreError::Held { name: name.to_owned(), holder: String::new(), expires_in: Duration::ZERO }
}
