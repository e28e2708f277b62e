//! Which tests run, how long, and beside what.

use std::io::Write;

use commissaire::testkit::{Failure, Outcome};
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

static MACHINE: RwLock<()> = RwLock::const_new(());

/// Lets one test at a time load the machine. Held until the end of the test.
pub async fn alone() -> RwLockWriteGuard<'static, ()> {
    MACHINE.write().await
}

/// Lets tests run side by side that wait most of the time, and none beside them that loads the machine.
pub async fn beside() -> RwLockReadGuard<'static, ()> {
    MACHINE.read().await
}

pub(crate) fn asked() -> bool {
    std::env::var_os("COMMISSAIRE_LONG").is_some_and(|value| value == "1")
}

/// Whether the test `name` is left out, which takes long on one bus and runs on others anyway; says so.
pub fn left_out(name: &str) -> bool {
    if !asked() {
        // Not by `eprintln!`, which the test harness would swallow.
        let _ = writeln!(std::io::stderr(), "{name}: excluded: needs time: COMMISSAIRE_LONG=1");
    }
    !asked()
}

/// `long` where COMMISSAIRE_LONG=1 is set, else `short`; says which, and what it counts.
pub fn long<T: std::fmt::Debug>(what: &str, short: T, long: T) -> T {
    let asked = asked();
    let chosen = if asked { long } else { short };
    let more = if asked { "" } else { " (more with COMMISSAIRE_LONG=1)" };
    // Not by `eprintln!`, which the test harness would swallow.
    let _ = writeln!(std::io::stderr(), "{what}: {chosen:?}{more}");
    chosen
}

/// The seed of everything random in a test: COMMISSAIRE_SEED, or a new one; printed, so that a failure shows it.
pub fn seed() -> Outcome<u64> {
    let seed = match std::env::var("COMMISSAIRE_SEED") {
        Ok(text) => {
            text.parse().map_err(|_| Failure::new(format!("COMMISSAIRE_SEED={text:?} is no number")))?
        }
        Err(_) => rand::random(),
    };
    println!("COMMISSAIRE_SEED={seed}");
    Ok(seed)
}

/// How many times as many messages and blows a campaign has: COMMISSAIRE_TIMES, or one.
pub fn times() -> Outcome<usize> {
    let Ok(text) = std::env::var("COMMISSAIRE_TIMES") else { return Ok(1) };
    text.parse().map_err(|_| Failure::new(format!("COMMISSAIRE_TIMES={text:?} is no number")))
}
