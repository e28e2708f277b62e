//! The broker's disk is slow, or full.

use std::{
    io::{Write, stderr},
    time::{Duration, Instant},
};

use commissaire::{Address, Key, Message, testkit::Seen};
use commissaire_integration::{
    Blow, Disk, Kind, Lateness, Outcome, PATIENCE, Plan, Site, Strain, alone, each_server, ensure, join,
    left_out, long, seed, slow_sync, until, within,
};

each_server!(
    nothing_is_lost_when_a_broker_is_killed_whose_disk_is_slow,
    nothing_is_lost_when_the_disk_is_full,
);

/// How large the full disk is. RabbitMQ makes room for 64 MB of its log at a time.
const MEBIBYTES: u32 = 200;
/// How soon everything goes on once the broker is back.
const BACK: Duration = Duration::from_secs(5);

async fn nothing_is_lost_when_a_broker_is_killed_whose_disk_is_slow(kind: Kind) -> Outcome {
    if kind == Kind::Amqp && left_out("amqp::nothing_is_lost_when_a_broker_is_killed_whose_disk_is_slow") {
        return Ok(());
    }
    let _machine = alone().await;
    let (messages, blows, sync_ms) =
        long("messages, kills, and how slow each sync is in ms", (300, 1, 20), (10_000, 10, 100));
    let mut site = Site::alone(kind).await?;
    let server = site.broker.server()?;
    slow_sync(server, sync_ms);
    server.restart().await?;
    let plan = Plan {
        messages,
        publishers: 64,
        rest: Duration::ZERO,
        workers: 8,
        callers: 0,
        ..Plan::of(seed()?, vec![Blow::Kill; blows])
    };
    let report = plan.run(&mut site).await?;
    println!("{}", serde_json::to_string(&report).unwrap_or_default());
    ensure!(report.well(), "{report:?}");
    Ok(())
}

/// The folder of a server's data, below its own.
fn folder(kind: Kind) -> &'static str {
    match kind {
        Kind::Redis | Kind::Memory => ".",
        Kind::Nats => "jetstream",
        Kind::Amqp => "data",
    }
}

async fn nothing_is_lost_when_the_disk_is_full(kind: Kind) -> Outcome {
    if kind == Kind::Amqp && left_out("amqp::nothing_is_lost_when_the_disk_is_full") {
        return Ok(());
    }
    let _machine = alone().await;
    let messages = long("messages, while a disk is full", 1_000, 20_000);
    let mut site = Site::alone(kind).await?;
    let uri = site.broker.uri();
    let server = site.broker.server()?;
    let Some(disk) = Disk::over(&server.dir().join(folder(kind)), MEBIBYTES)? else {
        let _ =
            writeln!(stderr(), "nothing_is_lost_when_the_disk_is_full: excluded: only root may mount a disk");
        return Ok(());
    };
    disk.under(server);
    server.restart().await?;
    let bus = join(&uri).await?;
    let strain = Strain::new(seed()?, messages)?;
    let lateness = Lateness::watch();
    let faults = async {
        until("half is published", PATIENCE, async || strain.published() as u64 > messages / 2).await?;
        disk.fill()?;
        strain.history.note(Seen::Down);
        let filled = Instant::now();
        let error = loop {
            let message = Message::new(Address::Queue(Key::new("jobs.probe")?), vec![0; 64 << 10])?;
            match within("a publish", PATIENCE, bus.publish(message)).await? {
                Err(error) => break error,
                Ok(()) => ensure!(filled.elapsed() < PATIENCE, "the broker still takes messages"),
            }
        };
        println!("{error} ({:?})", error.kind());
        ensure!(error.is_temporary(), "{error:?}");
        disk.free()?;
        // None of them gets over it by itself: redis-server ends, nats-server gives JetStream up, and RabbitMQ its log.
        server.restart().await?;
        strain.history.note(Seen::Up);
        let back = strain.goes_on().await?;
        println!("it goes on after {back:?}");
        ensure!(back <= BACK + lateness.worst(), "it went on after {back:?}");
        Ok(())
    };
    strain.run(&uri, faults).await?;
    Ok(bus.close().await?)
}
