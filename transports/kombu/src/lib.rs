//! The kombu transport: service, queue, topic, control and inbox on the lists that programs written with Kombu use in Redis,
//! so that theirs and ours share one bus.
//!
//! The README of this crate says how each address is carried, what is promised, and which options a URI takes.

use commissaire::Driver;
use commissaire_redis_link::{fitness, lines, link, value, wire};

// In reading order.
mod bindings;
mod body;
mod bus;
mod care;
mod durable;
mod ears;
mod held;
mod letter;
mod listen;
mod names;
mod options;
mod publish;
mod replies;
mod script;
mod survey;
mod tap;

/// Redis as Kombu uses it, by TCP, TLS or Unix socket.
pub const DRIVER: Driver = Driver {
    name: "kombu",
    schemes: &["kombu+redis", "kombu+rediss", "kombu+redis+socket"],
    example: "kombu+redis://user:password@127.0.0.1:6379/0",
    promises: bus::PROMISES,
    connect: |uri, options| Box::pin(bus::connect(uri, options)),
};
