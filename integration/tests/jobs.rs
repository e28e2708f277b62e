//! Work that is left for a service: done once someone can, tried again, and in the end a dead letter.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use commissaire::{Backoff, Context, Key, Metrics, Origin, RetryPolicy, RpcError, Service, Source};
use commissaire_integration::{
    Kind, Lateness, Measures, Outcome, PATIENCE, Site, each_bus, ensure, until, within,
};
use serde::{Deserialize, Serialize};

each_bus!(a_job_is_tried_again_with_growing_rests_and_then_a_dead_letter);

/// A wall to be painted.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wall {
    /// Which.
    number: u32,
    /// How many runs fail.
    failures: u32,
}

commissaire::job! {
    /// Paints a wall.
    pub(crate) Paint = "jobs.paint": Wall
}

/// When which wall was tried.
type Runs = Mutex<HashMap<u32, Vec<Instant>>>;

async fn paint(runs: Arc<Runs>, wall: Wall, context: Context) -> Result<(), RpcError> {
    let mut runs = runs.lock().unwrap_or_else(PoisonError::into_inner);
    runs.entry(wall.number).or_default().push(Instant::now());
    if context.attempt <= wall.failures {
        return Err(RpcError::new(1, "the paint has run out"));
    }
    Ok(())
}

async fn a_job_is_tried_again_with_growing_rests_and_then_a_dead_letter(kind: Kind) -> Outcome {
    const REST: Duration = Duration::from_millis(400);
    let site = Site::on(kind).await?;
    // Nobody paints yet: the jobs wait.
    for job in [
        r#"{"number": 1, "failures": 0}"#,
        r#"{"number": 2, "failures": 2}"#,
        r#"{"number": 3, "failures": 99}"#,
        r#"{"number": 4, "colour": "blue"}"#,
    ] {
        let ended = site.cli(&["enqueue", "jobs.paint", job])?.run().await?.expect(0)?;
        ensure!(ended.out.trim().len() == 36, "the id is {:?}", ended.out);
    }
    let bus = site.join().await?;
    let runs = Arc::new(Runs::default());
    let metrics = Metrics::default();
    let policy = RetryPolicy {
        max_attempts: 3,
        max_crashes: 3,
        backoff: Backoff { first: REST, most: Duration::from_secs(60) },
        ..RetryPolicy::default()
    };
    let lateness = Lateness::watch();
    let painter = Service::new("painter", runs.clone())
        .job(Paint, paint)
        .retry(policy)
        .metrics(metrics.clone())
        .start(bus.clone())
        .await?;

    let queue = Key::new("jobs.paint")?;
    let mut dead = bus.subscribe(Source::DeadLetters(Origin::Queue(queue)), 4).await?;
    let mut causes = HashMap::new();
    for _ in 0..2 {
        let letter = within("a dead letter", PATIENCE, dead.next_delivery()).await?;
        let letter = letter.ok_or_else(|| commissaire_integration::Failure::new("the dead letters ended"))?;
        let message = letter.message();
        let body: serde_json::Value = serde_json::from_slice(message.body()).map_err(std::io::Error::from)?;
        let header = |name| message.headers().get(name).unwrap_or_default().to_owned();
        let number = body["params"]["number"].as_u64().unwrap_or(0);
        causes.insert(number, (header(commissaire::header::DEAD), header(commissaire::header::LAST_FAILURE)));
        letter.ack().await?;
    }
    let (cause, reason) = &causes[&3];
    ensure!(cause == "attempts" && reason.contains("the paint has run out"), "wall 3: {causes:?}");
    let (cause, reason) = &causes[&4];
    ensure!(cause == "rejected" && reason.contains("colour"), "wall 4: {causes:?}");

    let tried = |number| runs.lock().unwrap_or_else(PoisonError::into_inner).get(&number).cloned();
    until("wall 2 is painted", PATIENCE, async || tried(2).is_some_and(|runs| runs.len() == 3)).await?;
    for (number, times) in [(1, 1), (2, 3), (3, 3), (4, 0)] {
        let runs = tried(number).unwrap_or_default();
        ensure!(runs.len() == times, "wall {number} was tried {} times", runs.len());
        for (at, pair) in runs.windows(2).enumerate() {
            // A rest is shortened by chance by up to a half, never longer.
            let (rest, most) = (pair[1] - pair[0], REST * (1 << at));
            let late = Duration::from_millis(250).max(most / 10) + lateness.worst();
            ensure!(rest >= most / 2 && rest <= most + late, "wall {number} rested {rest:?}, most {most:?}");
        }
    }
    let source = "queue jobs.paint";
    let counted = Measures::read(&metrics.render())?;
    for (outcome, times) in [("ok", 2.0), ("retry", 4.0), ("dead", 2.0)] {
        let found = counted.sum("deliveries_total", &[("source", source), ("outcome", outcome)]);
        ensure!(found == times, "{outcome} was counted {found} times");
    }
    painter.drain(Duration::from_secs(1)).await;
    Ok(bus.close().await?)
}
