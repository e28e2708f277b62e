//! The amqp transport: service, queue, topic, control and inbox over RabbitMQ (3.10 or later).
//!
//! The README of this crate says how each address is carried, what is promised, and which options a URI takes.

use commissaire::Driver;

// In reading order.
mod bus;
mod options;
mod names;
mod wire;
mod link;
mod topology;
mod publish;
mod reader;
mod intake;
mod settle;
mod delay;
mod age;
mod durable;
mod registry;
mod survey;

/// RabbitMQ, by TCP or TLS.
pub const DRIVER: Driver = Driver {
    name: "amqp",
    schemes: &["amqp", "amqps"],
    example: "amqp://user:password@127.0.0.1:5672/%2F?durability=strict",
    promises: bus::PROMISES,
    connect: |uri, options| Box::pin(bus::connect(uri, options)),
};
