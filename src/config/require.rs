//! What a program requires of its bus, whichever it is.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, SeqAccess, Visitor},
};

use crate::bus::{Durability, Guarantees};

/// What can be required of a bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requirement {
    /// Queues and durable subscriptions deliver at least once: every transport does.
    AtLeastOnce,
    /// Stored messages survive the sudden death of the broker.
    Durable,
    /// They survive the sudden loss of power as well.
    DurablePower,
    /// Other processes can be on the bus.
    Shared,
    /// What the dedup layer remembers holds for all processes.
    SharedLedger,
    /// A stored message that is published twice is there once.
    Republish,
}

/// The member `require`: a list, or one text with commas in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Requirements(pub Vec<Requirement>);

impl Requirement {
    /// All, with their names.
    const ALL: [(&'static str, Self); 6] = [
        ("at_least_once", Self::AtLeastOnce),
        ("durable", Self::Durable),
        ("durable_power", Self::DurablePower),
        ("shared", Self::Shared),
        ("shared_ledger", Self::SharedLedger),
        ("republish", Self::Republish),
    ];

    /// The name that stands in configurations.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, known)| *known == self).map_or("", |(name, _)| name)
    }

    /// Whether a bus with these guarantees gives it.
    pub fn is_met_by(self, given: &Guarantees) -> bool {
        match self {
            Self::AtLeastOnce => true,
            Self::Durable => given.durability >= Durability::Kill,
            Self::DurablePower => given.durability >= Durability::Power,
            Self::Shared => given.shared,
            Self::SharedLedger => given.shared_ledger,
            Self::Republish => given.republish_window.is_some(),
        }
    }

    /// What a bus that does not give it lacks, in words.
    pub fn lacks(self) -> &'static str {
        match self {
            Self::AtLeastOnce => "messages may be lost",
            Self::Durable => "stored messages do not survive the sudden death of the broker",
            Self::DurablePower => "stored messages do not survive a loss of power",
            Self::Shared => "no other process can be on it",
            Self::SharedLedger => "what the dedup layer remembers holds for each process alone",
            Self::Republish => "a stored message that is published twice is there twice",
        }
    }

    fn parse<E: serde::de::Error>(name: &str) -> Result<Self, E> {
        // A file may write its members with hyphens; so may this.
        let name = name.trim().replace('-', "_");
        Self::ALL
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, found)| *found)
            .ok_or_else(|| E::custom(format!("must be of {}", Self::ALL.map(|(known, _)| known).join(", "))))
    }
}

impl<'de> Deserialize<'de> for Requirements {
    fn deserialize<D: Deserializer<'de>>(parser: D) -> Result<Self, D::Error> {
        parser.deserialize_any(Names)
    }
}

struct Names;

impl<'de> Visitor<'de> for Names {
    type Value = Requirements;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of names, or names with commas between")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Requirements, E> {
        let names = text.split(',').filter(|name| !name.trim().is_empty());
        Ok(Requirements(names.map(Requirement::parse).collect::<Result<_, E>>()?))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Requirements, A::Error> {
        let mut names = Vec::new();
        while let Some(name) = list.next_element::<String>()? {
            names.push(Requirement::parse::<A::Error>(&name).map_err(A::Error::custom)?);
        }
        Ok(Requirements(names))
    }
}
