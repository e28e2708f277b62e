//! RabbitMQ through lapin, as the bus needs it: everything bounded, every message told right what became of it.
//!
//! lapin's own recovery is not used: a connection that breaks is given up, and `link` makes another.

mod ack;
mod channel;
mod confirm;
mod connection;
mod dial;
mod ears;
mod fault;
#[cfg(test)]
pub(crate) mod fuzz;
pub(crate) mod method;
mod properties;
mod start;
pub(crate) mod value;

pub(crate) use channel::Channel;
pub(crate) use confirm::Verdict;
pub(crate) use connection::Connection;
pub(crate) use dial::{Dialer, Login};
pub(crate) use ears::{Delivered, Ears, Silent};
pub(crate) use fault::Fault;
pub(crate) use method::Answer;
pub(crate) use properties::Properties;

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker},
};

/// Polls once: lapin puts a frame on its way when a future is polled first, and everything after is waiting.
fn begin<F: Future + ?Sized>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}
