//! The configuration of the watcher.

use std::time::Duration;

use commissaire_ssh::SshOptions;
use serde::{Deserialize, Serialize};

/// The members that only this service has.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Members {
    /// How hosts are reached.
    pub ssh: SshOptions,
    /// How often each host is looked at, in seconds.
    pub interval_seconds: f64,
    /// Every so many looks it is logged in to; the others only see whether SSH is spoken there.
    pub full_every: u32,
    /// How often a host must fail in a row before it is down. Between, it is looked at four times as often.
    pub tries: u32,
    /// How many hosts are looked at at one time.
    pub at_once: usize,
    /// How many of those that fail: the others never wait for them.
    pub down_at_once: usize,
    /// When so many hosts of a hundred, and three at least, turn bad within two intervals, that is more likely our fault
    /// than theirs: then no status is written. 100 is never.
    pub brake_percent: u32,
    /// After so many seconds `last_check` of a host that is well is written anew; else only changes are written.
    pub last_check_seconds: u64,
}

impl Default for Members {
    fn default() -> Self {
        Self {
            ssh: SshOptions::default(),
            interval_seconds: 60.0,
            full_every: 10,
            tries: 3,
            at_once: 256,
            down_at_once: 64,
            brake_percent: 30,
            last_check_seconds: 3600,
        }
    }
}

impl Members {
    /// How often each host is looked at.
    pub(crate) fn interval(&self) -> Duration {
        Duration::from_secs_f64(self.interval_seconds.clamp(0.5, 86_400.0))
    }

    /// How long a host may take to take a connection: less than the rest between two looks at one that failed.
    pub(crate) fn patience(&self) -> Duration {
        let longest = Duration::from_secs(self.ssh.connect_seconds.max(1));
        longest.min((self.interval() / 6).max(Duration::from_millis(300)))
    }
}
