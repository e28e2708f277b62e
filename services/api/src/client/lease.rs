//! Leases, kept for as long as they are needed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use commissaire::{Client, Error, Result, RpcError};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use super::StorageClient;
use crate::storage::{Fence, LeaseAcquire, LeaseAcquireParams, LeaseRelease, LeaseRenew};

/// A lease that is renewed until this is dropped, and then given back.
#[derive(Debug)]
pub struct HeldLease {
    fence: Fence,
    lost: Arc<Lost>,
    keeper: tokio::task::JoinHandle<()>,
    client: Client,
}

#[derive(Debug, Default)]
struct Lost {
    is: AtomicBool,
    told: Notify,
}

impl StorageClient {
    /// Takes the lease `name` for `holder`, unless somebody has it: then `None`. It is renewed thrice in its time to live.
    pub async fn lease(&self, name: &str, holder: &str, ttl: Duration) -> Result<Option<HeldLease>> {
        let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        let params = LeaseAcquireParams { name: name.to_owned(), holder: holder.to_owned(), ttl_ms };
        // Counted from before it was asked for: never longer than the storage counts.
        let asked = Instant::now();
        let lease = match self.client.call(LeaseAcquire, &params).await {
            Ok(lease) => lease,
            Err(error) if is_anothers(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        let fence = Fence { name: name.to_owned(), token: lease.token };
        let lost = Arc::new(Lost::default());
        let keep = keep(self.client.clone(), fence.clone(), asked + ttl, ttl, lost.clone());
        Ok(Some(HeldLease { fence, lost, keeper: tokio::spawn(keep), client: self.client.clone() }))
    }
}

impl HeldLease {
    /// What to write under.
    pub fn fence(&self) -> &Fence {
        &self.fence
    }

    /// Whether it was lost: it ran out while the storage did not answer, or somebody took it.
    pub fn is_lost(&self) -> bool {
        self.lost.is.load(Ordering::Acquire)
    }

    /// Resolves when it is lost.
    pub async fn lost(&self) {
        loop {
            let told = self.lost.told.notified();
            if self.is_lost() {
                return;
            }
            told.await;
        }
    }

    /// Gives it back, and waits until that is known.
    pub async fn release(self) {
        self.keeper.abort();
        if !self.is_lost() {
            // Else it runs out.
            let _ = self.client.call(LeaseRelease, &self.fence).await;
            self.lost.is.store(true, Ordering::Release);
        }
    }
}

impl Drop for HeldLease {
    fn drop(&mut self) {
        self.keeper.abort();
        if self.is_lost() {
            return;
        }
        let (client, fence) = (self.client.clone(), self.fence.clone());
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let _ = client.call(LeaseRelease, &fence).await;
            });
        }
    }
}

/// Renews the lease until it is lost.
async fn keep(client: Client, fence: Fence, mut end: Instant, ttl: Duration, lost: Arc<Lost>) {
    let client = client.with_timeout(ttl / 6);
    let mut rest = ttl / 3;
    loop {
        let next = (Instant::now() + rest).min(end);
        sleep_until(next).await;
        let asked = Instant::now();
        if asked >= end {
            break;
        }
        match client.call(LeaseRenew, &fence).await {
            Ok(_) => (end, rest) = (asked + ttl, ttl / 3),
            Err(error) if is_anothers(&error) => break,
            // While it does not answer the lease holds, to its end.
            Err(_) => rest = ttl / 15,
        }
    }
    lost.is.store(true, Ordering::Release);
    lost.told.notify_waiters();
}

/// Whether somebody else has the lease.
fn is_anothers(error: &Error) -> bool {
    error.remote().is_some_and(|remote| remote.code == RpcError::CONFLICT)
}
