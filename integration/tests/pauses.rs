//! Somebody stands still for a while (SIGSTOP): connections stay open, and nothing answers.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use commissaire::{Client, Error, Key, testkit::Proxy};
use commissaire_integration::{
    Failure, Kind, Lateness, Outcome, PATIENCE, Process, Signal, Site, Strain, alone, each_server, ensure,
    join, left_out, long, seed, until, within,
};
use commissaire_simple::{Add, Sum};
use tokio::task::JoinSet;

each_server!(
    every_call_ends_in_time_while_the_broker_stands_still,
    a_listener_that_stands_still_costs_nothing_but_time,
);

/// How long a call may wait for its answer, and by how much it may be late.
const CALL: Duration = Duration::from_secs(2);
const LATE: Duration = Duration::from_millis(50);
/// How many events `listen` has in hand at the most.
const IN_HAND: usize = 256;

fn pause() -> Duration {
    long("how long something stands still", Duration::from_secs(5), Duration::from_secs(20))
}

/// Calls for `time`; the longest that a call took, and how the last one ended.
async fn call(client: Client, time: Duration) -> Outcome<(Duration, Result<i64, Error>)> {
    let (since, mut longest) = (Instant::now(), Duration::ZERO);
    let mut last = Ok(0);
    while since.elapsed() < time {
        let begun = Instant::now();
        let outcome = within("a call", PATIENCE, client.call(Add, &Sum { x: 2, y: 3 })).await?;
        longest = longest.max(begun.elapsed());
        if outcome.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        last = outcome;
    }
    Ok((longest, last))
}

async fn every_call_ends_in_time_while_the_broker_stands_still(kind: Kind) -> Outcome {
    if kind == Kind::Amqp && left_out("amqp::every_call_ends_in_time_while_the_broker_stands_still") {
        return Ok(());
    }
    let _machine = alone().await;
    let pause = pause();
    let mut site = Site::alone(kind).await?;
    let _simple = site.service("simple", &[]).await?;
    let uri = site.broker.uri();
    let server = &*site.broker.server()?;
    let proxy = Proxy::to(server.port()).await?;
    let uri = proxy.uri(&uri)?;
    let strain = Strain::new(seed()?, 1_000)?;
    let bus = join(&uri).await?;
    let client = Client::new(bus.clone()).with_timeout(CALL);
    let lateness = Lateness::watch();
    let faults = async {
        until("it works", PATIENCE, async || strain.done() > 100).await?;
        let connections = proxy.connected() as u64;
        let mut calling = JoinSet::new();
        for _ in 0..8 {
            calling.spawn(call(client.clone(), pause));
        }
        server.stop()?;
        let dialled = proxy.dialled();
        let mut longest = Duration::ZERO;
        while let Some(called) = calling.join_next().await {
            longest = longest.max(called??.0);
        }
        // Each connection is dialled at most once a second, however long nobody answers.
        let (dials, most) = (proxy.dialled() - dialled, connections * (pause.as_secs() + 2));
        strain.history.note(commissaire::testkit::Seen::Down);
        server.cont()?;
        let back = strain.goes_on().await?;
        let (_, last) = call(client.clone(), Duration::from_secs(5)).await?;
        println!(
            "{dials} dials of {connections} connections, calls took up to {longest:?}, it went on after {back:?}"
        );
        ensure!(longest <= CALL + LATE + lateness.worst(), "a call of {CALL:?} took {longest:?}");
        ensure!(dials <= most, "{dials} dials of {connections} connections in {pause:?}");
        ensure!(back <= kind.back() + lateness.worst(), "it went on after {back:?}");
        ensure!(matches!(last, Ok(5)), "a call 5 s later ended with {last:?}");
        Ok(())
    };
    strain.run(&uri, faults).await?;
    Ok(bus.close().await?)
}

/// The numbers that a listener has printed.
fn heard(listener: &Process) -> HashSet<u64> {
    let read = |line: &String| serde_json::from_str::<serde_json::Value>(line).ok()?["body"].as_u64();
    listener.out().iter().filter_map(read).collect()
}

async fn a_listener_that_stands_still_costs_nothing_but_time(kind: Kind) -> Outcome {
    let _machine = alone().await;
    let pause = pause();
    let site = Site::on(kind).await?;
    let bus = site.join().await?;
    let mut listeners = Vec::new();
    for _ in 0..2 {
        let mut listener = site.cli(&["listen", "notify.pause", "--durable", "pause"])?.start()?;
        listener.logs("listening", |line| line.contains("listening")).await?;
        listeners.push(listener);
    }
    let client = Client::new(bus.clone());
    let announce = async |number: u64| {
        let body = number.to_string().into_bytes();
        within("an event", PATIENCE, client.announce_raw(Key::new("notify.pause")?, body))
            .await?
            .map_err(Failure::from)
    };
    for number in 0..200 {
        announce(number).await?;
    }
    until("both hear something", PATIENCE, async || listeners.iter().all(|one| !heard(one).is_empty()))
        .await?;
    listeners[0].signal(Signal::STOP)?;
    let stopped = Instant::now();
    let mut next = 200;
    while stopped.elapsed() < pause {
        announce(next).await?;
        next += 1;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // Nobody waits for it but what it had in hand.
    let (one, other) = (heard(&listeners[0]), heard(&listeners[1]));
    let missing = (0..next).filter(|number| !one.contains(number) && !other.contains(number)).count();
    ensure!(missing <= IN_HAND, "{missing} of {next} events wait for a listener that stands still");
    listeners[0].signal(Signal::CONT)?;
    let back = Instant::now();
    until("every event is heard", PATIENCE * 2, async || {
        let (one, other) = (heard(&listeners[0]), heard(&listeners[1]));
        (0..next).all(|number| one.contains(&number) || other.contains(&number))
    })
    .await?;
    let back = back.elapsed();
    println!("{missing} of {next} waited, all were heard {back:?} after it went on");
    ensure!(back <= Duration::from_secs(5), "the last event was heard {back:?} after it went on");
    // It is a listener as before.
    let before = heard(&listeners[0]).len();
    for number in next..next + 200 {
        announce(number).await?;
    }
    until("who stood still hears again", Duration::from_secs(5), async || {
        heard(&listeners[0]).len() > before
    })
    .await?;
    for listener in listeners {
        listener.terminate().await?.expect(0)?;
    }
    Ok(bus.close().await?)
}
