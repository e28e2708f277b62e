//! How many hosts there are connections to at one time: in all, and in one network.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

#[derive(Debug)]
pub(crate) struct Limits {
    all: Arc<Semaphore>,
    networks: Mutex<HashMap<String, Weak<Semaphore>>>,
    per_network: usize,
}

/// One connection that counts, until this is dropped.
#[derive(Debug)]
pub(crate) struct Counted {
    _network: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
}

impl Limits {
    pub(crate) fn new(all: usize, per_network: usize) -> Self {
        Self {
            all: Arc::new(Semaphore::new(all.clamp(1, Semaphore::MAX_PERMITS))),
            networks: Mutex::default(),
            per_network: per_network.clamp(1, Semaphore::MAX_PERMITS),
        }
    }

    /// Waits for a place. One in the network comes first, so that a network that is slow takes no place of others.
    pub(crate) async fn enter(&self, host: &str) -> Option<Counted> {
        let network = self.network(network_of(host));
        let network = network.acquire_owned().await.ok()?;
        let all = self.all.clone().acquire_owned().await.ok()?;
        Some(Counted { _network: network, _all: all })
    }

    fn network(&self, name: String) -> Arc<Semaphore> {
        let mut networks = self.networks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(network) = networks.get(&name).and_then(Weak::upgrade) {
            return network;
        }
        networks.retain(|_, network| network.strong_count() > 0);
        let network = Arc::new(Semaphore::new(self.per_network));
        networks.insert(name, Arc::downgrade(&network));
        network
    }
}

/// A /24 of IPv4, a /64 of IPv6, the domain of a name.
fn network_of(host: &str) -> String {
    match host.parse() {
        Ok(IpAddr::V4(address)) => {
            let [a, b, c, _] = address.octets();
            format!("{a}.{b}.{c}")
        }
        Ok(IpAddr::V6(address)) => {
            let [a, b, c, d, ..] = address.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}")
        }
        Err(_) => host.split_once('.').map_or(host, |(_, domain)| domain).to_ascii_lowercase(),
    }
}
