//! A load on a bus that is well, and on one that is not.

use std::{sync::Arc, time::Duration};

use commissaire::{
    Bus, BusOptions, Key,
    testkit::{ChaosBus, Fault, Findings, History, Load, Outcome, Rules},
};

/// How long nothing may happen: short only where that may be how a fault shows.
fn patience(fault: Option<Fault>) -> Duration {
    Duration::from_secs(if fault.is_some() { 2 } else { 30 })
}

async fn run(fault: Option<Fault>) -> (Outcome, Findings) {
    let bus = commissaire_memory::DRIVER;
    let bus = (bus.connect)("memory://".parse().unwrap(), BusOptions::default()).await.unwrap();
    let bus: Arc<dyn Bus> = match fault {
        Some(fault) => Arc::new(ChaosBus::new(bus, fault)),
        None => bus,
    };
    let history = Arc::new(History::default());
    let load = Load { failing: 5, ..Load::new(Key::new("jobs.load").unwrap(), 11, 2_000) };
    let outcome = load.run(&[bus], &history, patience(fault), async { Ok(()) }).await;
    let rules = Rules { prefetch: load.prefetch.into(), ..Rules::default() };
    (outcome, history.check(&rules))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_that_was_acknowledged_is_settled() {
    let (outcome, found) = run(None).await;
    outcome.unwrap();
    assert!(found.well(), "{found:?}");
    assert!(found.published >= 2_000 && found.duplicates == 0, "{found:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bus_that_loses_is_found_out() {
    let (outcome, found) = run(Some(Fault::Loses)).await;
    assert!(outcome.is_err());
    assert!(found.breaches.contains_key("lost"), "{found:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bus_that_doubles_is_found_out() {
    let (_, found) = run(Some(Fault::Doubles)).await;
    assert!(found.breaches.contains_key("duplicates"), "{found:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bus_that_grasps_is_found_out() {
    let (_, found) = run(Some(Fault::Grasps)).await;
    assert!(found.breaches.contains_key("prefetch"), "{found:?}");
}
