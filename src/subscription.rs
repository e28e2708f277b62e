//! Subscriptions: bounded streams of deliveries and gaps.

mod buffer;
mod ends;
mod place;

use std::{fmt, sync::Mutex};

use futures_util::task::AtomicWaker;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

pub use self::{
    ends::{Consuming, Feed, Subscription},
    place::Place,
};
use crate::{
    address::{Inbox, Key, Origin, Token},
    delivery::{Delivery, Settle, Settlement},
    error::Result,
    message::Message,
    pattern::Pattern,
};

/// What to subscribe to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Source {
    /// Calls to a service, by the service's address ([`Key::service`]). Instances share them out.
    Service(Key),
    /// A work queue, by its whole key. Consumers share it out.
    Queue(Key),
    /// Events that any of the patterns covers, from now on, each once. At most once: what is missed while the
    /// connection is away is announced as a [`Gap`].
    Topic(Vec<Pattern>),
    /// Events that any of the patterns covers, since the subscription was first made under this name, at least once.
    /// It lives on the broker while nobody reads it. Those who subscribe under one name share it out; the patterns of
    /// the last of them hold.
    Durable(Token, Vec<Pattern>),
    /// Control messages to all instances of a service, by the service's address.
    Control(Key),
    /// Replies to an inbox of one's own.
    Inbox(Inbox),
    /// The dead letters of a queue or a durable subscription. Acknowledging takes one out.
    DeadLetters(Origin),
}

/// What a subscription yields.
#[derive(Debug)]
pub enum Received {
    /// A message.
    Delivery(Delivery),
    /// Messages may be missing here, before whatever comes next.
    Gap(Gap),
}

/// Messages of an ephemeral subscription may be missing, because it was not connected or did not keep up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// Why, in words.
    pub reason: String,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(key) => write!(f, "service {key}"),
            Self::Queue(key) => write!(f, "queue {key}"),
            Self::Control(key) => write!(f, "control {key}"),
            Self::Inbox(_) => f.write_str("inbox"),
            Self::Topic(patterns) => write!(f, "topic {}", join(patterns)),
            Self::Durable(name, patterns) => write!(f, "durable {name} on {}", join(patterns)),
            Self::DeadLetters(origin) => write!(f, "dead letters of {origin}"),
        }
    }
}

fn join(patterns: &[Pattern]) -> String {
    patterns.iter().map(Pattern::as_str).collect::<Vec<_>>().join(", ")
}
