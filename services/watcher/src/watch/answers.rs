//! What the watch tells: whoever asks, the records once an interval, and whoever hears of events.

use commissaire::time::timestamp;
use commissaire_api::{
    WatchShard,
    watcher::{Checked, StatusOutput, Unwell, WatcherEvent, WatcherState},
};

use super::{Ask, Watch};
use crate::{check::Found, fate::Look, record};

impl Watch {
    pub(super) async fn answer(&mut self, ask: Ask) {
        match ask {
            Ask::Check(address, asked) => {
                if self.hosts.contains_key(&address) {
                    self.look(&address, Some(asked));
                } else {
                    let _ = asked.send(None);
                }
            }
            Ask::Status(asked) => {
                self.count();
                let others = self.storage.list::<WatchShard>().await.unwrap_or_default();
                let mut shards: Vec<WatchShard> = self.ours.values().cloned().collect();
                shards.extend(
                    others
                        .into_iter()
                        .filter(|other| shards.iter().all(|own| own.shard != other.shard))
                        .collect::<Vec<_>>(),
                );
                shards.sort_by(|a, b| a.shard.cmp(&b.shard));
                let unwell = self.hosts.iter().filter(|(_, entry)| {
                    entry.fate.bad_since.is_some() && self.ours.contains_key(&entry.shard)
                });
                let mut unwell: Vec<Unwell> = unwell
                    .map(|(address, entry)| Unwell {
                        address: address.clone(),
                        hard: entry.fate.down,
                        cause: entry.fate.cause.clone(),
                    })
                    .collect();
                unwell.sort_by(|a, b| a.address.cmp(&b.address));
                let braked = self.brake.is_on;
                let _ = asked.send(StatusOutput { instance: self.instance.clone(), braked, shards, unwell });
            }
        }
    }

    fn count(&mut self) {
        let at = timestamp();
        for share in self.ours.values_mut() {
            (share.hosts, share.down) = (0, 0);
            share.at.clone_from(&at);
        }
        for entry in self.hosts.values() {
            if let Some(share) = self.ours.get_mut(&entry.shard) {
                share.hosts += 1;
                share.down += u32::from(entry.fate.down);
            }
        }
    }

    /// Writes a line for each share.
    pub(super) fn beat(&mut self) {
        self.count();
        let shards: Vec<WatchShard> = self.ours.values().cloned().collect();
        let storage = self.storage.clone();
        tokio::spawn(async move {
            for shard in shards {
                if let Err(error) = storage.save(&shard).await {
                    tracing::debug!(%error, "a heartbeat was not written");
                    return;
                }
            }
        });
    }

    pub(super) fn tell(&self, events: Vec<WatcherEvent>) {
        if events.is_empty() {
            return;
        }
        let client = self.client.clone();
        tokio::spawn(async move {
            for event in events {
                record::tell(&client, &event).await;
            }
        });
    }
}

/// An event of now.
pub(crate) fn event(state: WatcherState, address: &str, cause: &str, text: &str) -> WatcherEvent {
    let (address, cause, text) = (address.to_owned(), cause.to_owned(), text.to_owned());
    WatcherEvent { state, address, cause, text, at: timestamp() }
}

pub(super) fn checked(address: &str, found: &Found) -> Checked {
    let (cause, text) = match &found.look {
        Look::Well => (String::new(), String::new()),
        Look::Bad { cause, text } => (cause.clone(), text.clone()),
    };
    let full = found.full.clone().unwrap_or_default();
    Checked {
        address: address.to_owned(),
        well: found.look == Look::Well,
        cause,
        text,
        latency_ms: u64::try_from(found.latency.as_millis()).unwrap_or(u64::MAX),
        boot_id: full.boot_id,
        warnings: full.warnings,
        at: timestamp(),
    }
}
