//! Instances of a service share its calls out: each is carried out once, whoever dies.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use commissaire::{Client, Error, Result};
use commissaire_integration::{
    Failure, Kind, Measures, Outcome, Process, Site, alone, each_server, ensure, until, within,
};
use commissaire_simple::{Add, Sum};
use tokio::task::JoinSet;

each_server!(
    every_call_is_carried_out_once_and_every_instance_takes_its_share,
    an_instance_that_is_killed_takes_only_the_calls_with_it_that_it_had,
);

const CALLS: usize = 10_000;
const CALLERS: usize = 64;
/// How many calls an instance takes at one time.
const AT_ONCE: usize = commissaire::service::DEFAULT_CONCURRENCY as usize;
/// How long a call may take; one whose instance has died takes so long.
const LIMIT: Duration = Duration::from_secs(5);
/// How long all of them together may take.
const ALL: Duration = Duration::from_secs(120);

/// Three instances, and where each tells its metrics.
async fn three(site: &Site) -> Outcome<Vec<(String, Process)>> {
    let mut instances = Vec::new();
    for number in 1..=3 {
        let admin = site.place.path().join(format!("admin-{number}.sock")).display().to_string();
        let instance = site.service("simple", &["--admin", &admin]).await?;
        instances.push((admin, instance));
    }
    Ok(instances)
}

/// `count` calls from all callers together. `done` counts them; returns the outcome of each.
async fn calls(site: &Site, count: usize, done: Arc<AtomicUsize>) -> Outcome<Vec<Result<(), Error>>> {
    let bus = site.join().await?;
    let client = Client::new(bus.clone()).with_timeout(LIMIT);
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let (client, done) = (client.clone(), done.clone());
        callers.spawn(async move {
            let mut outcomes = Vec::new();
            for number in (caller..count).step_by(CALLERS) {
                let x = i64::try_from(number).unwrap_or_default();
                let outcome = client.call(Add, &Sum { x, y: 1 }).await;
                done.fetch_add(1, Ordering::Relaxed);
                outcomes.push(match outcome {
                    Ok(sum) if sum == x + 1 => Ok(()),
                    Ok(sum) => Err(Error::malformed(format!("{x} + 1 = {sum}"))),
                    Err(error) => Err(error),
                });
            }
            outcomes
        });
    }
    let outcomes = within("all calls", ALL, callers.join_all()).await?;
    bus.close().await?;
    Ok(outcomes.into_iter().flatten().collect())
}

/// How many calls the instance has carried out.
async fn carried_out(admin: &str) -> Outcome<f64> {
    Ok(Measures::of(admin).await?.sum("calls_total", &[("method", "simple.add")]))
}

async fn every_call_is_carried_out_once_and_every_instance_takes_its_share(kind: Kind) -> Outcome {
    let _machine = alone().await;
    let site = Site::on(kind).await?;
    let instances = three(&site).await?;
    let outcomes = calls(&site, CALLS, Arc::default()).await?;
    if let Some(error) = outcomes.into_iter().find_map(Result::err) {
        return Err(Failure::new(format!("a call failed: {error:?}")));
    }
    let mut shares = Vec::new();
    for (admin, _) in &instances {
        shares.push(carried_out(admin).await?);
    }
    println!("shares: {shares:?}");
    ensure!(shares.iter().sum::<f64>() == CALLS as f64, "{CALLS} calls were carried out as {shares:?}");
    ensure!(shares.iter().all(|share| *share >= CALLS as f64 / 50.0), "not shared out: {shares:?}");
    for (_, instance) in instances {
        instance.terminate().await?.expect(0)?;
    }
    Ok(())
}

async fn an_instance_that_is_killed_takes_only_the_calls_with_it_that_it_had(kind: Kind) -> Outcome {
    let _machine = alone().await;
    let site = Site::on(kind).await?;
    let mut instances = three(&site).await?;
    let done = Arc::new(AtomicUsize::new(0));
    let (admin, victim) = instances.remove(1);
    let killing = async {
        until("half of the calls are done", ALL, async || done.load(Ordering::Relaxed) >= CALLS / 2).await?;
        let had = carried_out(&admin).await?;
        victim.kill().await?;
        Outcome::Ok(had)
    };
    let (outcomes, had) = tokio::join!(calls(&site, CALLS, done.clone()), killing);
    let (outcomes, had) = (outcomes?, had?);
    ensure!(had > 0.0, "the one that was killed had done nothing");
    let failed: Vec<Error> = outcomes.into_iter().filter_map(Result::err).collect();
    println!("{} of {CALLS} calls failed with the instance that had carried out {had}", failed.len());
    ensure!(failed.len() <= AT_ONCE, "{} calls failed with one instance: {:?}", failed.len(), failed.first());
    for error in &failed {
        ensure!(error.may_have_executed(), "a call failed that nobody had taken: {error:?}");
    }

    let after = calls(&site, CALLS / 20, Arc::default()).await?;
    if let Some(error) = after.into_iter().find_map(Result::err) {
        return Err(Failure::new(format!("a call failed with an instance that was long dead: {error:?}")));
    }
    let mut rest = 0.0;
    for (admin, instance) in instances {
        rest += carried_out(&admin).await?;
        instance.terminate().await?.expect(0)?;
    }
    // Those that the dead one answered after it was asked how many are in neither number.
    let all = (CALLS + CALLS / 20) as f64;
    ensure!(rest + had <= all, "{all} calls were carried out as {rest} and {had}");
    Ok(())
}
