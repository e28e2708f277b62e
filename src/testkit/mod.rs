//! The conformance suite that every transport passes, and what tests of the bus need beside it. Feature `testkit`.
//!
//! A transport's own test is a page: how to reach a bus, and what that bus promises.
//!
//! ```no_run
//! use commissaire::testkit::{Failure, Target};
//!
//! async fn memory() -> Result<Target, Failure> {
//!     Ok(Target::in_process(commissaire_memory::DRIVER, "memory://"))
//! }
//!
//! commissaire::conformance!(memory, commissaire_memory::DRIVER.promises);
//! # fn main() {}
//! ```
//!
//! [`conformance!`](crate::conformance) makes one `#[test]` of each of the [`SCENARIOS`]. A scenario that the bus cannot
//! run, by its own guarantees, says so in a printed line and is no silent success: a tidy test holds that each runs on
//! two transports at least. That the scenarios fail when they should is shown with a [`ChaosBus`].
//!
//! [`differential`] runs random programs on the same target, and compares what comes of them with a model of the contract.
//! [`simulate`] runs clients and services over a model of a broker, in a time that is not real, with faults that follow
//! from a seed. [`fuzz`] says what must hold for any bytes from outside.
//!
//! | variable | meaning |
//! |---|---|
//! | `COMMISSAIRE_LONG=1` | run the scenarios that take minutes as well |
//! | `COMMISSAIRE_SEED` | the seed of everything random, as a failure prints it |
//! | `COMMISSAIRE_TEST_DIR` | a folder for servers' files; the processes are recorded in its `pids/` |

mod certificates;
mod chaos;
mod differential;
pub mod fuzz;
mod history;
mod load;
mod model;
mod process;
mod program;
mod proxy;
mod reader;
mod scenario;
mod scenarios;
mod secure;
mod server;
mod sim;
mod target;
mod wait;

pub use certificates::Certificates;
pub use chaos::{ChaosBus, Fault};
pub use differential::{Differential, differential};
pub use history::{Breach, Event, Findings, History, Rules, Seen, check as check_events};
pub use load::Load;
pub use process::Process;
pub use proxy::{Cut, Mishap, Proxy, Traffic, Way};
pub use reader::Reader;
pub use scenario::{Need, SCENARIOS, Scenario, check, run};
pub use secure::Secure;
pub use server::Server;
pub use sim::{Plant, simulate, simulation};
pub use target::{Stage, Target};
pub use wait::{Failure, Lateness, Outcome, until, within};
