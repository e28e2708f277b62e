//! Whole programs as a user runs them: started in a home of their own, read with bounds, gone when the test is over.
//!
//! A test makes a [`Place`], starts programs there ([`Place::order`]), and waits for what they say. What differs between
//! buses is a [`Broker`]; a test that is the same on all of them takes a [`Kind`] and is listed in [`each_bus!`].
//!
//! A [`Plan`] puts a load on a broker and hits it, or the network before it. Each [`Report`] is written into the folder that
//! COMMISSAIRE_REPORTS names; where not all was well the history of the run is kept as well.

mod alone;
mod blow;
mod broker;
mod callers;
mod campaign;
mod cluster;
mod disk;
mod fleet;
mod http;
mod itself;
mod measures;
mod place;
mod process;
mod programs;
mod report;
mod strain;
mod tls;

pub use alone::{alone, beside, left_out, long, seed, times};
pub use blow::{Blow, Struck};
pub use broker::{Broker, Kind, Site, join};
pub use campaign::{Plan, Report};
pub use cluster::{Cluster, ClusterKind, Sort};
pub use commissaire::testkit::{Cut, Failure, Lateness, Outcome, Server, Traffic, Way, until, within};
pub use disk::{Disk, slow_sync};
pub use fleet::{Command, Fleet};
pub use http::{Answer, get};
pub use itself::{Holdings, by_itself};
pub use measures::{Measures, resident_kib};
pub use place::Place;
pub use process::{Ended, Order, Process};
pub use rustix::process::Signal;
pub use strain::Strain;

use std::time::Duration;

/// How long anything may take that has no bound of its own: far more than it does, even on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Fails with the formatted reason unless the condition holds.
#[macro_export]
macro_rules! ensure {
    ($holds:expr, $($reason:tt)+) => {
        if !$holds {
            return Err($crate::Failure::new(format!($($reason)+)));
        }
    };
}

/// Makes a test of each function that takes a [`Kind`] for each bus: in modules `memory`, `redis`, `nats`, `amqp`.
#[macro_export]
macro_rules! each_bus {
    ($($promise:ident),+ $(,)?) => {
        $crate::on!(memory, Memory, $($promise),+);
        $crate::each_server!($($promise),+);
    };
}

/// The same for each bus that has a server, which can be killed: in modules `redis`, `nats`, `amqp`.
#[macro_export]
macro_rules! each_server {
    ($($promise:ident),+ $(,)?) => {
        $crate::on!(redis, Redis, $($promise),+);
        $crate::on!(nats, Nats, $($promise),+);
        $crate::on!(amqp, Amqp, $($promise),+);
    };
}

/// Makes a test of each function on one bus.
#[doc(hidden)]
#[macro_export]
macro_rules! on {
    ($module:ident, $kind:ident, $($promise:ident),+) => {
        mod $module {
            $(#[tokio::test]
            async fn $promise() -> $crate::Outcome {
                super::$promise($crate::Kind::$kind).await
            })+
        }
    };
}
