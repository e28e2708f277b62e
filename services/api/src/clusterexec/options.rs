//! How an operation goes over the hosts.

use serde::{Deserialize, Serialize};

/// How an operation goes over the hosts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// How many hosts are at work at one time, 1 at least. A host that was told to reboot and is not back counts.
    pub max_concurrent: Amount,
    /// How many are at work at one time in the beginning: `[1, 5, "25%"]` is one host, then five, then a quarter of them
    /// all; each number holds until so many more hosts are done, then `max_concurrent` holds. Never more than that.
    pub ramp: Vec<Amount>,
    /// How many hosts may fail: with one more the operation stops.
    pub max_failed: Amount,
    /// How many hosts of the cluster must be available at all times, whatever the others are away for.
    pub min_available: Amount,
    /// In which order.
    pub order: Order,
    /// What happens to the hosts that were begun when the operation stops for its failures.
    pub on_failure: OnFailure,
    /// When hosts may be begun: `Mon-Fri 22:00-04:00`, in UTC; always, if there is none. One that was begun is finished.
    pub windows: Vec<String>,
    /// Only those hosts with which the last operation of the cluster was not done.
    pub failed_only: bool,
    /// Whether a host that is not well afterwards is taken back to what it was before, where its system can.
    pub rollback: bool,
    /// How long a host may take to be back from a reboot, in seconds.
    pub reboot_seconds: u32,
    /// How long its command may take, in seconds.
    pub step_seconds: u32,
    /// What must hold of a host afterwards.
    pub gates: Gates,
    /// How a node is drained before.
    pub drain: DrainOptions,
}

/// What must hold of a host before the next one is begun in its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Gates {
    /// How long it may take until all of them hold, in seconds.
    pub seconds: u32,
    /// Whether a system in which a unit has failed is good enough.
    pub degraded: bool,
    /// Units that must run.
    pub units: Vec<String>,
    /// A command of `sh` that must end with 0 there, as root.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// How long its node must have been ready without a break, in seconds.
    pub min_healthy_seconds: u32,
}

/// How a node is drained.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DrainOptions {
    /// How long it may take, in seconds.
    pub seconds: u32,
    /// Whether pods may lose what they keep in an `emptyDir`.
    pub delete_empty_dir: bool,
    /// Whether pods may go that nobody makes anew.
    pub force: bool,
    /// Whether pods that are still there in the end are deleted, whatever their disruption budget says.
    pub delete_at_deadline: bool,
}

/// A number of hosts, or a part of them: `3`, `"25%"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Amount {
    /// So many.
    Hosts(u32),
    /// So many of a hundred.
    #[serde(with = "percent")]
    Percent(u32),
}

/// In which order hosts are begun.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// As the cluster lists them.
    #[default]
    Listed,
    /// The last one first.
    Reverse,
}

/// What happens to the hosts that were begun when an operation stops for its failures.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// They are finished.
    #[default]
    FinishRunning,
    /// Those that were not told to reboot yet are left as they are.
    Stop,
    /// The operation does not stop.
    Continue,
}

impl Amount {
    /// How many of `all` that is, a part of a host left out.
    pub fn of(self, all: usize) -> usize {
        match self {
            Self::Hosts(hosts) => hosts as usize,
            Self::Percent(percent) => all * percent as usize / 100,
        }
    }

    /// How many of `all` that is, a part of a host counted as one.
    pub fn of_at_least(self, all: usize) -> usize {
        match self {
            Self::Hosts(hosts) => hosts as usize,
            Self::Percent(percent) => (all * percent as usize).div_ceil(100),
        }
    }
}

/// `25%`.
mod percent {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(percent: &u32, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&format!("{percent}%"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
        let text = String::deserialize(from)?;
        let number = text.strip_suffix('%').and_then(|number| number.trim().parse().ok());
        number.filter(|percent| *percent <= 100).ok_or_else(|| D::Error::custom("a part is 0% to 100%"))
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_concurrent: Amount::Hosts(1),
            ramp: Vec::new(),
            max_failed: Amount::Hosts(0),
            min_available: Amount::Hosts(0),
            order: Order::default(),
            on_failure: OnFailure::default(),
            windows: Vec::new(),
            failed_only: false,
            rollback: false,
            reboot_seconds: 600,
            step_seconds: 3600,
            gates: Gates::default(),
            drain: DrainOptions::default(),
        }
    }
}

impl Default for Gates {
    fn default() -> Self {
        Self { seconds: 300, degraded: true, units: Vec::new(), command: None, min_healthy_seconds: 10 }
    }
}

impl Default for DrainOptions {
    fn default() -> Self {
        Self { seconds: 600, delete_empty_dir: false, force: false, delete_at_deadline: false }
    }
}
