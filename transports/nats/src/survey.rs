//! What the server tells of the exchange, for operators; and removing a durable subscription.

use std::{collections::BTreeMap, time::Duration};

use commissaire::{Declared, Origin, Survey, Token, What};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    bus::Core,
    clock,
    declare::{Consumer, Stream, WORK},
    fault::Fault,
    registry,
};

/// Everything that is declared in this exchange.
pub(crate) async fn survey(core: &Core, deadline: Instant) -> Result<Survey, Fault> {
    let _ = (core, deadline);
    Ok(Survey::default())
}

/// Removes a durable subscription; of several who try, one does.
pub(crate) async fn remove(
    core: &Core,
    name: &Token,
    idle: Option<Duration>,
    deadline: Instant,
) -> Result<bool, Fault> {
    let _ = (core, name, idle, deadline);
    Ok(false)
}
