//! Announcing: one of the services that share an etcd announces all changes, for as long as it holds a lease.
//!
//! It begins where the last one has said that all before was announced, so that nothing is left out when one of them is
//! killed; what was on its way then is announced again, with the id that it had.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use commissaire::{Address, Bus, Event, Message};
use commissaire_api::StorageEvent;
use etcd_client::{Compare, CompareOp, PutOptions, Txn, TxnOp};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{
    Etcd,
    keys::{ANNOUNCED, RELAY},
    link::Link,
    once, revision,
    term::{Held, Term},
};
use crate::{handler::StoreError, relay::relay};

/// How long a service that announces is waited for after it was last heard of, in seconds.
const TTL: i64 = 5;
/// How often those who wait look whether they may.
const LOOK: Duration = Duration::from_secs(1);

/// From where on changes are announced in an etcd that is new to us: what there was before is not.
pub(super) async fn begin(link: &Link) -> Result<(), StoreError> {
    let look = link.read(|mut client| async move { client.get(ANNOUNCED, None).await }).await?;
    if look.kvs().is_empty() {
        once(link, ANNOUNCED, revision(look.header()).to_string().into_bytes()).await?;
    }
    Ok(())
}

/// Announces on `bus` whenever this service is the one that does, until `stop`.
pub(super) async fn announce(etcd: &Arc<Etcd>, bus: Arc<dyn Bus>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let led = tokio::select! {
            led = lead(etcd) => led,
            () = stop.cancelled() => return,
        };
        match led {
            Ok(Some((lease, token))) => {
                tracing::debug!("this service announces changes");
                term(etcd, &bus, &stop, lease, token).await;
                etcd.revoke(lease).await;
            }
            Ok(None) => {}
            Err(error) => tracing::debug!(%error, "nobody knows who announces"),
        }
        tokio::select! {
            () = sleep(LOOK) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// etcd's lease and the token of the one who announces, if that is us now.
async fn lead(etcd: &Etcd) -> Result<Option<(i64, u64)>, StoreError> {
    let taken = etcd.link.read(|mut client| async move { client.get(RELAY, None).await }).await?;
    if !taken.kvs().is_empty() {
        return Ok(None);
    }
    let granted = etcd.link.write(|mut client| async move { client.lease_grant(TTL, None).await }).await?;
    let id = granted.id();
    let txn = Txn::new().when([Compare::version(RELAY, CompareOp::Equal, 0)]).and_then([TxnOp::put(
        RELAY,
        "",
        Some(PutOptions::new().with_lease(id)),
    )]);
    match etcd.link.write(|mut client| async move { client.txn(txn).await }).await {
        Ok(answer) if answer.succeeded() => Ok(Some((id, revision(answer.header())))),
        Ok(_) => {
            etcd.revoke(id).await;
            Ok(None)
        }
        Err(error) => {
            etcd.revoke(id).await;
            Err(error)
        }
    }
}

/// Announces for as long as `lease` holds.
async fn term(etcd: &Arc<Etcd>, bus: &Arc<dyn Bus>, stop: &CancellationToken, lease: i64, token: u64) {
    let over = stop.child_token();
    let held = Arc::new(Held::new());
    let hold = async {
        loop {
            let asked = Instant::now();
            let Ok(1..) = etcd.keep_alive(lease).await else { break };
            held.since(asked);
            sleep(Duration::from_secs(1)).await;
        }
        tracing::warn!("this service announces no more: its lease is over");
    };
    let work = async {
        while !over.is_cancelled() {
            match Term::begin(etcd.clone(), token, held.clone(), over.child_token()).await {
                Ok(term) => {
                    if let Some(lost) = term.lost()
                        && say_compacted(etcd, bus, lost, &over).await.is_err()
                    {
                        return;
                    }
                    let term = Arc::new(term);
                    let ended = term.ended();
                    tokio::join!(relay(term.clone(), bus.clone(), ended.clone()), term.follow());
                    if term.is_deposed() {
                        return;
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "changes cannot be read, so that none is announced; tried again");
                }
            }
            tokio::select! {
                () = sleep(LOOK) => {}
                () = over.cancelled() => {}
            }
        }
    };
    tokio::pin!(work);
    tokio::select! {
        () = hold => {
            over.cancel();
            work.await;
        }
        () = &mut work => {}
    }
}

/// Tells that changes up to the revision `lost` were compacted before anybody had announced them.
async fn say_compacted(
    etcd: &Etcd,
    bus: &Arc<dyn Bus>,
    lost: u64,
    over: &CancellationToken,
) -> Result<(), ()> {
    tracing::error!(lost, "etcd was compacted before all changes were announced: listeners are told");
    let event = StorageEvent { revision: Some(lost), ..StorageEvent::lost() };
    let body = serde_json::to_string(&event).map_err(|_| ())?;
    let id = crate::relay::id(etcd.id, lost, "");
    loop {
        let key = event.key().map_err(|_| ())?;
        let message = Message::with_id(id, Address::Topic(key), body.clone()).map_err(|_| ())?;
        match bus.publish(message).await {
            Ok(()) => return Ok(()),
            Err(error) => tracing::debug!(%error, "listeners cannot be told"),
        }
        tokio::select! {
            () = sleep(LOOK) => {}
            () = over.cancelled() => return Err(()),
        }
    }
}
