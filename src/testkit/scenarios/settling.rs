//! How a delivery ends: acknowledged, tried again, a dead letter, given back.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use futures_util::FutureExt;

use super::{each_once, same};
use crate::{
    address::{Address, Origin},
    message::{Message, header},
    subscription::Source,
    testkit::{
        Lateness, Outcome, Stage,
        target::{body, job, key},
        wait::{Failure, ensure},
    },
};

const FAILURES: [&str; 3] = [header::FAILED, header::FIRST_FAILURE, header::LAST_FAILURE];

fn source() -> Source {
    Source::Queue(key("jobs.settled"))
}

pub(crate) async fn a_retry_is_neither_early_nor_late(stage: Arc<Stage>) -> Outcome {
    let (here, there) = (stage.bus().await?, stage.bus().await?);
    let mut reader = stage.reader(&here, source(), 20).await?;
    let mut rested = Vec::new();
    for millis in [0, 1, 50, 120, 300, 700, 1_000, 1_500, 3_000] {
        stage.publish(&there, job("jobs.settled", millis.to_string())).await?;
        let delivery = reader.next().await?;
        rested.push((Duration::from_millis(millis), delivery));
    }
    let control = Lateness::watch();
    let all = rested.len();
    // What comes is taken meanwhile: where a broker is slow to let one rest, that makes no other late.
    let due = Arc::new(Mutex::new(HashMap::new()));
    let noted = due.clone();
    let resting = tokio::spawn(async move {
        for (after, delivery) in rested {
            let (text, asked) = (body(delivery.message()), Instant::now());
            lock(&noted).insert(text.clone(), (after, asked, None));
            delivery.nack(after, "not yet").await?;
            lock(&noted).entry(text).and_modify(|(.., known)| *known = Some(Instant::now()));
        }
        Outcome::Ok(())
    });
    for _ in 0..all {
        let delivery = reader.next().await?;
        let (text, now) = (body(delivery.message()), Instant::now());
        let found = lock(&due).remove(&text);
        delivery.ack().await?;
        let (after, asked, known) =
            found.ok_or_else(|| Failure::new(format!("{text:?} came once more than it was to")))?;
        let (waited, since) = (now - asked, known.map_or(Duration::ZERO, |known| now - known));
        ensure!(waited >= after, "a retry after {after:?} came early, after {waited:?}");
        let slack = Duration::from_millis(250).max(after / 10);
        let worst = control.worst();
        ensure!(
            since <= after + slack + worst,
            "a retry after {after:?} came late, after {since:?} (a plain timer was at most {worst:?} late meanwhile)"
        );
    }
    resting.await?
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) async fn a_retry_counts_the_failed_run_and_says_why(stage: Arc<Stage>) -> Outcome {
    let (here, there) = (stage.bus().await?, stage.bus().await?);
    let sent = job("jobs.settled", "three times").with("x-kept", "as it was")?;
    stage.publish(&there, sent.clone()).await?;
    let mut first_failure = None;
    for run in 1..=4 {
        // Whoever takes it next knows what happened before.
        let mut reader = stage.reader(if run % 2 == 0 { &here } else { &there }, source(), 1).await?;
        let delivery = reader.next().await?;
        ensure!(delivery.attempt() == run, "run {run} is told that it is run {}", delivery.attempt());
        same(&sent, delivery.message(), &FAILURES)?;
        let [failed, first, last] =
            FAILURES.map(|name| delivery.message().headers().get(name).map(str::to_owned));
        if run == 1 {
            ensure!(
                first.is_none() && last.is_none(),
                "a message that never failed says {first:?}, {last:?}"
            );
        } else {
            ensure!(failed == Some((run - 1).to_string()), "run {run}: {} is {failed:?}", header::FAILED);
            let why = format!(" because {}", run - 1);
            ensure!(
                last.as_ref().is_some_and(|last| last.ends_with(&why)),
                "run {run}: the last failure is {last:?}"
            );
            ensure!(
                first.as_ref().is_some_and(|first| first.ends_with(" because 1")),
                "the first failure is {first:?}"
            );
            ensure!(
                first_failure.is_none() || first_failure == first,
                "the first failure changed to {first:?}"
            );
            first_failure = first;
        }
        match run {
            4 => delivery.ack().await?,
            _ => delivery.nack(Duration::from_millis(20), &format!("because {run}")).await?,
        }
    }
    let mut reader = stage.reader(&here, source(), 1).await?;
    stage.publish(&there, job("jobs.settled", "end")).await?;
    reader.expect("end").await
}

pub(crate) async fn a_retry_holds_up_nobody_else(stage: Arc<Stage>) -> Outcome {
    let (here, there) = (stage.bus().await?, stage.bus().await?);
    let mut reader = stage.reader(&here, source(), 1).await?;
    stage.publish(&there, job("jobs.settled", "resting")).await?;
    reader.next().await?.nack(Duration::from_secs(3), "later").await?;
    let rested = Instant::now();
    for number in 0..50 {
        stage.publish(&there, job("jobs.settled", number.to_string())).await?;
        reader.expect(&number.to_string()).await?;
    }
    let busy = rested.elapsed();
    ensure!(busy < Duration::from_secs(3), "50 jobs took {busy:?} beside one that rests");
    // What rests outlives the consumer that let it rest.
    drop(reader);
    let mut reader = stage.reader(&there, source(), 1).await?;
    reader.expect("resting").await
}

pub(crate) async fn a_dead_letter_keeps_body_and_headers(stage: Arc<Stage>) -> Outcome {
    let (here, there) = (stage.bus().await?, stage.bus().await?);
    let mut reader = stage.reader(&here, source(), 1).await?;
    let bytes: Vec<u8> = (0..=255).collect();
    let sent = Message::new(Address::Queue(key("jobs.settled")), bytes)?.with("x-kept", " ~ ")?;
    stage.publish(&there, sent.clone()).await?;
    reader.next().await?.nack(Duration::ZERO, "it smells").await?;
    reader.next().await?.term("attempts", "still\nsmells: é").await?;

    let origin = Origin::Queue(key("jobs.settled"));
    let mut dead = stage.reader(&there, Source::DeadLetters(origin.clone()), 1).await?;
    let letter = dead.next().await?;
    let mut added = FAILURES.to_vec();
    added.extend([header::DEAD, header::ORIGIN]);
    same(&sent, letter.message(), &added)?;
    let says = |name| letter.message().headers().get(name).unwrap_or_default().to_owned();
    ensure!(says(header::DEAD) == "attempts", "{} is {:?}", header::DEAD, says(header::DEAD));
    ensure!(says(header::ORIGIN) == origin.to_string(), "{} is {:?}", header::ORIGIN, says(header::ORIGIN));
    ensure!(says(header::FAILED) == "2", "{} is {:?}", header::FAILED, says(header::FAILED));
    let (first, last) = (says(header::FIRST_FAILURE), says(header::LAST_FAILURE));
    ensure!(first.ends_with(" it smells"), "the first failure is {first:?}");
    ensure!(last.ends_with(r" still\nsmells: \u{e9}"), "the last failure is {last:?}");
    letter.ack().await?;
    // And the queue no longer has it.
    stage.publish(&there, job("jobs.settled", "end")).await?;
    reader.expect("end").await
}

pub(crate) async fn a_dead_letter_that_is_acknowledged_is_gone(stage: Arc<Stage>) -> Outcome {
    let (here, there) = (stage.bus().await?, stage.bus().await?);
    let mut reader = stage.reader(&here, source(), 10).await?;
    for number in 0..30 {
        stage.publish(&there, job("jobs.settled", number.to_string())).await?;
        reader.next().await?.term("rejected", "no").await?;
    }
    let letters = || Source::DeadLetters(Origin::Queue(key("jobs.settled")));
    // Looking does not take out; what is dropped stays.
    let mut looking = stage.reader(&here, letters(), 30).await?;
    let seen = looking.hold(30).await?;
    each_once("dead letters looked at", 30, seen.iter().map(|letter| body(letter.message())))?;
    drop((seen, looking));
    let mut taking = stage.reader(&there, letters(), 30).await?;
    let taken = taking.take_bodies(30).await?;
    each_once("dead letters taken out", 30, taken)?;
    drop(taking);
    stage.publish(&there, job("jobs.settled", "end")).await?;
    reader.next().await?.term("rejected", "no").await?;
    let mut last = stage.reader(&here, letters(), 1).await?;
    last.expect("end").await
}

pub(crate) async fn a_dropped_delivery_comes_again(stage: Arc<Stage>) -> Outcome {
    let (here, there) = (stage.bus().await?, stage.bus().await?);
    let mut reader = stage.reader(&here, source(), 1).await?;
    let sent = job("jobs.settled", "innocent");
    stage.publish(&there, sent.clone()).await?;
    for _ in 0..5 {
        let delivery = reader.next().await?;
        ensure!(
            delivery.attempt() == 1,
            "a delivery that was only dropped counts as run {}",
            delivery.attempt()
        );
        same(&sent, delivery.message(), &[])?;
        drop(delivery);
    }
    reader.expect("innocent").await?;
    stage.publish(&there, job("jobs.settled", "end")).await?;
    reader.expect("end").await
}

pub(crate) async fn a_dropped_subscription_gives_back_what_it_held(stage: Arc<Stage>) -> Outcome {
    const JOBS: usize = 60;
    let (here, there) = (stage.bus().await?, stage.bus().await?);
    let jobs = (0..JOBS).map(|number| job("jobs.settled", number.to_string())).collect();
    stage.publish_all(&there, jobs).await?;
    let mut first = stage.reader(&here, source(), 40).await?;
    let held = first.hold(10).await?;
    // Thirty more may stand in its buffer: nobody reads them there.
    drop(first);
    let mut second = stage.reader(&there, source(), 100).await?;
    let mut got = second.take_bodies(JOBS - held.len()).await?;
    second.nothing_ready()?;
    // What is in hand stays there although the subscription is gone, and can still be settled.
    let mut held = held.into_iter();
    for delivery in held.by_ref().take(5) {
        got.push(body(delivery.message()));
        delivery.ack().await?;
    }
    drop(held);
    got.extend(second.take_bodies(5).await?);
    each_once("jobs held by a dropped subscription", JOBS, got)
}

pub(crate) async fn a_cancelled_settlement_loses_nothing(stage: Arc<Stage>) -> Outcome {
    #[derive(Clone, Copy, PartialEq)]
    enum Job {
        Open,
        Unknown,
        Done,
    }
    const JOBS: usize = 120;
    let (here, there) = (stage.bus().await?, stage.bus().await?);
    let jobs = (0..JOBS).map(|number| job("jobs.settled", number.to_string())).collect();
    stage.publish_all(&there, jobs).await?;
    let mut reader = stage.reader(&here, source(), 4).await?;
    let mut state = [Job::Open; JOBS];
    for round in 0.. {
        if !state.contains(&Job::Open) {
            break;
        }
        let delivery = reader.next().await?;
        let number: usize = body(delivery.message()).parse().unwrap_or(JOBS);
        let state = state.get_mut(number).ok_or_else(|| Failure::new("a job came that was never sent"))?;
        ensure!(*state != Job::Done, "job {number} came again after its acknowledgement");
        // A future that is never polled or only once: an acknowledgement may be known by then or not, everything else
        // must come again. In each case the place within the prefetch limit is free again, or this would stop.
        match round % 5 {
            0 => drop(delivery.ack()),
            1 => drop(delivery.nack(Duration::ZERO, "cancelled")),
            2 => drop(delivery.nack(Duration::ZERO, "cancelled").now_or_never()),
            3 => match delivery.ack().now_or_never() {
                Some(acked) => {
                    acked?;
                    *state = Job::Done;
                }
                None => *state = Job::Unknown,
            },
            _ => {
                delivery.ack().await?;
                *state = Job::Done;
            }
        }
    }
    stage.publish(&there, job("jobs.settled", "end")).await?;
    loop {
        let text = reader.take_body().await?;
        match text.parse().ok().and_then(|number: usize| state.get(number)) {
            None if text == "end" => return Ok(()),
            Some(Job::Unknown) => {}
            _ => return Err(Failure::new(format!("job {text:?} came again after its acknowledgement"))),
        }
    }
}

/// Takes three leases' time.
pub(crate) async fn a_long_run_is_not_given_to_another(stage: Arc<Stage>) -> Outcome {
    let lease = stage.lease().unwrap_or(Duration::from_secs(10));
    let (here, there) = (stage.bus().await?, stage.bus().await?);
    let mut reader = stage.reader(&here, source(), 10).await?;
    let jobs = (0..10).map(|number| job("jobs.settled", number.to_string())).collect();
    stage.publish_all(&there, jobs).await?;
    let held = reader.hold(10).await?;
    let mut other = stage.reader(&there, source(), 10).await?;
    let start = Instant::now();
    while start.elapsed() < lease * 3 {
        stage.publish(&there, job("jobs.settled", "quick")).await?;
        other.expect("quick").await?;
        tokio::time::sleep(lease / 10).await;
    }
    let mut got = Vec::new();
    for delivery in held {
        got.push(body(delivery.message()));
        delivery.ack().await?;
    }
    each_once("jobs that ran for three leases", 10, got)?;
    stage.publish(&there, job("jobs.settled", "end")).await?;
    drop(reader);
    other.expect("end").await
}
