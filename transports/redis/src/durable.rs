//! The life of durable subscriptions: who was seen to read them when, and their removal.

use std::{collections::HashMap, time::Duration};

use commissaire::{Result, Token};
use redis::{Cmd, Value};
use tokio::time::Instant;

use crate::{
    bus::{BOUND, Core},
    link::DEAF,
    listen::entry::Stream,
    script::Script,
    value::{int, millis, pairs, text},
    wire::{Fault, Wire, no_error},
};

/// What the registry says of one subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    /// After how many ms without a reader it may be removed, if anybody has said so.
    pub(crate) expiry: Option<u64>,
    /// When it was last seen to be read, by the server's time in ms.
    pub(crate) seen: i64,
}

/// The registry, by the names of subscriptions, and the server's time.
pub(crate) async fn registry(core: &Core, wire: &Wire) -> Result<(HashMap<String, Entry>, i64), Fault> {
    let mut pipeline = redis::Pipeline::new();
    pipeline.cmd("HGETALL").arg(core.keys.registry());
    pipeline.cmd("TIME");
    let mut answers = wire.ask_all(&pipeline, DEAF).await?;
    let now = answers.pop().and_then(millis).ok_or(Fault::Lost)?;
    let entries = no_error(answers.pop().unwrap_or(Value::Nil))?;
    Ok((
        pairs(entries).into_iter().filter_map(|(name, entry)| Some((text(name)?, read(entry)?))).collect(),
        now,
    ))
}

/// `EXPIRY SEEN`, the first of which may be missing.
pub(crate) fn read(entry: Value) -> Option<Entry> {
    let entry = text(entry)?;
    let (expiry, seen) = entry.split_once(' ')?;
    Some(Entry { expiry: expiry.parse().ok(), seen: seen.parse().ok()? })
}

/// Removes the subscription `name`; with `idle`, only if nobody has read it for that long. Whether it did.
pub(crate) async fn remove(core: &Core, name: &Token, idle: Option<Duration>) -> Result<bool> {
    let idle = idle.map(|idle| u64::try_from(idle.as_millis()).unwrap_or(u64::MAX));
    let command = |digests: &[String]| removing(core, digests, name.as_str(), idle);
    let removed = core.main.until(Instant::now() + BOUND, command).await;
    removed
        .map(|removed| int(&removed) == Some(1))
        .map_err(|fault| fault.into_error(&format!("removing the durable subscription {name}")))
}

fn removing(core: &Core, digests: &[String], name: &str, idle: Option<u64>) -> Cmd {
    let keys = &core.keys;
    let stream = keys.durable(name);
    let (delayed, bodies) = (format!("{stream}:z"), format!("{stream}:b"));
    let names = [stream, delayed, bodies, keys.bindings(), keys.version(), keys.registry()];
    let mut command = Script::Remove.over(digests, &names);
    command.arg(Stream::GROUP).arg(name).arg(idle.map(|idle| idle.to_string()).unwrap_or_default());
    command.arg(keys.alive());
    command
}
