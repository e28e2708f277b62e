//! Retries that rest hold up nobody.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use commissaire::{Address, Bus, Delivery, Key, Message, Source, Subscription};
use commissaire_integration::{
    Failure, Kind, Lateness, Outcome, PATIENCE, Site, alone, each_bus, ensure, long, within,
};
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::{sync::Semaphore, task::JoinSet};

each_bus!(fresh_jobs_pass_those_that_rest);

/// How many are published at one time.
const AT_ONCE: usize = 32;
/// How many fresh ones pass, and how many of them at one time: no more than a reader has in hand, so that none waits
/// behind others of them.
const FRESH: usize = 1_000;
const PASSING: usize = 16;
/// How late the slowest of a hundred of them may be.
const SOON: Duration = Duration::from_secs(1);

type Times = Arc<Mutex<HashMap<String, Instant>>>;

fn jobs() -> Outcome<Key> {
    Ok(Key::new("jobs.resting")?)
}

/// Publishes so many jobs, each once there is `room` for it; when each was begun.
async fn publish(bus: &Arc<dyn Bus>, kind: &str, count: usize, times: &Times, room: &Semaphore) -> Outcome {
    stream::iter(0..count)
        .map(|number| async move {
            room.acquire().await.map_err(|_| Failure::new("there is no room any more"))?.forget();
            let body = format!("{kind} {number}");
            let message = Message::new(Address::Queue(jobs()?), body.clone())?;
            times.lock().unwrap_or_else(PoisonError::into_inner).insert(body, Instant::now());
            bus.publish(message).await.map_err(Failure::from)
        })
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await
}

async fn next(queue: &mut Subscription) -> Outcome<Delivery> {
    let delivery = within("the next job", PATIENCE, queue.next_delivery()).await?;
    delivery.ok_or_else(|| Failure::new("the subscription ended"))
}

/// Publishes the fresh ones and takes them out; the time that 99 of 100 needed at the most.
async fn pass(bus: &Arc<dyn Bus>, queue: &mut Subscription) -> Outcome<Duration> {
    let (times, room) = (Times::default(), Arc::new(Semaphore::new(PASSING)));
    let publishing = publish(bus, "fresh", FRESH, &times, &room);
    let taking = async {
        let (mut took, mut settling) = (Vec::new(), JoinSet::new());
        while took.len() < FRESH {
            let delivery = next(queue).await?;
            let body = String::from_utf8_lossy(delivery.message().body()).into_owned();
            let begun = times.lock().unwrap_or_else(PoisonError::into_inner).remove(&body);
            let begun = begun.ok_or_else(|| Failure::new(format!("{body:?} came, or came again")))?;
            took.push(begun.elapsed());
            let room = room.clone();
            settling.spawn(async move {
                let settled = delivery.ack().await;
                room.add_permits(1);
                settled
            });
        }
        while let Some(settled) = settling.join_next().await {
            settled??;
        }
        Ok(took)
    };
    let ((), mut took) = futures_util::try_join!(publishing, taking)?;
    took.sort_unstable();
    Ok(took[took.len() * 99 / 100])
}

async fn fresh_jobs_pass_those_that_rest(kind: Kind) -> Outcome {
    let _machine = alone().await;
    let resting = long("retries that rest", 3_000, 50_000);
    let site = Site::on(kind).await?;
    let (bus, works) = (site.join().await?, site.join().await?);
    let mut queue = works.subscribe(Source::Queue(jobs()?), 256).await?;
    let begun = Instant::now();
    let times = Times::default();
    let room = Semaphore::new(resting);
    let publishing = publish(&bus, "resting", resting, &times, &room);
    let failing = async {
        let mut settling = JoinSet::new();
        for _ in 0..resting {
            let delivery = next(&mut queue).await?;
            settling.spawn(async move { delivery.nack(Duration::from_secs(3_600), "later").await });
        }
        while let Some(settled) = settling.join_next().await {
            settled??;
        }
        Ok(())
    };
    futures_util::try_join!(publishing, failing)?;
    println!("{resting} rest after {:?}", begun.elapsed());

    let lateness = Lateness::watch();
    let there = pass(&bus, &mut queue).await?;
    works.close().await?;
    // Whoever comes now has not heard of those that rest.
    let works = site.join().await?;
    let mut queue = works.subscribe(Source::Queue(jobs()?), 16).await?;
    let new = pass(&bus, &mut queue).await?;
    println!("99 of 100 within {there:?}, by a new reader {new:?}");
    for took in [there, new] {
        ensure!(took <= SOON + lateness.worst(), "99 of 100 took {took:?}");
    }
    works.close().await?;
    Ok(bus.close().await?)
}
