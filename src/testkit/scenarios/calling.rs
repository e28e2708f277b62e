//! Calls: shared out among those who run now, refused at once when there is nobody.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream};

use super::{each_once, share_out};
use crate::{
    bus::Bus,
    error::{Error, ErrorKind},
    subscription::Source,
    testkit::{
        Failure, Lateness, Outcome, Reader, Stage,
        target::{body, call, job, key},
        until,
        wait::{ensure, within},
    },
};

/// The most that a call to nobody may take, beside what a plain timer is late.
const AT_ONCE: Duration = Duration::from_millis(250);

fn calc() -> Source {
    Source::Service(key("calc"))
}

pub(crate) async fn instances_of_a_service_share_the_calls(stage: Arc<Stage>) -> Outcome {
    const CALLS: usize = 1_000;
    let caller = stage.bus().await?;
    let mut readers = Vec::new();
    for _ in 0..2 {
        let bus = stage.bus().await?;
        readers.push(stage.reader(&bus, calc(), 4).await?);
    }
    let calls = (0..CALLS).map(|number| call("calc.add", number.to_string())).collect();
    let (got, ()) =
        futures_util::try_join!(share_out(&mut readers, CALLS), stage.publish_all(&caller, calls))?;
    let shares: Vec<usize> = got.iter().map(Vec::len).collect();
    ensure!(shares.iter().all(|share| share * 50 >= CALLS), "the instances got {shares:?} of {CALLS}");
    each_once("calls to two instances", CALLS, got.into_iter().flatten())?;
    // The one that stays takes them all, whatever the method, once the other has left in order.
    let mut stays = readers.remove(0);
    for mut leaving in readers {
        leaving.close();
        while let Some(delivery) = leaving.next_or_end().await? {
            delivery.ack().await?;
        }
    }
    for method in ["calc.add", "calc.subtract", "calc.multiply"] {
        stage.publish(&caller, call(method, method)).await?;
        stays.expect(method).await?;
    }
    Ok(())
}

/// Calls until `reader` gets a call: an instance that has just gone may have been counted on.
async fn reaches(stage: &Stage, bus: &Arc<dyn Bus>, reader: &mut Reader) -> Outcome {
    until("the instance that stays gets a call", stage.patience(), async || {
        let published = bus.publish(call("calc.add", "still one")).await;
        let soon = Duration::from_millis(100);
        published.is_ok() && matches!(tokio::time::timeout(soon, reader.take_body()).await, Ok(Ok(_)))
    })
    .await
}

pub(crate) async fn services_under_jobs_have_addresses_of_their_own(stage: Arc<Stage>) -> Outcome {
    let (here, there) = (stage.bus().await?, stage.bus().await?);
    let mut upgrade = stage.reader(&here, Source::Service(key("jobs.cluster.upgrade")), 4).await?;
    refused_at_once(&stage, &there, "jobs.cluster.restart").await?;
    refused_at_once(&stage, &there, "jobs.cluster").await?;
    let mut restart = stage.reader(&here, Source::Service(key("jobs.cluster.restart")), 4).await?;
    for name in ["jobs.cluster.upgrade", "jobs.cluster.restart"] {
        stage.publish(&there, call(name, name)).await?;
        // A queue of the same key is something else.
        stage.publish(&there, job(name, "a job")).await?;
        stage.publish(&there, call(name, "end")).await?;
    }
    for (reader, name) in [(&mut upgrade, "jobs.cluster.upgrade"), (&mut restart, "jobs.cluster.restart")] {
        reader.expect(name).await?;
        reader.expect("end").await?;
    }
    Ok(())
}

pub(crate) async fn a_call_to_nobody_fails_at_once(stage: Arc<Stage>) -> Outcome {
    let (here, there) = (stage.bus().await?, stage.bus().await?);
    // Others are there, but none who answers.
    let _neighbours = [
        stage.reader(&here, Source::Service(key("calc.deep")), 1).await?,
        stage.reader(&here, Source::Control(key("calc")), 1).await?,
        stage.reader(&here, Source::Queue(key("calc.add")), 1).await?,
    ];
    for _ in 0..50 {
        refused_at_once(&stage, &there, "calc.add").await?;
    }
    Ok(())
}

async fn refused_at_once(stage: &Stage, bus: &Arc<dyn Bus>, method: &str) -> Outcome {
    let control = Lateness::watch();
    let start = Instant::now();
    let refused = within("a call to nobody", stage.patience(), bus.publish(call(method, "x"))).await?;
    let (took, late) = (start.elapsed(), control.worst());
    ensure!(nobody(refused.as_ref().err()), "a call to nobody gave {refused:?}");
    ensure!(took <= AT_ONCE + late, "a call to nobody took {took:?} to fail (a plain timer: {late:?} late)");
    Ok(())
}

fn nobody(error: Option<&Error>) -> bool {
    error.is_some_and(|e| *e.kind() == ErrorKind::NoResponders && !e.may_have_executed() && e.is_temporary())
}

pub(crate) async fn a_call_fails_at_once_when_the_last_instance_has_gone(stage: Arc<Stage>) -> Outcome {
    let (here, there) = (stage.bus().await?, stage.bus().await?);
    for dropped in [false, true] {
        let mut first = stage.reader(&here, calc(), 4).await?;
        let second = stage.reader(&here, calc(), 4).await?;
        drop(second);
        reaches(&stage, &there, &mut first).await?;
        if dropped {
            drop(first);
        } else {
            first.close();
            while let Some(delivery) = first.next_or_end().await? {
                delivery.ack().await?;
            }
        }
        // The broker hears of it soon, and from then on every call fails.
        until("a call to a service that has gone is refused", stage.patience(), async || {
            nobody(there.publish(call("calc.add", "x")).await.err().as_ref())
        })
        .await?;
        for _ in 0..10 {
            refused_at_once(&stage, &there, "calc.add").await?;
        }
    }
    let mut again = stage.reader(&here, calc(), 1).await?;
    stage.publish(&there, call("calc.add", "again")).await?;
    // A call that was taken while the instance was leaving is still of use, so it may come first.
    loop {
        match again.take_body().await?.as_str() {
            "x" => {}
            "again" => return Ok(()),
            other => return Err(Failure::new(format!("{other:?} came where \"again\" was awaited"))),
        }
    }
}

pub(crate) async fn a_call_fails_at_once_when_the_last_program_has_left(stage: Arc<Stage>) -> Outcome {
    let (here, there) = (stage.bus().await?, stage.bus().await?);
    let mut service = stage.reader(&here, calc(), 4).await?;
    stage.publish(&there, call("calc.add", "served")).await?;
    service.expect("served").await?;
    here.close().await?;
    // It has left when `close` returns: not one call more is taken.
    for _ in 0..10 {
        refused_at_once(&stage, &there, "calc.add").await?;
    }
    Ok(())
}

pub(crate) async fn an_expired_call_is_never_delivered(stage: Arc<Stage>) -> Outcome {
    const TTL: Duration = Duration::from_millis(400);
    let (here, there) = (stage.bus().await?, stage.bus().await?);
    let mut service = stage.reader(&here, calc(), 1).await?;
    stage.publish(&there, call("calc.add", "held")).await?;
    let held = service.next().await?;
    stage.publish(&there, call("calc.add", "patient")).await?;
    // These wait behind the one in hand until they are of no use to anybody.
    for number in 0..20 {
        let expiring = call("calc.add", format!("expired {number}")).with_ttl(TTL);
        let published = within("a call", stage.patience(), there.publish(expiring)).await?;
        let refused = published.as_ref().err();
        ensure!(refused.is_none_or(|e| !e.may_have_executed()), "a call that waits gave {published:?}");
    }
    tokio::time::sleep(TTL + Duration::from_millis(50)).await;
    stage.publish(&there, call("calc.add", "end")).await?;
    held.ack().await?;
    let patient = service.next().await?;
    let (text, left) = (body(patient.message()), patient.message().ttl());
    ensure!(text == "patient", "{text:?} came where \"patient\" was awaited");
    // A deadline shrinks while its call waits.
    ensure!(
        left.is_some_and(|left| left <= Duration::from_secs(60) - TTL),
        "a call of 60 s that waited for {TTL:?} has {left:?} left"
    );
    patient.ack().await?;
    service.expect("end").await
}

pub(crate) async fn a_service_with_too_many_calls_is_busy(stage: Arc<Stage>) -> Outcome {
    const MOST: usize = 20_000;
    let (here, there) = (stage.bus().await?, stage.bus().await?);
    let mut service = stage.reader(&here, calc(), 16).await?;
    for _ in 0..16 {
        stage.publish(&there, call("calc.add", "held")).await?;
    }
    let held = service.hold(16).await?;
    // Longer than the scenario may take: none of them ends while it waits.
    let ttl = Duration::from_secs(600);
    let published: Vec<Result<(), Error>> = stream::iter(0..MOST)
        .map(|number| there.publish(call("calc.add", number.to_string()).with_ttl(ttl)))
        .buffered(64)
        .collect()
        .await;
    let taken = published.iter().filter(|published| published.is_ok()).count();
    let busy = |e: &Error| *e.kind() == ErrorKind::Busy && !e.may_have_executed() && e.is_temporary();
    let other = published.iter().filter_map(|published| published.as_ref().err()).find(|e| !busy(e));
    ensure!(other.is_none(), "a call to a service with many waiting gave {other:?}");
    ensure!((1..MOST).contains(&taken), "a service took {taken} calls while it was at work on others");
    for call in held {
        call.ack().await?;
    }
    // What was taken is delivered; what was refused is not; then there is room again.
    for _ in 0..taken {
        let text = service.take_body().await?;
        let number: usize = text.parse().unwrap_or(MOST);
        ensure!(published.get(number).is_some_and(Result::is_ok), "a refused call was delivered: {text:?}");
    }
    stage.publish(&there, call("calc.add", "end")).await?;
    service.expect("end").await
}
