//! The removal of durable subscriptions.

use std::time::Duration;

use commissaire::{Result, Token};
use tokio::time::Instant;

use crate::{
    bus::{BOUND, Core},
    script::Script,
    value::int,
};

/// Removes the subscription `name`; with `idle`, only if nobody has read it for that long. Whether it did.
pub(crate) async fn remove(core: &Core, name: &Token, idle: Option<Duration>) -> Result<bool> {
    let names = &core.names;
    let queue = names.durable(name);
    let [table, permanent] = names.bindings(names.exchange());
    let mut keys = vec![
        table,
        permanent,
        names.own("v", ""),
        names.own("made", ""),
        names.own("subs", ""),
        names.own("seen", ""),
        names.own("readers", &queue),
        names.own("z", &queue),
        names.own("b", &queue),
    ];
    keys.extend(names.lists(&queue));
    let idle = idle.map(|idle| u64::try_from(idle.as_millis()).unwrap_or(u64::MAX).to_string());
    let removed = core.main.until(Instant::now() + BOUND, |digests| {
        let mut command = Script::Remove.over(digests, &keys);
        command.arg(name.as_str()).arg(format!("{}{queue}", names.layout().sep));
        command.arg(idle.as_deref().unwrap_or_default()).arg(names.own("live", ""));
        command
    });
    let removed = removed.await;
    removed
        .map(|removed| int(&removed) == Some(1))
        .map_err(|fault| fault.into_error(&format!("removing the durable subscription {name}")))
}
