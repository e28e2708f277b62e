//! What the configuration says, and says anew.

use std::{sync::Arc, time::Duration};

use commissaire::Result;
use commissaire_api::StorageClient;
use commissaire_ssh::Ssh;
use tokio::{
    sync::Semaphore,
    time::{Instant, Interval, interval, interval_at},
};

use super::{SETTLE, Watch};
use crate::{check::Eye, config::Members, turns::Turns};

/// What the configuration says.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) members: Members,
    ssh: Ssh,
}

impl Settings {
    /// Fails when a file that is named cannot be used.
    pub(crate) fn new(members: Members) -> Result<Self> {
        Ok(Self { ssh: Ssh::new(&members.ssh)?, members })
    }

    pub(super) fn eye(&self, storage: &StorageClient) -> Eye {
        Eye {
            ssh: self.ssh.clone(),
            storage: storage.clone(),
            has_agent: self.members.ssh.agent.is_some(),
            patience: self.members.patience(),
        }
    }
}

impl Watch {
    /// When lines are written for the shares, and when it is looked for what is ripe.
    pub(super) fn ticks(&self) -> (Interval, Interval) {
        let beat = self.members.interval().max(Duration::from_secs(1));
        (interval_at(Instant::now() + beat / 2, beat), interval(self.members.interval() / SETTLE))
    }

    /// Keeps from now on to what the configuration says.
    pub(super) fn set(&mut self) {
        let now = self.settings.borrow_and_update().clone();
        self.eye = now.eye(&self.storage);
        self.lively = Arc::new(Semaphore::new(now.members.at_once.max(1)));
        self.down = Arc::new(Semaphore::new(now.members.down_at_once.max(1)));
        self.members = now.members;
        // Each host has another moment in another interval.
        self.turns = Turns::new(self.members.interval());
        let now = Instant::now();
        for (address, entry) in &self.hosts {
            if self.ours.contains_key(&entry.shard) {
                self.turns.set(address, self.turns.own(address, now));
            }
        }
    }
}
