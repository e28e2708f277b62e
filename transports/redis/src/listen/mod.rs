//! Listening: one connection for each kind of waiting, shared by all subscriptions of that kind.

pub(crate) mod calls;
pub(crate) mod care;
pub(crate) mod entry;
pub(crate) mod gate;
pub(crate) mod intake;
pub(crate) mod listener;
pub(crate) mod pubsub;
pub(crate) mod reading;
mod served;
pub(crate) mod streams;
