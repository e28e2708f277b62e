//! A memory bus shared with other processes through a Unix socket of mode 0600.

mod client;
mod frame;
mod keep;
mod link;
mod server;
mod session;
mod settle;

pub(crate) use client::join;
pub(crate) use server::Server;
