//! The memory transport: a bus within one process, which other processes can join through a Unix socket.
//!
//! `memory://` keeps everything in this process. `memory://?listen=/path/bus.sock` also shares it on that socket, and
//! `unix:///path/bus.sock` joins it from another process. See this crate's README for what it promises.

mod bus;
mod hub;
mod ledger;
mod line;
mod options;
mod settle;
mod survey;
mod unix;

pub use options::{DRIVER, UNIX_DRIVER};
