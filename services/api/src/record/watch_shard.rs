//! `WatchShard`: the heartbeat of the watcher for a share of the hosts, in the place of a record a host a minute.

use serde::{Deserialize, Serialize};

use crate::{
    model::{Field, Kept, Model},
    record::Record,
};

/// The row of [`WatchShard`].
pub static WATCH_SHARD: Model = Model {
    name: "WatchShard",
    list: Some("WatchShards"),
    key: Some("shard"),
    fields: &[
        Field::text("shard"),
        Field::text("instance").or(""),
        Field::text("at").or(""),
        Field::int("hosts", u32::MAX as u64),
        Field::int("down", u32::MAX as u64),
        Field::int("checks", u64::MAX),
        Field::int("late", u64::MAX),
    ],
    rules: &[],
    kept: Kept::Plain,
};

/// How the watcher fares with a share of the hosts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchShard {
    /// Which share: the key.
    pub shard: String,
    /// The instance that looks after it.
    #[serde(default)]
    pub instance: String,
    /// When it said so.
    #[serde(default)]
    pub at: String,
    /// How many hosts it has.
    #[serde(default)]
    pub hosts: u32,
    /// How many of them are down.
    #[serde(default)]
    pub down: u32,
    /// How many checks there were since the instance began.
    #[serde(default)]
    pub checks: u64,
    /// How many of them were late by more than a fifth of the interval.
    #[serde(default)]
    pub late: u64,
}

impl Record for WatchShard {
    const MODEL: &'static Model = &WATCH_SHARD;

    fn key(&self) -> &str {
        &self.shard
    }
}
