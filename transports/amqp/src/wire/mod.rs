//! AMQP 0-9-1 as RabbitMQ speaks it: a client of just what the bus needs.

mod ack;
mod channel;
mod confirm;
mod connection;
mod dial;
mod fault;
mod handshake;
pub(crate) mod method;
mod properties;
pub(crate) mod value;

pub(crate) use channel::{Channel, Delivered, Ears, Silent};
pub(crate) use confirm::Verdict;
pub(crate) use connection::Connection;
pub(crate) use dial::{Dialer, Login};
pub(crate) use fault::Fault;
pub(crate) use method::Answer;
pub(crate) use properties::Properties;
