//! The storage service: keeps the records of Commissaire, tells what changed, and lends leases.
//!
//! * [`handler`]: the places where records are kept, behind one trait.
//! * [`routes`]: which model is kept in which of them.
//! * [`archive`]: all records in a file, and from one set of places to another.
//! * [`relay`]: announces what they have changed.
//! * [`owner`]: sees to it that no other places are on the bus.
//! * [`config`]: what can be configured.
//! * [`service`]: all of it, started and stopped together.

pub mod archive;
pub mod config;
pub mod handler;
mod methods;
pub mod owner;
pub mod relay;
pub mod routes;
pub mod service;

pub use config::StorageConfig;
pub use handler::embedded::Store;
pub use service::{PROGRAM, StorageService, start};
