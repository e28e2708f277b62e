//! The redis transport: service, queue, topic, control and inbox over one Redis server (7.0 or later).
//!
//! The README of this crate says how each address is carried, what is promised, and which options a URI takes.

use commissaire::Driver;
use commissaire_redis_link::{fitness, lines, link, value, wire};

// In reading order.
mod bus;
mod durable;
#[cfg(test)]
mod fuzz;
mod held;
mod keys;
mod listen;
mod options;
mod publish;
mod script;
mod settle;
mod survey;

/// Redis, by TCP, TLS or Unix socket.
pub const DRIVER: Driver = Driver {
    name: "redis",
    schemes: &["redis", "rediss", "redis+unix"],
    example: "redis://user:password@127.0.0.1:6379/0?durability=strict",
    promises: bus::PROMISES,
    connect: |uri, options| Box::pin(bus::connect(uri, options)),
};
