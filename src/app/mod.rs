//! What every program does: flags, configuration, logging, signals, health, and an exit code that scripts can use.

mod admin;
mod change;
mod exit;
mod expiry;
mod finish;
mod logging;
mod look;
mod open;
mod place;
mod process;
mod program;
mod serve;
mod services;
mod start;
mod supervisor;

pub use admin::{Admin, Health};
pub use exit::Exit;
pub use expiry::SubscriptionExpired;
pub use finish::{Failure, Instance, until_told};
pub use logging::Verbosity;
pub use look::{LookFlags, print_config};
pub use open::{open_bus, unmet};
pub use place::{BUS_SOCKET, announce_bus, find_bus, state_dir, withdraw_bus};
pub use process::forbid_core_dumps;
pub use program::{Program, run};
pub use serve::{Host, serve};
pub use services::Services;
pub use start::{DEFAULT_GRACE, Start, data_dir};
