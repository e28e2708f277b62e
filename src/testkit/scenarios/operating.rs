//! What operators see and do: the connection, surveys, durable subscriptions that are removed.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    address::Origin,
    bus::Bus,
    connection::Connection,
    driver::BusOptions,
    error::{ErrorKind, Result},
    subscription::Source,
    survey::{Declared, Survey, What},
    testkit::{
        Failure, Outcome, Stage,
        target::{body, event, job, key, patterns, token},
        until,
        wait::{ensure, within},
    },
};

/// What nobody who tests waits for.
const LONG: Duration = Duration::from_secs(3_600);

fn queue() -> Source {
    Source::Queue(key("jobs.operated"))
}

fn durable() -> Source {
    Source::Durable(token("operated"), patterns(&["e.#", "other"]))
}

fn letters() -> Source {
    Source::DeadLetters(Origin::Queue(key("jobs.operated")))
}

pub(crate) async fn a_connected_bus_says_so(stage: Arc<Stage>) -> Outcome {
    let bus = stage.bus().await?;
    let watch = bus.connection();
    stage.publish(&bus, job("jobs.operated", "x")).await?;
    ensure!(watch.now() == Connection::Up, "a bus that works says {:?}", watch.now());
    Ok(())
}

async fn survey(stage: &Stage, bus: &Arc<dyn Bus>) -> Outcome<Survey> {
    let survey = within("a survey", stage.patience(), bus.survey()).await??;
    ensure!(!survey.broker.is_empty(), "a survey does not name its broker");
    let different: HashSet<&What> = survey.declared.iter().map(|declared| &declared.what).collect();
    ensure!(different.len() == survey.declared.len(), "a survey tells something twice: {survey:?}");
    Ok(survey)
}

/// What must be told of one thing, where it is told.
struct Expected {
    what: What,
    waiting: u64,
    in_hand: u64,
    resting: u64,
    consumers: u64,
}

impl Expected {
    fn differs(&self, told: &Declared) -> bool {
        let wrong = |told: Option<u64>, right: u64| told.is_some_and(|told| told != right);
        // A broker that cannot say who reads may not know what was given back from what is in hand either.
        let counts = match (told.consumers, told.waiting.zip(told.in_hand)) {
            (None, Some((waiting, in_hand))) => waiting + in_hand != self.waiting + self.in_hand,
            _ => wrong(told.waiting, self.waiting) || wrong(told.in_hand, self.in_hand),
        };
        counts
            || wrong(told.resting, self.resting)
            || wrong(told.consumers.map(|consumers| consumers.min(1)), self.consumers)
            || wrong(told.deaf, 0)
    }

    /// What is wrong in `survey`; the broker's own books may be late by a moment.
    fn wrong(&self, survey: &Survey, all: bool) -> Option<String> {
        let told = survey.declared.iter().find(|declared| declared.what == self.what);
        match told {
            None if all => Some(format!("{} is not told of", self.what)),
            Some(told) if self.differs(told) => {
                let right = (self.waiting, self.in_hand, self.resting, self.consumers);
                Some(format!(
                    "waiting, in hand, resting and consumers of {} are {right:?}: {told:?}",
                    self.what
                ))
            }
            _ => None,
        }
    }
}

pub(crate) async fn a_survey_tells_what_is_declared(stage: Arc<Stage>) -> Outcome {
    let (here, there) = (stage.bus().await?, stage.bus().await?);
    let start = Instant::now();
    let mut jobs = stage.reader(&here, queue(), 2).await?;
    let mut events = stage.reader(&here, durable(), 1).await?;
    stage.publish(&here, job("jobs.operated", "bad")).await?;
    jobs.next().await?.term("rejected", "bad").await?;
    stage.publish(&here, job("jobs.operated", "resting")).await?;
    jobs.next().await?.nack(LONG, "much later").await?;
    for number in 0..7 {
        stage.publish(&here, job("jobs.operated", number.to_string())).await?;
    }
    for number in 0..3 {
        stage.publish(&here, event("e.operated", number.to_string())).await?;
    }
    let held = (jobs.hold(2).await?, events.hold(1).await?);
    // A place is taken without a word until somebody looks there.
    drop(stage.reader(&here, letters(), 1).await?);
    let mut expected = [
        Expected {
            what: What::Queue(key("jobs.operated")),
            waiting: 5,
            in_hand: 2,
            resting: 1,
            consumers: 1,
        },
        Expected { what: What::Durable(token("operated")), waiting: 2, in_hand: 1, resting: 0, consumers: 1 },
        Expected {
            what: What::DeadQueue(key("jobs.operated")),
            waiting: 1,
            in_hand: 0,
            resting: 0,
            consumers: 0,
        },
    ];
    settled(&stage, &here, &there, &expected).await?;
    for told in survey(&stage, &here).await?.declared {
        let oldest = told.oldest.unwrap_or_default();
        let age = start.elapsed() + Duration::from_secs(1);
        ensure!(oldest <= age, "{} is said to be {oldest:?} old: it is {age:?} at the most", told.what);
        if told.what == What::Durable(token("operated")) {
            let mut wanted = told.patterns.clone().unwrap_or_else(|| vec!["e.#".into(), "other".into()]);
            wanted.sort();
            ensure!(wanted == ["e.#", "other"], "{} is told to want {wanted:?}", told.what);
            let idle = told.idle.unwrap_or_default();
            ensure!(idle.is_zero(), "{} is said to be idle for {idle:?} under its reader", told.what);
            let (expires, asked) = (told.expires_after, BusOptions::default().idle_expiry);
            ensure!(
                expires.is_none_or(|expires| expires == asked),
                "{} expires after {expires:?}",
                told.what
            );
        }
    }
    // What is given back waits again, and nobody reads any more.
    drop((held, jobs, events));
    for (expected, waiting) in expected.iter_mut().zip([7, 3, 1]) {
        (expected.waiting, expected.in_hand, expected.consumers) = (waiting, 0, 0);
    }
    settled(&stage, &here, &there, &expected).await
}

/// Waits until both buses tell what is expected: `here` of all, `there` of what it knows.
async fn settled(stage: &Stage, here: &Arc<dyn Bus>, there: &Arc<dyn Bus>, expected: &[Expected]) -> Outcome {
    let start = Instant::now();
    loop {
        let mut wrong = None;
        for (bus, all) in [(here, true), (there, false)] {
            let survey = survey(stage, bus).await?;
            wrong = wrong.or_else(|| expected.iter().find_map(|expected| expected.wrong(&survey, all)));
        }
        let Some(wrong) = wrong else { return Ok(()) };
        ensure!(start.elapsed() < stage.patience(), "a survey is wrong: {wrong}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

pub(crate) async fn a_survey_changes_nothing(stage: Arc<Stage>) -> Outcome {
    const MESSAGES: usize = 30;
    let (here, there) = (stage.bus().await?, stage.bus().await?);
    drop(stage.reader(&here, durable(), 1).await?);
    for number in 0..MESSAGES {
        stage.publish(&here, job("jobs.operated", number.to_string())).await?;
        stage.publish(&here, event("e.operated", number.to_string())).await?;
    }
    for _ in 0..10 {
        survey(&stage, &here).await?;
        survey(&stage, &there).await?;
    }
    let (mut jobs, mut events) =
        (stage.reader(&here, queue(), 1).await?, stage.reader(&here, durable(), 1).await?);
    for number in 0..MESSAGES {
        for reader in [&mut jobs, &mut events] {
            let delivery = reader.next().await?;
            let (text, redelivered) = (body(delivery.message()), delivery.redelivered());
            ensure!(
                text == number.to_string(),
                "{text:?} came where \"{number}\" was awaited, after surveys"
            );
            ensure!(
                redelivered == 0,
                "after surveys a message says that it was redelivered {redelivered} times"
            );
            delivery.ack().await?;
            survey(&stage, &here).await?;
        }
    }
    Ok(())
}

async fn remove(stage: &Stage, bus: &Arc<dyn Bus>, idle: Option<Duration>) -> Outcome<Result<bool>> {
    within("removing a durable subscription", stage.patience(), bus.remove_durable(&token("operated"), idle))
        .await
}

pub(crate) async fn a_removed_durable_subscription_is_gone(stage: Arc<Stage>) -> Outcome {
    let (here, there) = (stage.bus().await?, stage.bus().await?);
    let mut reader = stage.reader(&here, durable(), 1).await?;
    stage.publish(&there, event("e.operated", "dead")).await?;
    reader.next().await?.term("rejected", "no").await?;
    reader.close();
    ensure!(reader.next_or_end().await?.is_none(), "a closed subscription went on");
    drop(reader);
    for number in 0..10 {
        stage.publish(&there, event("e.operated", format!("kept {number}"))).await?;
    }
    let removed = (remove(&stage, &here, None).await??, remove(&stage, &here, None).await??);
    ensure!(removed == (true, false), "removing a durable subscription twice gave {removed:?}");
    stage.publish(&there, event("e.operated", "nobody wants it")).await?;
    // Its dead letters stay, whatever an attempt to bring one back to nowhere gives.
    let letters = Source::DeadLetters(Origin::Durable(token("operated")));
    let mut dead = stage.reader(&there, letters, 1).await?;
    let letter = dead.next().await?;
    let redriven = within("a redrive", stage.patience(), letter.redrive()).await?;
    let mut reader = stage.reader(&here, durable(), 1).await?;
    if redriven.is_ok() {
        reader.expect("dead").await?;
    } else {
        dead.expect("dead").await?;
    }
    stage.publish(&there, event("e.operated", "end")).await?;
    reader.expect("end").await
}

pub(crate) async fn a_removed_durable_subscription_is_made_again_under_its_readers(
    stage: Arc<Stage>,
) -> Outcome {
    let (here, there) = (stage.bus().await?, stage.bus().await?);
    let mut reader = stage.reader(&here, durable(), 4).await?;
    stage.publish(&there, event("e.operated", "before")).await?;
    reader.expect("before").await?;
    ensure!(remove(&stage, &there, None).await??, "a durable subscription under its reader was not removed");
    let mut subscription = reader.into_inner();
    until("its reader hears of events again", stage.patience(), async || {
        if there.publish(event("e.operated", "again")).await.is_err() {
            return false;
        }
        let soon = Duration::from_millis(100);
        match tokio::time::timeout(soon, subscription.next_delivery()).await {
            Ok(Some(delivery)) => delivery.ack().await.is_ok(),
            _ => false,
        }
    })
    .await
}

pub(crate) async fn only_an_idle_durable_subscription_is_removed(stage: Arc<Stage>) -> Outcome {
    const SHORT: Duration = Duration::from_millis(200);
    let (here, there) = (stage.bus().await?, stage.bus().await?);
    let removed = remove(&stage, &there, None).await??;
    ensure!(!removed, "a subscription that never was is removed");
    let reader = stage.reader(&here, durable(), 1).await?;
    tokio::time::sleep(SHORT * 2).await;
    // A transport that cannot know says so; none removes what is read.
    let mut unknown = false;
    for idle in [SHORT, LONG] {
        match remove(&stage, &there, Some(idle)).await? {
            Ok(removed) => {
                ensure!(!removed, "a subscription was removed under its reader as idle for {idle:?}");
            }
            Err(e) if *e.kind() == ErrorKind::Invalid => unknown = true,
            Err(e) => return Err(Failure::from(e)),
        }
    }
    drop(reader);
    for number in 0..3 {
        stage.publish(&there, event("e.operated", number.to_string())).await?;
    }
    if let Ok(removed) = remove(&stage, &there, Some(LONG)).await? {
        ensure!(!removed, "a subscription was removed as idle for an hour within a second");
    }
    let mut reader = stage.reader(&here, durable(), 1).await?;
    // In any order: the first may have been on its way to the reader that left, and comes back from there.
    let mut bodies = reader.take_bodies(3).await?;
    bodies.sort_unstable();
    ensure!(bodies == ["0", "1", "2"], "{bodies:?} were kept");
    drop(reader);
    if unknown {
        return Ok(());
    }
    stage.publish(&there, event("e.operated", "old")).await?;
    until("an idle subscription is removed", stage.patience(), async || {
        matches!(there.remove_durable(&token("operated"), Some(SHORT)).await, Ok(true))
    })
    .await?;
    let mut reader = stage.reader(&here, durable(), 1).await?;
    stage.publish(&there, event("e.operated", "new")).await?;
    reader.expect("new").await
}
