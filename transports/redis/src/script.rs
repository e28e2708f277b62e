//! The scripts: kept as files, run by their digest, loaded whenever a connection is made.

use redis::Cmd;

/// One script of `lua/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Script {
    Absent,
    Ack,
    Beat,
    Begin,
    Call,
    Claim,
    Dead,
    Declare,
    Enqueue,
    Event,
    Finish,
    Keep,
    Leave,
    Move,
    Redrive,
    Release,
    Remove,
    Reply,
    Retry,
    Survey,
}

/// The text of each script, in the order of [`Script`].
pub(crate) const TEXTS: [&str; 20] = [
    include_str!("lua/absent.lua"),
    include_str!("lua/ack.lua"),
    include_str!("lua/beat.lua"),
    include_str!("lua/begin.lua"),
    include_str!("lua/call.lua"),
    include_str!("lua/claim.lua"),
    include_str!("lua/dead.lua"),
    include_str!("lua/declare.lua"),
    include_str!("lua/enqueue.lua"),
    include_str!("lua/event.lua"),
    include_str!("lua/finish.lua"),
    include_str!("lua/keep.lua"),
    include_str!("lua/leave.lua"),
    include_str!("lua/move.lua"),
    include_str!("lua/redrive.lua"),
    include_str!("lua/release.lua"),
    include_str!("lua/remove.lua"),
    include_str!("lua/reply.lua"),
    include_str!("lua/retry.lua"),
    include_str!("lua/survey.lua"),
];

/// The digests that the server gave, in the order of [`Script`].
pub(crate) type Digests = [String; TEXTS.len()];

impl Script {
    /// The command that runs it over `keys`; arguments are added by the caller.
    pub(crate) fn over<K: AsRef<str>>(self, digests: &Digests, keys: &[K]) -> Cmd {
        let mut command = redis::cmd("EVALSHA");
        command.arg(&digests[self as usize]).arg(keys.len());
        for key in keys {
            command.arg(key.as_ref());
        }
        command
    }
}
