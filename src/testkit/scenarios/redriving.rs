//! Dead letters that are brought back.

use std::{sync::Arc, time::Duration};

use super::{each_once, same};
use crate::{
    address::Origin,
    delivery::Delivery,
    error::ErrorKind,
    message::{Message, header},
    subscription::Source,
    testkit::{
        Outcome, Reader, Stage,
        target::{body, event, job, key, patterns, token},
        wait::{Failure, ensure, within},
    },
};

fn queue() -> Source {
    Source::Queue(key("jobs.redriven"))
}

fn letters() -> Source {
    Source::DeadLetters(Origin::Queue(key("jobs.redriven")))
}

fn durable(name: &str) -> Source {
    Source::Durable(token(name), patterns(&["e.#"]))
}

/// Checks that `delivery` is `sent` as if nothing had happened to it, but that it was brought back so often.
fn as_new(sent: &Message, delivery: &Delivery, redriven: u32) -> Outcome {
    let got = delivery.message();
    same(sent, got, &[header::REDRIVEN])?;
    ensure!(got.id() == sent.id(), "a message with id {:?} came back with {:?}", sent.id(), got.id());
    ensure!(delivery.attempt() == 1, "what was brought back is told that it is run {}", delivery.attempt());
    ensure!(got.redriven() == redriven, "what came back {redriven} times says {}", got.redriven());
    Ok(())
}

/// Lets it fail once and then die.
async fn kill(reader: &mut Reader) -> Outcome {
    reader.next().await?.nack(Duration::ZERO, "it smells").await?;
    reader.next().await?.term("attempts", "still smells").await.map_err(Failure::from)
}

async fn redrive(stage: &Stage, letters: &mut Reader) -> Outcome {
    let letter = letters.next().await?;
    within("bringing a dead letter back", stage.patience(), letter.redrive()).await?.map_err(Failure::from)
}

pub(crate) async fn a_redriven_dead_letter_comes_back_as_new(stage: Arc<Stage>) -> Outcome {
    let (here, there) = (stage.bus().await?, stage.bus().await?);
    let mut reader = stage.reader(&here, queue(), 1).await?;
    let sent = job("jobs.redriven", "second chance").with("x-kept", "as it was")?;
    stage.publish(&there, sent.clone()).await?;
    for redriven in 1..=2 {
        kill(&mut reader).await?;
        let mut dead = stage.reader(&there, letters(), 1).await?;
        redrive(&stage, &mut dead).await?;
        let delivery = reader.next().await?;
        as_new(&sent, &delivery, redriven)?;
        drop(delivery);
    }
    reader.expect("second chance").await?;
    stage.publish(&there, job("jobs.redriven", "end")).await?;
    reader.next().await?.term("rejected", "no").await?;
    // Neither the queue nor its dead letters have a second one.
    let mut dead = stage.reader(&here, letters(), 1).await?;
    dead.expect("end").await?;
    stage.publish(&there, job("jobs.redriven", "last")).await?;
    reader.expect("last").await
}

pub(crate) async fn a_redriven_event_reaches_its_own_subscription_only(stage: Arc<Stage>) -> Outcome {
    let (here, there) = (stage.bus().await?, stage.bus().await?);
    let mut picky = stage.reader(&here, durable("picky"), 1).await?;
    let mut fellow = stage.reader(&there, durable("fellow"), 1).await?;
    let mut passing = stage.reader(&there, Source::Topic(patterns(&["e.#"])), 10).await?;
    let sent = event("e.one.two", "second chance").with("x-kept", "as it was")?;
    stage.publish(&there, sent.clone()).await?;
    fellow.expect("second chance").await?;
    passing.expect("second chance").await?;
    kill(&mut picky).await?;
    let letters = Source::DeadLetters(Origin::Durable(token("picky")));
    let mut dead = stage.reader(&there, letters.clone(), 1).await?;
    redrive(&stage, &mut dead).await?;
    let delivery = picky.next().await?;
    as_new(&sent, &delivery, 1)?;
    delivery.ack().await?;
    stage.publish(&there, event("e.last", "end")).await?;
    fellow.expect("end").await?;
    passing.expect("end").await?;
    picky.next().await?.term("rejected", "no").await?;
    dead.expect("end").await
}

pub(crate) async fn only_a_dead_letter_can_be_redriven(stage: Arc<Stage>) -> Outcome {
    let (here, there) = (stage.bus().await?, stage.bus().await?);
    let mut jobs = stage.reader(&here, queue(), 1).await?;
    let mut events = stage.reader(&here, durable("alive"), 1).await?;
    let sent = [job("jobs.redriven", "alive"), event("e.one", "alive")];
    for (message, reader) in sent.into_iter().zip([&mut jobs, &mut events]) {
        stage.publish(&there, message.clone()).await?;
        let refused = within("a refusal", stage.patience(), reader.next().await?.redrive()).await?;
        let kind = refused.as_ref().err().map(|e| (e.kind().clone(), e.may_have_executed()));
        ensure!(
            kind == Some((ErrorKind::Invalid, false)),
            "redriving what is no dead letter gave {refused:?}"
        );
        let delivery = reader.next().await?;
        same(&message, delivery.message(), &[])?;
        ensure!(delivery.attempt() == 1, "a refusal counts as run {}", delivery.attempt());
        delivery.ack().await?;
    }
    stage.publish(&there, job("jobs.redriven", "end")).await?;
    stage.publish(&there, event("e.one", "end")).await?;
    jobs.expect("end").await?;
    events.expect("end").await
}

/// 40 jobs; 500 with `COMMISSAIRE_LONG`.
pub(crate) async fn jobs_that_always_fail_die_once_and_come_back_once(stage: Arc<Stage>) -> Outcome {
    const RUNS: u32 = 5;
    let count = if std::env::var_os("COMMISSAIRE_LONG").is_some() { 500 } else { 40 };
    let (here, there) = (stage.bus().await?, stage.bus().await?);
    let jobs = (0..count).map(|number| job("jobs.redriven", number.to_string())).collect();
    stage.publish_all(&there, jobs).await?;
    let mut reader = stage.reader(&here, queue(), 20).await?;
    let mut runs = vec![0; count];
    let mut died = 0;
    while died < count {
        let delivery = reader.next().await?;
        let number: usize = body(delivery.message()).parse().unwrap_or(count);
        let runs = runs.get_mut(number).ok_or_else(|| Failure::new("a job came that was never sent"))?;
        *runs += 1;
        ensure!(*runs <= RUNS, "job {number} ran more often than it was to");
        ensure!(delivery.attempt() == *runs, "run {runs} is told that it is run {}", delivery.attempt());
        if *runs < RUNS {
            delivery.nack(Duration::ZERO, "as always").await?;
        } else {
            delivery.term("attempts", "as always").await?;
            died += 1;
        }
    }
    ensure!(runs.iter().all(|runs| *runs == RUNS), "jobs that always fail ran {runs:?} times");
    stage.publish(&there, job("jobs.redriven", "empty")).await?;
    reader.expect("empty").await?;
    let mut dead = stage.reader(&there, letters(), 10).await?;
    for _ in 0..count {
        redrive(&stage, &mut dead).await?;
    }
    let mut back = Vec::with_capacity(count);
    for _ in 0..count {
        let delivery = reader.next().await?;
        let told = (delivery.attempt(), delivery.message().redriven());
        ensure!(told == (1, 1), "what was brought back says run {}, brought back {} times", told.0, told.1);
        back.push(body(delivery.message()));
        delivery.ack().await?;
    }
    each_once("jobs that were brought back", count, back)?;
    stage.publish(&there, job("jobs.redriven", "end")).await?;
    reader.next().await?.term("rejected", "no").await?;
    dead.expect("end").await
}
