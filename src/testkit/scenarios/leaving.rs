//! The end of a subscription and of a bus.

use std::{sync::Arc, time::Duration};

use super::each_once;
use crate::{
    address::Inbox,
    error::ErrorKind,
    subscription::Source,
    testkit::{
        Outcome, Stage,
        target::{body, call, event, job, key, patterns, reply, token},
        wait::{ensure, within},
    },
};

fn queue() -> Source {
    Source::Queue(key("jobs.leaving"))
}

pub(crate) async fn a_closed_subscription_yields_what_it_took_and_ends(stage: Arc<Stage>) -> Outcome {
    const JOBS: usize = 50;
    let (here, there) = (stage.bus().await?, stage.bus().await?);
    let mut reader = stage.reader(&here, queue(), 8).await?;
    let jobs = (0..JOBS).map(|number| job("jobs.leaving", number.to_string())).collect();
    stage.publish_all(&there, jobs).await?;
    let first = reader.next().await?;
    reader.close();
    reader.close();
    let mut held = vec![first];
    while let Some(delivery) = reader.next_or_end().await? {
        held.push(delivery);
        ensure!(held.len() <= 8, "a closed subscription with a prefetch of 8 yielded {}", held.len());
    }
    ensure!(reader.next_or_end().await?.is_none(), "a subscription went on after its end");
    ensure!(!reader.consuming().get(), "a subscription that has ended says that it consumes");
    let mut got = Vec::new();
    for delivery in held {
        got.push(body(delivery.message()));
        delivery.ack().await?;
    }
    let mut rest = stage.reader(&there, queue(), 8).await?;
    got.extend(rest.take_bodies(JOBS - got.len()).await?);
    each_once("jobs around a closed subscription", JOBS, got)?;
    stage.publish(&there, job("jobs.leaving", "end")).await?;
    rest.expect("end").await
}

pub(crate) async fn a_closed_bus_ends_its_subscriptions(stage: Arc<Stage>) -> Outcome {
    let bus = stage.bus().await?;
    let sources = [
        queue(),
        Source::Service(key("calc")),
        Source::Control(key("calc")),
        Source::Topic(patterns(&["#"])),
        Source::Durable(token("leaving"), patterns(&["#"])),
        Source::Inbox(Inbox::random()),
    ];
    let mut readers = Vec::new();
    for source in sources {
        readers.push(stage.reader(&bus, source, 4).await?);
    }
    // One that is being waited on when the end comes.
    let mut waiting = readers.remove(0);
    let waiting = tokio::spawn(async move { waiting.next_or_end().await.map(|delivery| delivery.is_none()) });
    tokio::task::yield_now().await;
    within("closing", stage.patience(), bus.close()).await??;
    ensure!(waiting.await??, "a delivery came from a bus that was closed");
    for reader in &mut readers {
        ensure!(
            reader.next_or_end().await?.is_none(),
            "{reader}: yielded something after the bus was closed"
        );
        ensure!(!reader.consuming().get(), "{reader}: says that it consumes after the bus was closed");
    }
    Ok(())
}

pub(crate) async fn a_closed_bus_refuses_and_may_be_closed_again(stage: Arc<Stage>) -> Outcome {
    let bus = stage.bus().await?;
    for _ in 0..2 {
        within("closing", stage.patience(), bus.close()).await??;
    }
    let messages = [
        call("calc.add", "late"),
        job("jobs.leaving", "late"),
        event("e.late", "late"),
        reply(Inbox::random(), "late"),
    ];
    for message in messages {
        let address = message.address().clone();
        let refused = within("publishing", stage.patience(), bus.publish(message)).await?;
        let kind = refused.as_ref().err().map(|e| (e.kind().clone(), e.may_have_executed()));
        ensure!(
            kind == Some((ErrorKind::Closed, false)),
            "a closed bus gave {refused:?} to a message to {address}"
        );
    }
    for source in [queue(), Source::Service(key("calc")), Source::Topic(patterns(&["#"]))] {
        let refused = within("subscribing", stage.patience(), bus.subscribe(source, 1)).await?;
        let kind = refused.as_ref().err().map(|e| e.kind().clone());
        ensure!(kind == Some(ErrorKind::Closed), "a closed bus gave {refused:?} to a subscriber");
    }
    Ok(())
}

pub(crate) async fn a_closed_bus_gives_back_what_was_in_hand(stage: Arc<Stage>) -> Outcome {
    const JOBS: usize = 20;
    let (here, there) = (stage.bus().await?, stage.bus().await?);
    let jobs = (0..JOBS).map(|number| job("jobs.leaving", number.to_string())).collect();
    stage.publish_all(&there, jobs).await?;
    let mut reader = stage.reader(&here, queue(), 12).await?;
    let mut held = reader.hold(6).await?;
    let mut got = Vec::new();
    // Acknowledged before the end: known to the broker by the end. Under way while it ends: the same.
    for delivery in held.drain(..2) {
        got.push(body(delivery.message()));
        delivery.ack().await?;
    }
    within("closing", stage.patience(), here.close()).await??;
    let mut other = stage.reader(&there, queue(), 50).await?;
    for _ in got.len()..JOBS {
        let delivery = other.next().await?;
        ensure!(delivery.attempt() == 1, "what was given back counts as run {}", delivery.attempt());
        got.push(body(delivery.message()));
        delivery.ack().await?;
    }
    each_once("jobs around a closed bus", JOBS, got)?;
    drop(held);
    stage.publish(&there, job("jobs.leaving", "end").with_ttl(Duration::from_secs(60))).await?;
    other.expect("end").await
}

pub(crate) async fn one_program_that_leaves_does_not_disturb_another(stage: Arc<Stage>) -> Outcome {
    let (stays, publisher) = (stage.bus().await?, stage.bus().await?);
    let mut events = stage.reader(&stays, Source::Topic(patterns(&["e.#"])), 100).await?;
    let mut kept = stage.reader(&stays, Source::Durable(token("stays"), patterns(&["e.#"])), 100).await?;
    let mut calls = stage.reader(&stays, Source::Service(key("calc")), 100).await?;
    for number in 0..10 {
        let leaves = stage.bus().await?;
        let _events = stage.reader(&leaves, Source::Topic(patterns(&["e.#"])), 4).await?;
        let _kept = stage.reader(&leaves, Source::Durable(token("leaves"), patterns(&["e.#"])), 4).await?;
        let _calls = stage.reader(&leaves, Source::Service(key("calc.other")), 4).await?;
        within("closing", stage.patience(), leaves.close()).await??;
        let text = number.to_string();
        stage.publish(&publisher, event("e.one", &*text)).await?;
        stage.publish(&publisher, call("calc.add", &*text)).await?;
        for reader in [&mut events, &mut kept, &mut calls] {
            reader.expect(&text).await?;
        }
    }
    Ok(())
}
