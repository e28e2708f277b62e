//! `Host`: a machine of the fleet.

use serde::{Deserialize, Serialize};

use crate::{
    model::{Field, Kept, Model},
    record::Record,
};

/// The row of [`Host`].
pub static HOST: Model = Model {
    name: "Host",
    list: Some("Hosts"),
    key: Some("address"),
    fields: &[
        Field::text("address"),
        Field::text("status").or(""),
        Field::text("os").or(""),
        Field::int("cpus", u32::MAX as u64),
        Field::int("memory", i64::MAX as u64),
        Field::int("space", i64::MAX as u64),
        Field::text("last_check").or(""),
        Field::text("source").or(""),
    ],
    rules: &[],
    kept: Kept::Plain,
};

/// A machine of the fleet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// Its name or IP address: the key.
    pub address: String,
    /// `investigating`, `bootstrapping`, `disassociated`, `active`, `failed` or `unreachable`; empty when new.
    #[serde(default)]
    pub status: String,
    /// The operating system, `fedora`.
    #[serde(default)]
    pub os: String,
    /// Processors.
    #[serde(default)]
    pub cpus: u32,
    /// Memory in MiB.
    #[serde(default)]
    pub memory: u64,
    /// Space on all mounts in bytes.
    #[serde(default)]
    pub space: u64,
    /// When it was last looked at: UTC, ISO 8601.
    #[serde(default)]
    pub last_check: String,
    /// The store handler that owns it; empty: the one for hosts.
    #[serde(default)]
    pub source: String,
}

impl Record for Host {
    const MODEL: &'static Model = &HOST;

    fn key(&self) -> &str {
        &self.address
    }
}
