//! Which shares of the hosts are this instance's: each share is under a lease, and instances take about as many as they are
//! fewer. The shares of one that dies are free when its leases run out.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use commissaire::{Client, Event, Key, Pattern, Received, Source};
use commissaire_api::{StorageClient, client::HeldLease};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::watch,
    time::{Instant, interval},
};

use crate::turns::hash;

/// How many shares there are.
pub(crate) const SHARDS: u64 = 16;
/// How long the lease of an instance that dies holds.
const LEASE: Duration = Duration::from_secs(15);
/// How often instances tell that they are there.
const PRESENCE: Duration = Duration::from_secs(3);

/// The share that a host belongs to.
pub(crate) fn shard_of(address: &str) -> u64 {
    // Not the bits that say when its turn is: else a share would have its turns together.
    hash(address) % SHARDS
}

/// That an instance is there.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Presence {
    instance: String,
    leaving: bool,
}

impl Event for Presence {
    const PATTERN: &'static str = "presence.watcher";

    fn key(&self) -> commissaire::Result<Key> {
        Key::new("presence.watcher")
    }
}

/// Takes and gives up shares; tells which are ours. Ends, and gives all back, when nobody listens any more.
pub(crate) async fn keep(client: Client, instance: String, ours: watch::Sender<Vec<u64>>) {
    let storage = StorageClient::new(client.clone());
    let mut held: BTreeMap<u64, HeldLease> = BTreeMap::new();
    let mut seen: HashMap<String, Instant> = HashMap::new();
    let pattern = Pattern::new(Presence::PATTERN).map(|pattern| Source::Topic(vec![pattern]));
    let heard = match pattern {
        Ok(source) => client.bus().subscribe(source, 64).await,
        Err(error) => Err(error),
    };
    let mut heard = match heard {
        Ok(heard) => heard,
        Err(error) => return tracing::error!(%error, "other instances cannot be heard"),
    };
    let tell = async |leaving: bool| {
        let presence = Presence { instance: instance.clone(), leaving };
        if let Err(error) = client.announce(&presence).await {
            tracing::debug!(%error, "others do not hear of this instance");
        }
    };
    let mut tick = interval(PRESENCE);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = ours.closed() => break,
            received = heard.next() => {
                let Some(received) = received else { break };
                let Received::Delivery(delivery) = received else { continue };
                let presence = serde_json::from_slice::<Presence>(delivery.message().body());
                let _ = delivery.ack().await;
                match presence {
                    Ok(other) if other.leaving => drop(seen.remove(&other.instance)),
                    Ok(other) => drop(seen.insert(other.instance, Instant::now())),
                    Err(_) => {}
                }
                continue;
            }
        }
        tell(false).await;
        seen.insert(instance.clone(), Instant::now());
        seen.retain(|_, at| at.elapsed() < LEASE);
        held.retain(|_, lease| !lease.is_lost());
        publish(&ours, &held);
        let fair = usize::try_from(SHARDS).unwrap_or(16).div_ceil(seen.len().max(1));
        while held.len() > fair {
            let Some((shard, lease)) = held.pop_last() else { break };
            // Others may look at these hosts from the moment that it is given back.
            publish(&ours, &held);
            tracing::debug!(shard, "a share is left to another instance");
            lease.release().await;
        }
        let first = hash(&instance) % SHARDS;
        for shard in (0..SHARDS).map(|at| (first + at) % SHARDS) {
            if held.len() >= fair {
                break;
            }
            if held.contains_key(&shard) {
                continue;
            }
            match storage.lease(&format!("watcher share {shard}"), &instance, LEASE).await {
                Ok(Some(lease)) => drop(held.insert(shard, lease)),
                Ok(None) => {}
                Err(error) => {
                    tracing::debug!(%error, "shares cannot be taken");
                    break;
                }
            }
        }
        publish(&ours, &held);
    }
    for (_, lease) in held {
        lease.release().await;
    }
    tell(true).await;
}

fn publish(ours: &watch::Sender<Vec<u64>>, held: &BTreeMap<u64, HeldLease>) {
    let now: Vec<u64> = held.keys().copied().collect();
    ours.send_if_modified(|before| {
        let changed = *before != now;
        *before = now;
        changed
    });
}
