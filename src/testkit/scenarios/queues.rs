//! Work queues: kept, shared out, in order, never more in hand than allowed.

use std::{sync::Arc, time::Duration};

use super::{each_once, share_out};
use crate::{
    address::Address,
    subscription::Source,
    testkit::{
        Outcome, Stage,
        target::{body, event, job, key, patterns, text},
        wait::ensure,
    },
};

pub(crate) async fn competing_consumers_get_each_job_once(stage: Arc<Stage>) -> Outcome {
    const JOBS: usize = 5_000;
    const CONSUMERS: usize = 8;
    let mut readers = Vec::new();
    for _ in 0..CONSUMERS {
        let bus = stage.bus().await?;
        readers.push(stage.reader(&bus, Source::Queue(key("jobs.shared")), 8).await?);
    }
    let publisher = stage.bus().await?;
    let jobs = (0..JOBS).map(|number| job("jobs.shared", number.to_string())).collect();
    let (got, ()) =
        futures_util::try_join!(share_out(&mut readers, JOBS), stage.publish_all(&publisher, jobs))?;
    let shares: Vec<usize> = got.iter().map(Vec::len).collect();
    ensure!(shares.iter().all(|share| share * 50 >= JOBS), "the consumers got {shares:?} of {JOBS}");
    each_once("jobs of competing consumers", JOBS, got.into_iter().flatten())?;
    drop(readers);
    let mut last = stage.reader(&publisher, Source::Queue(key("jobs.shared")), 1).await?;
    stage.publish(&publisher, job("jobs.shared", "end")).await?;
    last.expect("end").await
}

pub(crate) async fn one_at_a_time_keeps_the_order(stage: Arc<Stage>) -> Outcome {
    const JOBS: u32 = 2_000;
    let (here, there) = (stage.bus().await?, stage.bus().await?);
    let mut reader = stage.reader(&here, Source::Queue(key("jobs.ordered")), 1).await?;
    let publishing = async {
        for number in 0..JOBS {
            stage.publish(&there, job("jobs.ordered", number.to_string())).await?;
        }
        Outcome::Ok(())
    };
    let reading = async {
        for number in 0..JOBS {
            reader.expect(&number.to_string()).await?;
        }
        Ok(())
    };
    futures_util::try_join!(publishing, reading)?;
    Ok(())
}

pub(crate) async fn prefetch_is_never_exceeded(stage: Arc<Stage>) -> Outcome {
    const MORE: usize = 20;
    let (here, there) = (stage.bus().await?, stage.bus().await?);
    for prefetch in [1_u16, 7, 100] {
        let name = format!("jobs.prefetch-{prefetch}");
        let source = || Source::Queue(key(&name));
        let limit = usize::from(prefetch);
        let jobs = (0..2 * limit + MORE).map(|number| job(&name, number.to_string())).collect();
        stage.publish_all(&there, jobs).await?;

        let mut slow = stage.reader(&here, source(), prefetch).await?;
        let mut held = slow.hold(limit).await?;
        slow.nothing_ready()?;
        // Another consumer gets all the rest, so the first keeps none of it back.
        let mut quick = stage.reader(&there, source(), 1_000).await?;
        let rest = quick.take_bodies(limit + MORE).await?;
        slow.nothing_ready()?;
        quick.close();
        ensure!(quick.next_or_end().await?.is_none(), "more came than was published");
        drop(quick);

        // As many places as are given free are filled again, and no more.
        let free = limit.div_ceil(2);
        let mut done: Vec<String> = rest;
        for delivery in held.drain(..free) {
            done.push(body(delivery.message()));
            delivery.ack().await?;
        }
        for number in 0..free + 1 {
            stage.publish(&there, job(&name, (2 * limit + MORE + number).to_string())).await?;
        }
        held.extend(slow.hold(free).await?);
        let mut last = stage.reader(&there, source(), 10).await?;
        done.push(last.take_body().await?);
        slow.nothing_ready()?;
        for delivery in held {
            done.push(body(delivery.message()));
            delivery.ack().await?;
        }
        each_once(&format!("jobs with a prefetch of {prefetch}"), 2 * limit + MORE + free + 1, done)?;
    }
    Ok(())
}

pub(crate) async fn a_queue_keeps_jobs_while_nobody_consumes(stage: Arc<Stage>) -> Outcome {
    let (here, there) = (stage.bus().await?, stage.bus().await?);
    // Nobody has ever consumed here: whoever enqueues declares.
    let jobs = (0..200).map(|number| job("jobs.kept", number.to_string())).collect();
    stage.publish_all(&there, jobs).await?;
    let mut reader = stage.reader(&here, Source::Queue(key("jobs.kept")), 10).await?;
    let mut got = reader.take_bodies(120).await?;
    drop(reader);
    stage.publish(&there, job("jobs.kept", "200")).await?;
    let mut reader = stage.reader(&here, Source::Queue(key("jobs.kept")), 10).await?;
    got.extend(reader.take_bodies(81).await?);
    each_once("jobs kept in a queue", 201, got)?;
    stage.publish(&there, job("jobs.kept", "end").with_ttl(Duration::from_secs(60))).await?;
    reader.expect("end").await
}

pub(crate) async fn queues_do_not_mix(stage: Arc<Stage>) -> Outcome {
    let (here, there) = (stage.bus().await?, stage.bus().await?);
    // Names that a broker's restrictions might fold into one.
    let names = ["jobs.a.b", "jobs.a", "jobs.a_b", "jobs.a-b", "jobs.A.b", "jobs.a._b", "jobs.a__b", "a.b"];
    for name in names {
        for number in 0..3 {
            stage.publish(&there, job(name, format!("{name} {number}"))).await?;
        }
        // An event and a control message of the same key are something else.
        stage.publish(&there, event(name, "an event")).await?;
        stage.publish(&there, text(Address::Control(key(name)), "a control message")).await?;
    }
    for name in names {
        let mut reader = stage.reader(&here, Source::Queue(key(name)), 1).await?;
        let mut events = stage.reader(&here, Source::Topic(patterns(&[name])), 1).await?;
        stage.publish(&there, job(name, format!("{name} 3"))).await?;
        stage.publish(&there, event(name, "the event")).await?;
        for number in 0..4 {
            reader.expect(&format!("{name} {number}")).await?;
        }
        events.expect("the event").await?;
    }
    Ok(())
}
