//! Levels, as numbers: those of Python's `logging`, with one below its lowest.

use std::fmt;

use serde::{Deserialize, Deserializer, de::Visitor};

/// How bad it is: from 0, which lets all pass, over 10 (debug), 20 (info), 30 (warning) and 40 (error) to 50.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Level(u8);

/// The names of levels, the one that is shown first.
const NAMES: [(&str, u8); 9] = [
    ("CRITICAL", 50),
    ("FATAL", 50),
    ("ERROR", 40),
    ("WARNING", 30),
    ("WARN", 30),
    ("INFO", 20),
    ("DEBUG", 10),
    ("TRACE", 5),
    ("NOTSET", 0),
];

impl Level {
    /// Lets all pass.
    pub const ALL: Self = Self(0);
    /// What is told to find a fault that hides well.
    pub const TRACE: Self = Self(5);
    /// What is told to find a fault.
    pub const DEBUG: Self = Self(10);
    /// What is told when all is well.
    pub const INFO: Self = Self(20);
    /// What should be looked at.
    pub const WARNING: Self = Self(30);
    /// What failed.
    pub const ERROR: Self = Self(40);
    /// Lets nothing pass.
    pub const NONE: Self = Self(u8::MAX);

    /// Its number.
    pub(super) fn number(self) -> u8 {
        self.0
    }

    /// Its name.
    pub(super) fn name(self) -> &'static str {
        NAMES.iter().find(|(_, number)| *number <= self.0).map_or("NOTSET", |(name, _)| name)
    }

    /// Its number for syslog (RFC 5424, 6.2.1).
    pub(super) fn severity(self) -> u8 {
        match self.0 {
            50.. => 2,
            40.. => 3,
            30.. => 4,
            20.. => 6,
            _ => 7,
        }
    }
}

impl From<tracing::Level> for Level {
    fn from(level: tracing::Level) -> Self {
        match level {
            tracing::Level::ERROR => Self::ERROR,
            tracing::Level::WARN => Self::WARNING,
            tracing::Level::INFO => Self::INFO,
            tracing::Level::DEBUG => Self::DEBUG,
            tracing::Level::TRACE => Self::TRACE,
        }
    }
}

impl<'de> Deserialize<'de> for Level {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Read)
    }
}

struct Read;

impl Visitor<'_> for Read {
    type Value = Level;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CRITICAL, ERROR, WARNING, INFO, DEBUG, TRACE, NOTSET or a number from 0 to 50")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Level, E> {
        let known = NAMES.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
        let unknown = || E::invalid_value(serde::de::Unexpected::Str(text), &self);
        known.map(|(_, number)| Level(*number)).ok_or_else(unknown)
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Level, E> {
        let odd = || E::invalid_value(serde::de::Unexpected::Unsigned(number), &self);
        u8::try_from(number).ok().filter(|number| *number <= 50).map(Level).ok_or_else(odd)
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Level, E> {
        let odd = E::invalid_value(serde::de::Unexpected::Signed(number), &self);
        self.visit_u64(u64::try_from(number).map_err(|_| odd)?)
    }
}
