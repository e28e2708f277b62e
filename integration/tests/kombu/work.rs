//! One work queue, with a consumer written with Kombu and one of ours: they share it, and what one leaves the other gets.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use commissaire::{Address, Key, Message, Source};
use commissaire_integration::{Failure, Outcome, PATIENCE, Process, ensure, until, within};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::{publish, ready, site};

const JOBS: usize = 600;
/// How long each consumer works on one.
const WORK: Duration = Duration::from_millis(3);

/// A Kombu consumer of `jobs.shared`.
fn work(task: Value) -> Value {
    let mut whole = json!({"patterns": ["jobs.shared"], "queue": "jobs.shared"});
    if let (Some(whole), Value::Object(task)) = (whole.as_object_mut(), task) {
        whole.extend(task);
    }
    whole
}

/// The numbers of the jobs that it acknowledged.
fn acked(process: &Process) -> Vec<u64> {
    let lines = process.out().into_iter().filter_map(|line| serde_json::from_str::<Value>(&line).ok());
    lines.filter_map(|told| told["acked"]["number"].as_u64()).collect()
}

fn number(message: &Message) -> Outcome<u64> {
    let body: Value = serde_json::from_slice(message.body()).map_err(std::io::Error::from)?;
    body["number"].as_u64().ok_or_else(|| Failure::new(format!("a job came as {body}")))
}

#[tokio::test]
async fn a_kombu_consumer_and_one_of_ours_share_a_queue() -> Outcome {
    let mut site = site("").await?;
    let bus = site.join().await?;
    let mut ours = bus.subscribe(Source::Queue(Key::new("jobs.shared")?), 1).await?;
    // Both work for a while on each: one that only waits is served first by the server, and that is always Kombu's.
    let theirs = ready(&mut site, "listen", &work(json!({"hold": WORK.as_secs_f64()}))).await?;
    // Half of them are enqueued by ours, half by a Kombu program.
    for number in 0..JOBS / 2 {
        let body = json!({"number": number}).to_string();
        bus.publish(Message::new(Address::Queue(Key::new("jobs.shared")?), body)?).await?;
    }
    let mut times: BTreeMap<u64, u32> = BTreeMap::new();
    let mut mine = 0;
    let rest: Vec<(&str, Value)> =
        (JOBS / 2..JOBS).map(|number| ("jobs.shared", json!({"number": number}))).collect();
    let start = Instant::now();
    let working = async {
        loop {
            match tokio::time::timeout(Duration::from_millis(300), ours.next_delivery()).await {
                Ok(Some(delivery)) => {
                    *times.entry(number(delivery.message())?).or_default() += 1;
                    mine += 1;
                    sleep(WORK).await;
                    delivery.ack().await?;
                }
                _ if mine + acked(&theirs).len() >= JOBS => return Outcome::Ok(()),
                _ => ensure!(start.elapsed() < PATIENCE * 2, "{mine} and {} of {JOBS}", acked(&theirs).len()),
            }
        }
    };
    futures_util::try_join!(working, publish(&mut site, &rest))?;
    let other = acked(&theirs);
    println!("ours took {mine}, Kombu's {}", other.len());
    for number in &other {
        *times.entry(*number).or_default() += 1;
    }
    ensure!(times.len() == JOBS && times.values().all(|times| *times == 1), "not each once");
    ensure!(mine * 50 >= JOBS && other.len() * 50 >= JOBS, "ours took {mine}, Kombu's {}", other.len());
    Ok(())
}

#[tokio::test]
async fn what_a_killed_kombu_consumer_had_comes_to_ours() -> Outcome {
    let mut site = site("&visibility_timeout=3").await?;
    let options = json!({"visibility_timeout": 3});
    let mut theirs = ready(&mut site, "listen", &work(json!({"hold": 3600, "options": options}))).await?;
    publish(&mut site, &[("jobs.shared", json!({"number": 1}))]).await?;
    theirs.says("it has the job", |line| line.contains("number")).await?;
    theirs.kill().await?;
    let bus = site.join().await?;
    let mut ours = bus.subscribe(Source::Queue(Key::new("jobs.shared")?), 1).await?;
    let delivery = within("the job of the dead", PATIENCE, ours.next_delivery()).await?;
    let delivery = delivery.ok_or_else(|| Failure::new("the subscription ended"))?;
    ensure!(number(delivery.message())? == 1 && delivery.redelivered() == 1, "{delivery:?}");
    delivery.ack().await?;
    Ok(())
}

#[tokio::test]
async fn what_a_killed_consumer_of_ours_had_comes_to_a_kombu_consumer() -> Outcome {
    let mut site = site("&visibility_timeout=3").await?;
    let options = json!({"visibility_timeout": 3});
    let doomed = site.join().await?;
    let mut ours = doomed.subscribe(Source::Queue(Key::new("jobs.shared")?), 1).await?;
    publish(&mut site, &[("jobs.shared", json!({"number": 1}))]).await?;
    let held = within("a job", PATIENCE, ours.next_delivery()).await?;
    // Of a living consumer of ours nothing is taken, however long it works: it says that it does.
    let mut theirs = ready(&mut site, "listen", &work(json!({"options": options}))).await?;
    sleep(Duration::from_secs(8)).await;
    ensure!(acked(&theirs).is_empty(), "a job in hand was given to another");
    // Gone without a word, as when it is killed: its connection is closed, and nothing says that it works.
    drop(doomed);
    theirs.says("the job of the dead", |line| line.contains(r#""again": true"#)).await?;
    until("it is acknowledged", PATIENCE, async || acked(&theirs) == [1]).await?;
    drop(held);
    let left = super::redis(&mut site, &["HLEN", "unacked"]).await?;
    ensure!(left == 0, "{left} messages are noted as in hand");
    theirs.terminate().await?;
    Ok(())
}
