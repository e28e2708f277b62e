//! Stored messages that cannot be read: dead letters at once, never delivered again and again.

use std::sync::Arc;

use bytes::Bytes;
use commissaire::{Headers, MAX_MESSAGE, Message, envelope, header};
use tokio::time::Instant;

use super::plan::Plan;
use crate::{
    bus::{BOUND, Core},
    hand::Held,
    settle::{Token, acknowledge, bury as store},
};

/// More of the bytes than this would not fit.
const MOST: usize = MAX_MESSAGE - 256;

/// Puts what cannot be read among the dead letters, its bytes as the body, as far as they fit.
pub(super) fn bury(core: &Arc<Core>, plan: &Plan, raw: &Bytes, token: Token, held: Held) {
    let message = || {
        let mut headers = Headers::default();
        headers.set(header::VERSION, "1").ok()?;
        headers.set(header::DEAD, "malformed").ok()?;
        Message::from_parts(plan.address()?, headers, raw.slice(..raw.len().min(MOST))).ok()
    };
    let Some(message) = message() else { return };
    let bytes = Bytes::from(envelope::encode(&message.with_origin(&plan.spot.origin)));
    let (core, spot) = (core.clone(), plan.spot.clone());
    let settling = core.settling.clone();
    settling.spawn(async move {
        let deadline = Instant::now() + BOUND;
        let id = format!("{}:{}:{}:d", token.stored.place, token.stored.seq, token.stored.time);
        let buried = match store(&core, &spot.origin, &bytes, &id, deadline).await {
            Ok(()) => acknowledge(&core, &token, deadline).await,
            Err(fault) => Err(fault),
        };
        drop(held);
        if let Err(fault) = buried {
            tracing::warn!(origin = %spot.origin, ?fault, "what cannot be read stays where it is");
        }
    });
}
