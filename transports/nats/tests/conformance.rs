//! The conformance suite over NATS, and what holds on NATS alone.

#![allow(clippy::unwrap_used)]

mod alone;
mod programs;

// With no more rights than its user is told to be given.
commissaire::conformance!(alone::privilege::services, commissaire_nats::DRIVER.promises);
