//! Where a value was set.

use std::fmt;

use serde::Serialize;

/// Where a value was set. Lines and columns count from 1, columns in characters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "layer", rename_all = "snake_case")]
pub enum Place {
    /// Nowhere: it is what holds when nobody says anything.
    Default,
    /// In a file, or on standard input.
    File {
        /// Its path.
        file: String,
        /// The line of the member's name.
        line: usize,
        /// The column of the member's name.
        column: usize,
    },
    /// In etcd.
    Etcd {
        /// The key.
        key: String,
        /// The revision at which the key was written.
        revision: i64,
        /// The line of the member's name.
        line: usize,
        /// The column of the member's name.
        column: usize,
    },
    /// In the environment.
    Environment {
        /// The variable.
        variable: String,
    },
    /// On the command line.
    CommandLine {
        /// The option.
        option: String,
    },
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { file, line, column } => write!(f, "{file}:{line}:{column}"),
            Self::Etcd { key, revision, line, column } => write!(f, "etcd:{key}@{revision}:{line}:{column}"),
            Self::Environment { variable } => f.write_str(variable),
            Self::CommandLine { option } => f.write_str(option),
        }
    }
}
