//! The scripts: kept as files, run by their digest, loaded whenever a connection is made.

use commissaire_redis_link::{ledger, script::run};
use redis::Cmd;

/// One script of `lua/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Script {
    Call,
    Control,
    Declare,
    Leave,
    Move,
    Push,
    Reap,
    Remove,
    Restore,
    Settle,
    Survey,
    Take,
}

/// The number of the ledger's first script.
pub(crate) const LEDGER: usize = TEXTS.len() - ledger::SCRIPTS.len();

/// The text of each script, in the order of [`Script`]; then those of the ledger.
pub(crate) const TEXTS: &[&str] = &[
    include_str!("lua/call.lua"),
    include_str!("lua/control.lua"),
    include_str!("lua/declare.lua"),
    include_str!("lua/leave.lua"),
    include_str!("lua/move.lua"),
    include_str!("lua/push.lua"),
    include_str!("lua/reap.lua"),
    include_str!("lua/remove.lua"),
    include_str!("lua/restore.lua"),
    include_str!("lua/settle.lua"),
    include_str!("lua/survey.lua"),
    include_str!("lua/take.lua"),
    ledger::SCRIPTS[0],
    ledger::SCRIPTS[1],
];

impl Script {
    /// The command that runs it over `keys`; arguments are added by the caller.
    pub(crate) fn over<K: AsRef<str>>(self, digests: &[String], keys: &[K]) -> Cmd {
        run(digests, self as usize, keys)
    }
}
