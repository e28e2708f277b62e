//! The NATS transport: calls, control and replies over core NATS, queues and topics over JetStream (nats-server 2.9 or
//! later).
//!
//! The README of this crate says how each address is carried, what is promised, and which options a URI takes.

use commissaire::Driver;

// In reading order.
mod bus;
mod call;
mod clock;
mod declare;
mod door;
mod events;
mod fault;
mod fitness;
#[cfg(test)]
mod fuzz;
mod hand;
mod js;
mod link;
mod listen;
mod mux;
mod names;
mod options;
mod publish;
mod refused;
mod registry;
mod settle;
mod survey;

/// NATS, by TCP or TLS.
pub const DRIVER: Driver = Driver {
    name: "nats",
    schemes: &["nats", "tls"],
    example: "nats://user:password@127.0.0.1:4222?durability=strict",
    promises: bus::PROMISES,
    connect: |uri, options| Box::pin(bus::connect(uri, options)),
};
