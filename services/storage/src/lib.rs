//! The storage service: keeps the records of Commissaire, tells what changed, and lends leases.
//!
//! * [`store`]: the embedded store.
//! * [`relay`]: announces what the store has changed.
//! * [`owner`]: sees to it that the store is the only one on its bus.
//! * [`config`]: what can be configured.
//! * [`service`]: all of it, started and stopped together.

pub mod config;
mod methods;
pub mod owner;
pub mod relay;
pub mod service;
pub mod store;

pub use config::StorageConfig;
pub use service::{PROGRAM, StorageService, start};
pub use store::Store;
