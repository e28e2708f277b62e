//! A service of this process, and how its calls are taken from the server.

use std::{sync::atomic::AtomicBool, time::Duration};

use commissaire::Key;
use redis::Cmd;

/// The most calls of one read.
const MOST: usize = 256;

/// One service of this process.
pub(crate) struct Served {
    pub(super) service: Key,
    pub(super) list: String,
    pub(super) live: String,
    pub(super) here: String,
    /// Nobody sees this instance any more.
    pub(super) left: AtomicBool,
}

/// The oldest calls of the first of `keys` that has any.
pub(super) fn popping(block: Option<Duration>, count: usize, keys: &[&str]) -> Cmd {
    let mut command = match block {
        Some(block) => {
            let mut command = redis::cmd("BLMPOP");
            command.arg(block.as_secs_f64());
            command
        }
        None => redis::cmd("LMPOP"),
    };
    command.arg(keys.len()).arg(keys).arg("RIGHT").arg("COUNT").arg(count.clamp(1, MOST));
    command
}
