//! What goes wrong where Kombu programs are: everything deleted under load, and messages that nobody can read.

use std::time::{Duration, Instant};

use commissaire::{Client, Key, Pattern, Source, Token, header};
use commissaire_integration::{Failure, Outcome, PATIENCE, ensure, until, within};
use commissaire_simple::{Add, Sum};
use serde_json::json;

use super::{ask, peer, publish, redis, site};

#[tokio::test]
async fn everything_consumes_again_after_flushall_under_load() -> Outcome {
    const BACK: Duration = Duration::from_secs(5);
    let mut site = site("").await?;
    let (here, there) = (site.join().await?, site.join().await?);
    let running = commissaire_simple::service().start(here.clone()).await?;
    let mut jobs = here.subscribe(Source::Queue(Key::new("jobs.flushed")?), 8).await?;
    let durable = Source::Durable(Token::new("flushed")?, vec![Pattern::new("t.#")?]);
    let mut events = here.subscribe(durable, 8).await?;
    let client = Client::new(there.clone()).with_timeout(Duration::from_secs(1));
    let load = {
        let client = client.clone();
        tokio::spawn(async move {
            let mut well = 0_u32;
            for x in 0.. {
                if client.call(Add, &Sum { x, y: 1 }).await.is_ok() {
                    well += 1;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
                if well == u32::MAX {
                    break;
                }
            }
        })
    };
    for round in 0..3 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        redis(&mut site, &["FLUSHALL"]).await?;
        let start = Instant::now();
        until("calls are answered", BACK, async || client.call(Add, &Sum { x: 2, y: 3 }).await.is_ok())
            .await?;
        // A Kombu program knows only what is bound.
        let told = ask(&mut site, &[json!({"key": "simple.add", "params": [2, 3]})]).await?;
        ensure!(told[0]["answer"]["result"] == 5, "round {round}: a Kombu caller got {told:?}");
        let both = [("jobs.flushed", json!({"round": round})), ("t.x", json!({"round": round}))];
        publish(&mut site, &both).await?;
        for subscription in [&mut jobs, &mut events] {
            let delivery = within("it is heard again", PATIENCE, subscription.next_delivery()).await?;
            delivery.ok_or_else(|| Failure::new("a subscription ended"))?.ack().await?;
        }
        println!(
            "round {round}: all is as before {:?} after FLUSHALL, Python's start included",
            start.elapsed()
        );
    }
    load.abort();
    running.drain(Duration::from_secs(1)).await;
    Ok(())
}

#[tokio::test]
async fn poison_kills_nothing_and_becomes_dead_letters() -> Outcome {
    let mut site = site("").await?;
    let _simple = site.service("simple", &[]).await?;
    let bus = site.join().await?;
    let mut jobs = bus.subscribe(Source::Queue(Key::new("jobs.poisoned")?), 8).await?;
    let whole = r#"{"body": "eyJhIjogMX0=", "content-encoding": "utf-8", "content-type": "application/json", "headers": {}, "properties": {"delivery_mode": 2, "delivery_info": {"exchange": "commissaire", "routing_key": "KEY"}, "priority": 0, "body_encoding": "base64", "delivery_tag": "0b1f6b5a-5b8e-4b1e-8f93-0d8a2b6ad0aa"}}"#;
    let poisons = [
        "no JSON".to_owned(),
        String::new(),
        "[]".to_owned(),
        "{}".to_owned(),
        "[".repeat(100_000),
        whole.replace("eyJhIjogMX0=", "eyJhIjogMX0"),
        whole.replace("delivery_tag", "tag"),
        whole.replace("delivery_info", "info"),
        whole.replace("application/json", "application/x-python-serialize"),
    ];
    for queue in ["jobs.poisoned", "simple"] {
        for poison in &poisons {
            redis(&mut site, &["LPUSH", queue, &poison.replace("KEY", "nodot")]).await?;
        }
        redis(&mut site, &["LPUSH", queue, &whole.replace("KEY", "nodot")]).await?;
        redis(&mut site, &["LPUSH", queue, &whole.replace("KEY", "a b.*")]).await?;
    }
    publish(&mut site, &[("jobs.poisoned", json!({"good": true}))]).await?;
    // Those whose key is odd are jobs all the same: they were found in the queue.
    for _ in 0..3 {
        let delivery = within("a good job", PATIENCE, jobs.next_delivery()).await?;
        delivery.ok_or_else(|| Failure::new("the subscription ended"))?.ack().await?;
    }
    let told = ask(&mut site, &[json!({"key": "simple.add", "params": [2, 3]})]).await?;
    ensure!(told[0]["answer"]["result"] == 5, "after poison came {told:?}");
    let origin = commissaire::Origin::Queue(Key::new("jobs.poisoned")?);
    let mut dead = bus.subscribe(Source::DeadLetters(origin), 32).await?;
    for _ in 0..poisons.len() {
        let letter = within("a dead letter", PATIENCE, dead.next_delivery()).await?;
        let letter = letter.ok_or_else(|| Failure::new("the subscription ended"))?;
        ensure!(letter.message().headers().get(header::DEAD) == Some("malformed"), "{letter:?}");
        letter.ack().await?;
    }
    // Nor does what ours touched kill a Kombu program that looks at it.
    let noted = redis(&mut site, &["HLEN", "unacked"]).await?;
    ensure!(noted == 0, "{noted} messages are noted as in hand");
    let ended = peer(&mut site, "publish", &json!({}))?.input("").run().await?;
    ended.expect(0)?;
    Ok(())
}
