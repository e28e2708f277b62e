//! Work that the dedup layer guards is run once, however often its broker is killed.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use commissaire::{Client, Context, RpcError, Service, What, service::DEFAULT_DEDUP};
use commissaire_integration::{
    Failure, Kind, Outcome, PATIENCE, Site, alone, each_server, ensure, long, seed, until,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde::{Deserialize, Serialize};
use tokio::{task::JoinSet, time::sleep};

each_server!(no_job_runs_twice_however_often_the_broker_is_killed);

/// A brick to be laid.
#[derive(Debug, Serialize, Deserialize)]
struct Brick {
    number: u32,
}

commissaire::job! {
    /// Lays a brick.
    Lay = "jobs.lay": Brick
}

/// How often which brick was laid.
type Wall = Mutex<HashMap<u32, u32>>;

async fn lay(wall: Arc<Wall>, brick: Brick, _: Context) -> Result<(), RpcError> {
    *wall.lock().unwrap_or_else(PoisonError::into_inner).entry(brick.number).or_default() += 1;
    sleep(Duration::from_millis(u64::from(brick.number % 100))).await;
    Ok(())
}

/// Leaves jobs until `over`. Returns the numbers of those that the broker acknowledged.
async fn deliver(client: Client, next: Arc<AtomicU32>, over: Arc<AtomicBool>) -> Vec<u32> {
    let mut acknowledged = Vec::new();
    while !over.load(Ordering::Acquire) {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if client.enqueue(Lay, &Brick { number }).await.is_ok() {
            acknowledged.push(number);
        }
        sleep(Duration::from_millis(10)).await;
    }
    acknowledged
}

async fn no_job_runs_twice_however_often_the_broker_is_killed(kind: Kind) -> Outcome {
    let _machine = alone().await;
    let kills = long("kills while jobs are guarded", 2, 10);
    let mut random = StdRng::seed_from_u64(seed()?);
    let mut site = Site::alone(kind).await?;
    let (asking, working) = (site.join().await?, site.join().await?);
    let wall = Arc::new(Wall::default());
    let layers = Service::new("layers", wall.clone())
        .job(Lay, lay)
        .dedup(DEFAULT_DEDUP)
        .start(working.clone())
        .await?;

    let (next, over) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(false)));
    let mut delivering = JoinSet::new();
    for _ in 0..16 {
        delivering.spawn(deliver(Client::new(asking.clone()), next.clone(), over.clone()));
    }
    for _ in 0..kills {
        sleep(Duration::from_millis(random.random_range(500..2_500))).await;
        let server = site.broker.server()?;
        server.kill();
        sleep(Duration::from_millis(random.random_range(0..1_000))).await;
        server.restart().await?;
    }
    sleep(Duration::from_secs(1)).await;
    over.store(true, Ordering::Release);
    let acknowledged: Vec<u32> = delivering.join_all().await.into_iter().flatten().collect();
    let laid = || wall.lock().unwrap_or_else(PoisonError::into_inner).clone();
    until("every brick is laid", PATIENCE * 3, async || {
        let laid = laid();
        acknowledged.iter().all(|number| laid.contains_key(number))
    })
    .await?;
    // What comes again comes before the broker holds nothing more.
    let mut told = String::new();
    let none_left = until("the broker has no brick left", PATIENCE * 3, async || {
        let Ok(survey) = asking.survey().await else { return false };
        told = format!("{:?}", survey.declared);
        let jobs = survey.declared.iter().filter(|declared| matches!(declared.what, What::Queue(_)));
        jobs.flat_map(|jobs| [jobs.waiting, jobs.in_hand, jobs.resting]).flatten().all(|left| left == 0)
    });
    none_left.await.map_err(|failure| failure.in_step(told))?;
    let twice: Vec<_> = laid().into_iter().filter(|(_, times)| *times > 1).collect();
    println!(
        "{} jobs acknowledged, {} tried, {kills} kills",
        acknowledged.len(),
        next.load(Ordering::Relaxed)
    );
    ensure!(twice.is_empty(), "laid more than once: {twice:?}");
    ensure!(acknowledged.len() > 100, "only {} jobs were acknowledged", acknowledged.len());
    layers.drain(Duration::from_secs(1)).await;
    asking.close().await?;
    working.close().await.map_err(Failure::from)
}
