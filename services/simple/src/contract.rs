//! What the example service answers, shared with whoever calls it.

use serde::{Deserialize, Serialize};

/// Two numbers to add.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sum {
    /// The first.
    pub x: i64,
    /// The second.
    pub y: i64,
}

commissaire::method! {
    /// Adds two numbers.
    pub Add = "simple.add": Sum => i64, idempotent
}

commissaire::method! {
    /// Adds two numbers and says so in words.
    pub WordyAdd = "simple.wordy_add": Sum => String, idempotent
}
