//! The memory transport: the conformance suite, and what is its own.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod conformance;
mod hub;
mod programs;
mod socket;
