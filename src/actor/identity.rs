//! Who a program is on the bus.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use super::{SecretKey, signed::Signed};
use crate::{
    address::{Address, Token},
    error::Result,
    message::{Message, header},
};

/// Who this program says it is, and the key that proves it. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Identity {
    /// The name; without one it is that of the program.
    pub name: Option<Token>,
    /// The key; without one the name is a claim.
    pub key: Option<Arc<SecretKey>>,
}

impl Identity {
    /// Puts the name on `message`, and signs it where there is a key. Messages that ask nothing and tell nothing of
    /// themselves (replies, cancellations) stay as they are, and so does what somebody has signed already.
    pub(super) fn stamp(&self, exchange: &Token, message: Message) -> Result<Message> {
        let asks = matches!(message.address(), Address::Service(_) | Address::Queue(_) | Address::Topic(_));
        let Some(name) = self.name.as_ref().filter(|_| asks) else { return Ok(message) };
        let has = |header| message.headers().get(header).is_some();
        if has(header::SIGNATURE) || (self.key.is_none() && has(header::ACTOR)) {
            return Ok(message);
        }
        let message = message.with(header::ACTOR, name.as_str())?;
        let Some(key) = &self.key else { return Ok(message) };
        let signed = Signed::make(key, exchange.as_str(), &message, now());
        message.with(header::SIGNATURE, signed.to_header())
    }
}

/// Milliseconds since 1970 by the clock of this machine.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
