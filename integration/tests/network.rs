//! The network between a broker and those who are on its bus fails in every way that it can: nothing that was
//! acknowledged is lost, and everything goes on by itself.

use std::time::Duration;

use commissaire_integration::{
    Blow, Cut, Kind, Lateness, Outcome, PATIENCE, Plan, Report, Site, Traffic, Way, beside, each_server,
    ensure, long, seed, within,
};
use futures_util::future::join_all;

use crate::health::{NOTICED, ready};

each_server!(programs_survive_a_blackhole);

/// Carries a plan out on each broker, side by side: most of the time they wait.
async fn on_each(plan: &Plan, over_tls: bool) -> Outcome<Vec<(Kind, Report)>> {
    let kinds = [Kind::Redis, Kind::Nats, Kind::Amqp];
    let reports = join_all(kinds.map(async |kind| {
        let site = if over_tls { Site::over_tls(kind).await } else { Site::on(kind).await };
        let mut site = site?.behind_proxy(plan.seed).await?;
        let report = plan.clone().run(&mut site).await?;
        println!("{}", serde_json::to_string(&report).unwrap_or_default());
        Outcome::Ok((kind, report))
    }));
    reports.await.into_iter().collect()
}

/// The same, and nothing was lost, and all went on in time.
async fn well_on_each(plan: &Plan, over_tls: bool) -> Outcome<Vec<(Kind, Report)>> {
    let reports = on_each(plan, over_tls).await?;
    for (kind, report) in &reports {
        ensure!(report.well(), "{kind:?}: {report:?}");
        for struck in &report.struck {
            // A length that was changed looks like silence.
            let silent = if matches!(struck.blow, Blow::Flip(_)) { NOTICED } else { Duration::ZERO };
            let limit = silent + kind.back() + Duration::from_millis(report.lateness);
            ensure!(struck.back() <= limit, "{kind:?} went on only after {:?}: {struck:?}", struck.back());
        }
    }
    Ok(reports)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_that_passes_nothing_is_noticed_and_all_goes_on_after_it() -> Outcome {
    let _beside = beside().await;
    let seconds = long("seconds of a blackhole", 20, 60);
    let one_way = long("seconds of a half-open network", 16, 60);
    let blows = vec![
        Blow::Blackhole(seconds),
        Blow::HalfOpen(Way::In, one_way),
        Blow::HalfOpen(Way::Out, one_way),
        Blow::Cut(Cut::Reset),
        Blow::Cut(Cut::Finish),
    ];
    for (kind, report) in well_on_each(&Plan::of(seed()?, blows), false).await? {
        let noticed = report.struck.first().and_then(|struck| struck.noticed).map(Duration::from_millis);
        let limit = NOTICED + Duration::from_millis(report.lateness);
        ensure!(noticed.is_some_and(|noticed| noticed <= limit), "{kind:?} noticed it after {noticed:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_are_cut_in_the_middle_of_what_they_say_lose_nothing() -> Outcome {
    let _beside = beside().await;
    let blows = long("times five cuts", 4, 40);
    let plan = Plan { rest: Duration::from_millis(5), ..Plan::of(seed()?, vec![Blow::Sever(5); blows]) };
    well_on_each(&plan, false).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_network_loses_nothing_and_brings_nothing_twice() -> Outcome {
    let _beside = beside().await;
    let seconds = long("seconds of each bad network", 4, 30);
    let blows = [
        Traffic { delay: Duration::from_millis(100), ..Traffic::default() },
        Traffic { rate: Some(8_000), ..Traffic::default() },
        Traffic { slice: Some(1), ..Traffic::default() },
        Traffic { delay: Duration::from_millis(50), slice: Some(7), ..Traffic::default() },
    ];
    let blows = blows.map(|traffic| Blow::Bad(traffic, seconds)).to_vec();
    for (kind, report) in well_on_each(&Plan::of(seed()?, blows), false).await? {
        ensure!(report.found.duplicates == 0, "{kind:?}: {report:?}");
        let dialled: u64 = report.struck.iter().map(|struck| struck.dialled).sum();
        ensure!(dialled == 0, "{kind:?}: connections were given up {dialled} times: {report:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bit_that_is_turned_over_breaks_a_connection_over_tls_and_nothing_else() -> Outcome {
    let _beside = beside().await;
    let blows = long("times three bits turned over", 2, 20);
    well_on_each(&Plan::of(seed()?, vec![Blow::Flip(3); blows]), true).await.map(drop)
}

/// What no transport promises without TLS: to see a bit that was turned over. It may change a message, or a key, or an
/// answer. On Redis and NATS the bus goes on all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bit_that_is_turned_over_stops_nobody_without_tls() -> Outcome {
    println!("excluded: without TLS no transport promises to see a bit that was turned over");
    let blows = long("times three bits turned over without TLS", 0, 10);
    if blows == 0 {
        return Ok(());
    }
    let _beside = beside().await;
    for (kind, report) in on_each(&Plan::of(seed()?, vec![Blow::Flip(3); blows]), false).await? {
        println!("{kind:?} with bits turned over: {:?}", report.found.breaches);
        let went_on = report.struck.len() == blows;
        if kind == Kind::Amqp {
            println!(
                "excluded: RabbitMQ without TLS need not go on within 30 s: {went_on}, {:?}",
                report.failure
            );
            continue;
        }
        ensure!(went_on, "{kind:?} did not go on: {:?}", report.failure);
    }
    Ok(())
}

async fn programs_survive_a_blackhole(kind: Kind) -> Outcome {
    let blackhole = long("a blackhole", Duration::from_secs(20), Duration::from_secs(60));
    let _beside = beside().await;
    let site = Site::on(kind).await?.behind_proxy(seed()?).await?;
    let proxy = site.proxy.as_ref().expect("it stands before the broker");
    let admin = site.place.path().join("admin.sock").display().to_string();
    let mut simple = site.service("simple", &["--admin", &admin]).await?;
    let call = async |code: &[i32], limit: Duration| {
        let order = site.cli(&["call", "simple.add", "[2, 3]", "--timeout", "5s"])?;
        let ended = within("a call", limit, order.run()).await??;
        ensure!(ended.code.is_some_and(|ended| code.contains(&ended)), "a call ended so: {ended:?}");
        Outcome::Ok(())
    };
    let lateness = Lateness::watch();
    ready(&admin, true, kind.back(), &lateness).await?;
    call(&[0], PATIENCE).await?;

    let begun = std::time::Instant::now();
    proxy.set(Traffic { stalled: true, ..Traffic::default() });
    let noticed = ready(&admin, false, NOTICED, &lateness);
    // Not connected (3) or no answer (4), by its time.
    let called = async { call(&[3, 4], Duration::from_secs(10)).await };
    let (noticed, called) = tokio::join!(noticed, called);
    noticed.and(called)?;
    tokio::time::sleep(blackhole.saturating_sub(begun.elapsed())).await;
    ensure!(!simple.has_ended(), "the service has ended: {:?}", simple.err());
    proxy.set(Traffic::default());
    ready(&admin, true, kind.back(), &lateness).await?;
    call(&[0], PATIENCE).await?;
    simple.terminate().await?.expect(0).map(drop)
}
