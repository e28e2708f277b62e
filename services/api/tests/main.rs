//! Tests of the records and contracts.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod check;
mod contract;
mod table;
