//! Tests of the SSH engine against a real sshd, and against servers that are none.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod credentials;
mod failures;
mod files;
mod host_keys;
mod jumps;
mod os;
mod scripts;
mod sshd;
