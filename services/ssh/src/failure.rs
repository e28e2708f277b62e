//! Why something on a host could not be done: kinds that a program can tell apart, and words for people.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The name cannot be resolved.
    Name,
    /// The host is there, and nothing listens on the port.
    Refused,
    /// The network knows no way there.
    Unreachable,
    /// Nothing answered in time.
    TimedOut,
    /// Something took the connection, and it does not speak SSH.
    NoBanner,
    /// The host's key is not the one that is known, or not known at all where it must be.
    HostKey,
    /// The host does not take our user with our key.
    Authentication,
    /// Our user may not do it there: sudo refuses.
    Permission,
    /// A command ended with an error.
    Command,
    /// The connection broke before the end: whether the command was carried out is unknown.
    Lost,
}

/// Why something on a host could not be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What went wrong.
    pub kind: FailureKind,
    /// In words: what was tried, on what, what to do.
    pub text: String,
}

impl Failure {
    /// Of this kind, in these words.
    pub fn new(kind: FailureKind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into() }
    }

    /// Whether it tells of the way to the host, and not of what was done there.
    pub fn is_of_the_way(&self) -> bool {
        use FailureKind::{Lost, Name, NoBanner, Refused, TimedOut, Unreachable};
        matches!(self.kind, Name | Refused | Unreachable | TimedOut | NoBanner | Lost)
    }
}

impl FailureKind {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::TimedOut => "timed_out",
            Self::NoBanner => "no_banner",
            Self::HostKey => "host_key",
            Self::Authentication => "authentication",
            Self::Permission => "permission",
            Self::Command => "command",
            Self::Lost => "lost",
        }
    }
}

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Failure {}
