//! Many comings and goings, and futures that are dropped in the middle.

use std::{
    collections::HashSet,
    future::poll_fn,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::Duration,
};

use rand::RngExt;

use super::each_once;
use crate::{
    bus::Bus,
    message::Message,
    subscription::{Received, Source},
    testkit::{
        Outcome, Stage,
        target::{body, event, job, key, patterns, token},
        wait::{Failure, ensure, within},
    },
};

fn queue() -> Source {
    Source::Queue(key("jobs.stress"))
}

pub(crate) async fn comings_and_goings_lose_nothing(stage: Arc<Stage>) -> Outcome {
    const MESSAGES: usize = 1_000;
    const GOINGS: usize = 100;
    let (here, there) = (stage.bus().await?, stage.bus().await?);
    let mut random = stage.random();
    let durable = |name| Source::Durable(token(name), patterns(&["e.#"]));
    let mut keeper = stage.reader(&here, durable("stays"), 50).await?;
    drop(stage.reader(&here, durable("comes"), 5).await?);
    let over = AtomicBool::new(false);
    let publishing = async {
        for number in 0..MESSAGES {
            stage.publish(&there, job("jobs.stress", number.to_string())).await?;
            stage.publish(&there, event("e.stress", number.to_string())).await?;
        }
        over.store(true, Ordering::Relaxed);
        Ok(())
    };
    let mut acknowledged = HashSet::new();
    let churning = async {
        let mut goings = 0;
        while goings < GOINGS || !over.load(Ordering::Relaxed) {
            goings += 1;
            let mut reader = stage.reader(&here, queue(), random.random_range(1..10)).await?;
            let _listener = stage.reader(&here, Source::Topic(patterns(&["e.*"])), 200).await?;
            let _durable = stage.reader(&here, durable("comes"), 5).await?;
            for _ in 0..random.random_range(0..8) {
                // There may be none left: so only what is there soon.
                let Ok(delivery) = tokio::time::timeout(Duration::from_millis(20), reader.next()).await
                else {
                    break;
                };
                let delivery = delivery?;
                let text = body(delivery.message());
                ensure!(!acknowledged.contains(&text), "job {text} came again after its acknowledgement");
                if random.random_bool(0.7) {
                    delivery.ack().await?;
                    acknowledged.insert(text);
                }
            }
        }
        Ok(acknowledged)
    };
    let ((), acknowledged, kept) =
        futures_util::try_join!(publishing, churning, keeper.take_bodies(MESSAGES))?;
    each_once("events while others came and went", MESSAGES, kept)?;
    let mut last = stage.reader(&here, queue(), 100).await?;
    let mut got: Vec<String> = acknowledged.into_iter().collect();
    got.extend(last.take_bodies(MESSAGES - got.len()).await?);
    each_once("jobs while consumers came and went", MESSAGES, got)?;
    let mut comes = stage.reader(&here, durable("comes"), 100).await?;
    let events = comes.take_bodies(MESSAGES).await?;
    each_once("events for a durable subscription whose readers came and went", MESSAGES, events)?;
    stage.publish(&there, event("e.stress", "end")).await?;
    comes.expect("end").await
}

/// Polls `future` at most `polls` times and then drops it.
async fn cut<T>(polls: usize, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let mut left = polls;
    poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match future.as_mut().poll(context) {
            Poll::Ready(value) => Poll::Ready(Some(value)),
            // The last poll was in vain.
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

pub(crate) async fn cancelled_futures_lose_nothing(stage: Arc<Stage>) -> Outcome {
    const JOBS: usize = 600;
    let (here, there) = (stage.bus().await?, stage.bus().await?);
    let (mut random, mut random_reading) = (stage.random(), stage.random());
    let mut reader = stage.reader(&here, queue(), 8).await?.into_inner();
    let publishing = async {
        for number in 0..JOBS {
            let message = job("jobs.stress", number.to_string());
            publish_with_cuts(&stage, &there, message, || random.random_range(0..4)).await?;
        }
        Ok(())
    };
    let mut seen = HashSet::new();
    let reading = async {
        while seen.len() < JOBS {
            let next = within("the next delivery", stage.patience(), async {
                loop {
                    if let Some(next) = cut(random_reading.random_range(0..4), reader.next()).await {
                        return next;
                    }
                    tokio::task::yield_now().await;
                }
            })
            .await
            .map_err(|failure| failure.in_step(format_args!("after {} of {JOBS} jobs", seen.len())))?;
            let Some(Received::Delivery(delivery)) = next else {
                return Err(Failure::new(format!("{next:?} came where a delivery was awaited")));
            };
            seen.insert(body(delivery.message()));
            delivery.ack().await?;
        }
        Ok(())
    };
    futures_util::try_join!(publishing, reading)?;
    Ok(())
}

/// Publishes, giving up in the middle now and then, and again with the same id until it is acknowledged.
async fn publish_with_cuts(
    stage: &Stage,
    bus: &Arc<dyn Bus>,
    message: Message,
    mut polls: impl FnMut() -> usize,
) -> Outcome {
    for _ in 0..3 {
        match cut(polls(), bus.publish(message.clone())).await {
            Some(published) => return published.map_err(Failure::from),
            None => tokio::task::yield_now().await,
        }
    }
    stage.publish(bus, message).await
}

pub(crate) async fn publishers_that_vanish_lose_nothing_acknowledged(stage: Arc<Stage>) -> Outcome {
    const PUBLISHERS: usize = 20;
    const EACH: usize = 50;
    let here = stage.bus().await?;
    let mut reader = stage.reader(&here, queue(), 50).await?;
    for publisher in 0..PUBLISHERS {
        let bus = stage.bus().await?;
        let jobs =
            (0..EACH).map(|number| job("jobs.stress", (publisher * EACH + number).to_string())).collect();
        stage.publish_all(&bus, jobs).await?;
        // Gone right after the last acknowledgement.
        within("closing", stage.patience(), bus.close()).await??;
    }
    let got = reader.take_bodies(PUBLISHERS * EACH).await?;
    each_once("jobs of publishers that vanished", PUBLISHERS * EACH, got)?;
    stage.publish(&here, job("jobs.stress", "end")).await?;
    reader.expect("end").await
}
