//! The amqp transport: service, queue, topic, control and inbox over RabbitMQ (3.10 or later).
//!
//! The README of this crate says how each address is carried, what is promised, and which options a URI takes.

use commissaire::Driver;

// In reading order.
mod age;
mod bus;
mod delay;
mod durable;
#[cfg(test)]
mod fuzz;
mod intake;
mod link;
mod names;
mod options;
mod publish;
mod reader;
mod registry;
mod settle;
mod survey;
mod topology;
mod wire;

/// RabbitMQ, by TCP or TLS.
pub const DRIVER: Driver = Driver {
    name: "amqp",
    schemes: &["amqp", "amqps"],
    example: "amqp://user:password@127.0.0.1:5672/%2F?durability=strict",
    promises: bus::PROMISES,
    connect: |uri, options| Box::pin(bus::connect(uri, options)),
};
