//! `storage.lease.acquire`, `.renew` and `.release`.

use std::{sync::Arc, time::Duration};

use commissaire::{Context, RpcError};
use commissaire_api::{
    Faults,
    storage::{Fence, Lease, LeaseAcquireParams, MAX_LEASE_NAME, MAX_TTL_MS, Released},
};

use super::{
    Storage,
    refuse::{failed, faults, internal},
    whole,
};
use crate::handler::Handler;

pub(super) async fn acquire(
    storage: Arc<Storage>,
    params: LeaseAcquireParams,
    _: Context,
) -> Result<Lease, RpcError> {
    let mut wrong = Faults::default();
    check("name", &params.name, &mut wrong);
    check("holder", &params.holder, &mut wrong);
    if params.ttl_ms == 0 || params.ttl_ms > MAX_TTL_MS {
        wrong.add("ttl_ms", format!("is {}: it takes 1 to {MAX_TTL_MS}", params.ttl_ms));
    }
    wrong.or(()).map_err(faults)?;
    let ttl = Duration::from_millis(params.ttl_ms);
    let leases = leases(&storage)?.clone();
    let acquire = async move { leases.acquire_lease(params.name, params.holder, ttl).await };
    whole(acquire).await.map_err(failed)
}

pub(super) async fn renew(storage: Arc<Storage>, lease: Fence, _: Context) -> Result<Lease, RpcError> {
    leases(&storage)?.renew_lease(lease).await.map_err(failed)
}

pub(super) async fn release(storage: Arc<Storage>, lease: Fence, _: Context) -> Result<Released, RpcError> {
    let released = leases(&storage)?.release_lease(lease).await.map_err(failed)?;
    Ok(Released { released })
}

/// The place that keeps leases: the first.
fn leases(storage: &Storage) -> Result<&Arc<dyn Handler>, RpcError> {
    let first = storage.routes.all().first();
    first.map(|place| &place.handler).ok_or_else(|| internal("there is no place"))
}

fn check(field: &str, text: &str, wrong: &mut Faults) {
    if text.is_empty() {
        wrong.add(field, "must not be empty");
    }
    if text.len() > MAX_LEASE_NAME {
        wrong.add(field, format!("has {} bytes: {MAX_LEASE_NAME} is the most", text.len()));
    }
    if text.chars().any(char::is_control) {
        wrong.add(field, "must not hold control characters");
    }
}
