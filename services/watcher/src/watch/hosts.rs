//! Which hosts there are, and which of them are ours.

use std::{collections::HashSet, time::Duration};

use commissaire_api::{Host, HostState, WatchShard, client::Seen};
use tokio::time::Instant;

use super::Watch;
use crate::{
    fate::Fate,
    record::{self, Written},
    shards::shard_of,
    turns::hash,
};

impl Watch {
    pub(super) async fn see(&mut self, seen: Seen<Host>) {
        match seen {
            Seen::All(all) => {
                let there: HashSet<&str> = all.iter().map(|found| found.record.address.as_str()).collect();
                self.hosts.retain(|address, _| there.contains(address.as_str()));
                let mut new = Vec::new();
                for found in all {
                    new.extend(self.host(found.record));
                }
                self.begin(new).await;
            }
            Seen::Saved(found) => {
                let new = self.host(found.record);
                self.begin(new.into_iter().collect()).await;
            }
            Seen::Deleted(address) => {
                self.hosts.remove(&address);
                self.turns.remove(&address);
            }
        }
    }

    /// Takes a host in; its address if it is new.
    fn host(&mut self, host: Host) -> Option<String> {
        let new = !self.hosts.contains_key(&host.address);
        let entry = self.hosts.entry(host.address.clone()).or_default();
        entry.shard = shard_of(&host.address);
        entry.status = host.status;
        new.then_some(host.address)
    }

    /// Begins to look after these hosts, where they are ours.
    async fn begin(&mut self, addresses: Vec<String>) {
        let ours: Vec<String> = addresses.into_iter().filter(|address| self.is_ours(address)).collect();
        if ours.is_empty() {
            return;
        }
        // Without them nothing is known of these hosts: it is tried again.
        let Some(states) = record::states(&self.storage, &ours).await else { return };
        let now = Instant::now();
        let tries = self.members.tries.max(1);
        for address in ours {
            let own = self.turns.own(&address, now);
            self.turns.set(&address, own);
            let state = states.get(&address);
            let Some(entry) = self.hosts.get_mut(&address) else { continue };
            let written = Written::of(state.unwrap_or(&HostState::default()));
            // Others may have looked after it until now, so that what was known of it is old.
            let steady = Fate { flapping: std::mem::take(&mut entry.fate.flapping), ..Fate::default() };
            entry.fate = steady;
            if written.down {
                // It did not turn bad just now.
                let long_ago = now.checked_sub(self.members.interval() * 3).unwrap_or(now);
                entry.fate = Fate::down(&written.cause, &written.text, long_ago, tries);
                self.turns.set(&address, now);
            }
            // Not all of them at one moment.
            let share = (hash(&address) % 1000) as f64 / 1000.0;
            entry.note = Some(now + Duration::from_secs(self.members.last_check_seconds).mul_f64(share));
            entry.written = Some(written);
        }
    }

    /// Looks once more for what was not known of hosts that are ours.
    pub(super) async fn begin_again(&mut self) {
        let unknown = |(address, entry): (&String, &super::Entry)| {
            (entry.written.is_none() && self.ours.contains_key(&entry.shard)).then(|| address.clone())
        };
        let unknown: Vec<String> = self.hosts.iter().filter_map(unknown).collect();
        if !unknown.is_empty() {
            self.begin(unknown).await;
        }
    }

    /// These shares are ours from now on.
    pub(super) async fn share(&mut self, now: &[u64]) {
        self.ours.retain(|shard, _| now.contains(shard));
        let new: Vec<u64> = now.iter().copied().filter(|shard| !self.ours.contains_key(shard)).collect();
        for shard in &new {
            let instance = self.instance.clone();
            self.ours.insert(
                *shard,
                WatchShard { shard: format!("{shard:02}"), instance, ..WatchShard::default() },
            );
        }
        tracing::info!(shares = self.ours.len(), "shares of the hosts");
        let theirs = self.hosts.iter().filter(|(_, entry)| new.contains(&entry.shard));
        let theirs = theirs.map(|(address, _)| address.clone()).collect();
        self.begin(theirs).await;
    }
}
