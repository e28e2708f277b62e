//! What is wrong with given data: every fault at once, not the first.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One thing that is wrong with one field. Neither part ever holds the value of a secret record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// Where: `cpus`, `options.address`, `hostset[3]`; in a list of records `[0].cpus`. Empty: the data as a whole.
    pub field: String,
    /// What, in words that follow the field's name: `is missing`.
    pub problem: String,
}

/// All faults of some data; never empty when it is an error.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Faults(pub Vec<Fault>);

impl Faults {
    /// Notes one more.
    pub fn add(&mut self, field: impl Into<String>, problem: impl Into<String>) {
        self.0.push(Fault { field: field.into(), problem: problem.into() });
    }

    /// Notes those of the record at `index` of a list.
    pub fn add_at(&mut self, index: usize, faults: Self) {
        self.0.extend(faults.0.into_iter().map(|fault| {
            let dot = if fault.field.is_empty() { "" } else { "." };
            Fault { field: format!("[{index}]{dot}{}", fault.field), problem: fault.problem }
        }));
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `value` when nothing is wrong.
    pub fn or<T>(self, value: T) -> Result<T, Self> {
        if self.is_empty() { Ok(value) } else { Err(self) }
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, fault) in self.0.iter().enumerate() {
            let semicolon = if at == 0 { "" } else { "; " };
            let space = if fault.field.is_empty() { "" } else { " " };
            write!(f, "{semicolon}{}{space}{}", fault.field, fault.problem)?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}
