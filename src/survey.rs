//! What a broker tells about itself and about what is declared on it: for operators (`commissaire doctor`, `dlq`,
//! `subscription`).

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize, Serializer};

use crate::address::{Key, Origin, Token};

/// A bus as its broker shows it now. What a broker does not tell is `None`: unknown, which is not the same as well.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Survey {
    /// Product, version and place of the broker, `Redis 7.0.15 at 127.0.0.1:6379`. Never a secret.
    pub broker: String,
    /// What is declared, in the order of its names.
    pub declared: Vec<Declared>,
    /// What differs from what the bus needs, or takes a promise away; each with what to do about it.
    pub faults: Vec<String>,
    /// What this broker does not tell, each with what would make it tell, if anything does.
    pub unknown: Vec<String>,
}

/// One thing that is declared on a broker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Declared {
    /// What it is.
    pub what: What,
    /// The patterns of a durable subscription.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patterns: Option<Vec<String>>,
    /// Messages that wait to be delivered now.
    pub waiting: Option<u64>,
    /// Messages that were delivered and are not settled; where it is unknown who consumes, also what was given back and
    /// nobody has taken since.
    pub in_hand: Option<u64>,
    /// Messages that wait for their retry to be due.
    pub resting: Option<u64>,
    /// How long the oldest message has been there.
    #[serde(rename = "oldest_seconds", with = "seconds")]
    pub oldest: Option<Duration>,
    /// Consumers that the broker knows.
    pub consumers: Option<u64>,
    /// Consumers among them that do not consume: stopped, or deaf on a connection that looks well.
    pub deaf: Option<u64>,
    /// For how long nobody has read a durable subscription; zero while somebody does.
    #[serde(rename = "idle_seconds", with = "seconds")]
    pub idle: Option<Duration>,
    /// After how long without a reader a durable subscription is removed.
    #[serde(rename = "expires_after_seconds", with = "seconds")]
    pub expires_after: Option<Duration>,
}

/// What can be declared on a broker.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// The calls of a service.
    Service(Key),
    /// A work queue.
    Queue(Key),
    /// A durable subscription.
    Durable(Token),
    /// The dead letters of a queue.
    DeadQueue(Key),
    /// The dead letters of a durable subscription.
    DeadDurable(Token),
}

impl What {
    /// The dead letters of `origin`.
    pub fn dead(origin: &Origin) -> Self {
        match origin {
            Origin::Queue(key) => Self::DeadQueue(key.clone()),
            Origin::Durable(name) => Self::DeadDurable(name.clone()),
        }
    }

    /// Where these dead letters come from, if it is dead letters.
    pub fn origin(&self) -> Option<Origin> {
        match self {
            Self::DeadQueue(key) => Some(Origin::Queue(key.clone())),
            Self::DeadDurable(name) => Some(Origin::Durable(name.clone())),
            Self::Service(_) | Self::Queue(_) | Self::Durable(_) => None,
        }
    }
}

impl Declared {
    /// `what`, of which nothing is known yet.
    pub fn new(what: What) -> Self {
        Self {
            what,
            patterns: None,
            waiting: None,
            in_hand: None,
            resting: None,
            oldest: None,
            consumers: None,
            deaf: None,
            idle: None,
            expires_after: None,
        }
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(key) => write!(f, "service {key}"),
            Self::Queue(key) => write!(f, "queue {key}"),
            Self::Durable(name) => write!(f, "durable {name}"),
            Self::DeadQueue(key) => write!(f, "dead letters of queue {key}"),
            Self::DeadDurable(name) => write!(f, "dead letters of durable {name}"),
        }
    }
}

/// Spans of time as seconds with fractions.
mod seconds {
    use super::{Deserialize, Duration, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(span: &Option<Duration>, out: S) -> Result<S::Ok, S::Error> {
        span.map(|span| span.as_millis() as f64 / 1e3).serialize(out)
    }

    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Duration>, D::Error> {
        let seconds = Option::<f64>::deserialize(from)?;
        seconds
            .map(|seconds| Duration::try_from_secs_f64(seconds).map_err(serde::de::Error::custom))
            .transpose()
    }
}
