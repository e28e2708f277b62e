//! The broker has no room left: publishers are told so within their bound, consumers go on, and when there is room again
//! so does everything.

use std::time::{Duration, Instant};

use commissaire::{Address, Bus, Key, Message, Source};
use commissaire_integration::{
    Broker, Failure, Kind, Lateness, Outcome, PATIENCE, Place, Server, Site, Strain, alone, each_server,
    ensure, join, long, seed, until, within,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

each_server!(a_broker_without_room_stops_publishers_within_their_bound_and_nobody_else);

/// How soon everything goes on once there is room again.
const BACK: Duration = Duration::from_secs(5);
/// The longest that a publish may wait.
const BOUND: Duration = Duration::from_secs(10);

/// A server of each kind whose room can be taken away.
async fn site(kind: Kind) -> Outcome<Site> {
    let store = "{ store_dir: jetstream, max_file_store: 16MB }";
    let server = match kind {
        Kind::Nats => Server::nats(&[("jetstream", store)]).await?,
        _ => return Site::alone(kind).await,
    };
    Ok(Site::of(Place::new()?, Broker::Server(kind, server), None))
}

/// Says one line to a Redis server; the first line of its answer.
async fn redis(server: &Server, line: &str) -> Outcome {
    let mut stream = TcpStream::connect(("127.0.0.1", server.port())).await?;
    stream.write_all(format!("{line}\r\n").as_bytes()).await?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).await?;
    ensure!(answer.starts_with("+OK"), "{line}: {answer}");
    Ok(())
}

fn ballast() -> Outcome<Key> {
    Ok(Key::new("jobs.ballast")?)
}

/// Takes all room away.
async fn take_room(kind: Kind, server: &Server, bus: &dyn Bus) -> Outcome {
    match kind {
        Kind::Redis => redis(server, "CONFIG SET maxmemory 1mb").await,
        Kind::Amqp => {
            server.rabbitmqctl(&["set_vm_memory_high_watermark", "absolute", "1000"]).await.map(drop)
        }
        _ => loop {
            let message = Message::new(Address::Queue(ballast()?), vec![0; 256 << 10])?;
            if bus.publish(message).await.is_err() {
                return Ok(());
            }
        },
    }
}

/// Gives it back.
async fn give_room(kind: Kind, server: &Server, bus: &dyn Bus) -> Outcome {
    match kind {
        Kind::Redis => redis(server, "CONFIG SET maxmemory 0").await,
        Kind::Amqp => server.rabbitmqctl(&["set_vm_memory_high_watermark", "0.6"]).await.map(drop),
        _ => {
            let mut queue = bus.subscribe(Source::Queue(ballast()?), 16).await?;
            while let Ok(Some(delivery)) =
                tokio::time::timeout(Duration::from_secs(1), queue.next_delivery()).await
            {
                delivery.ack().await?;
            }
            Ok(())
        }
    }
}

async fn a_broker_without_room_stops_publishers_within_their_bound_and_nobody_else(kind: Kind) -> Outcome {
    let _machine = alone().await;
    let messages = long("messages, while a broker has no room", 2_000, 20_000);
    let mut site = site(kind).await?;
    let uri = site.broker.uri();
    let server = &*site.broker.server()?;
    let bus = join(&uri).await?;
    let strain = Strain::new(seed()?, messages)?;
    let lateness = Lateness::watch();
    let faults = async {
        until("half is published", PATIENCE, async || strain.published() as u64 > messages / 2).await?;
        take_room(kind, server, &*bus).await?;
        let taken = Instant::now();
        let error = loop {
            // As large as a sliver of room that an acknowledgement gives back is not.
            let message = Message::new(Address::Queue(Key::new("jobs.probe")?), vec![0; 64 << 10])?;
            let begun = Instant::now();
            let outcome = within("a publish", BOUND * 2, bus.publish(message)).await?;
            let took = begun.elapsed();
            ensure!(took <= BOUND + Duration::from_millis(50) + lateness.worst(), "a publish took {took:?}");
            match outcome {
                // What was on its way when the room went is in doubt.
                Err(error) if !error.may_have_executed() => break error,
                outcome => ensure!(taken.elapsed() < PATIENCE, "it still takes messages: {outcome:?}"),
            }
        };
        let text = error.to_string();
        println!("{text}");
        let clear = ["memory", "full", "disk"].iter().any(|word| text.contains(word));
        ensure!(error.is_temporary() && clear, "{error:?}");
        let due = strain.published();
        // Some 200 a second: a retry that cannot be stored keeps its place until its bound is over.
        let patience = PATIENCE.max(Duration::from_secs(due as u64 / 100));
        until("what was published is done all the same", patience, async || {
            // Two of a hundred fail, and there is no room for retries.
            strain.done() * 100 >= due * 95
        })
        .await
        .map_err(|failure| failure.in_step(format!("{} of {due}", strain.done())))?;
        give_room(kind, server, &*bus).await?;
        let back = strain.goes_on().await?;
        println!("it goes on after {back:?}");
        ensure!(back <= BACK + lateness.worst(), "it went on after {back:?}");
        Ok(())
    };
    strain.run(&uri, faults).await?;
    within("closing", PATIENCE, bus.close()).await?.map_err(Failure::from)
}
