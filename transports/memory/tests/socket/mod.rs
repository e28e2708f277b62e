//! The socket on which a memory bus is shared.

use std::{
    io::Write,
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use commissaire::{
    Address, Bus, BusOptions, Client, Connection, ErrorKind, Key, Message, Received, Source, Token,
    testkit::{until, within},
};
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(10);

async fn share(path: &Path) -> commissaire::Result<Arc<dyn Bus>> {
    let uri = format!("memory://?listen={}", path.display()).parse()?;
    (commissaire_memory::DRIVER.connect)(uri, BusOptions::default()).await
}

async fn join(path: &Path) -> commissaire::Result<Arc<dyn Bus>> {
    let uri = format!("unix://{}", path.display()).parse()?;
    (commissaire_memory::UNIX_DRIVER.connect)(uri, BusOptions::default()).await
}

fn place() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bus.sock");
    (dir, path)
}

fn event(body: &str) -> Message {
    Message::new(Address::Topic(Key::new("notify.x").unwrap()), body.to_owned()).unwrap()
}

fn job(body: &str) -> Message {
    Message::new(Address::Queue(Key::new("jobs.x").unwrap()), body.to_owned()).unwrap()
}

#[tokio::test]
async fn only_its_owner_may_use_it_and_it_goes_with_its_bus() {
    let (_dir, path) = place();
    let bus = share(&path).await.unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let error = share(&path).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Config, "{error}");
    bus.close().await.unwrap();
    assert!(!path.exists());
    let error = join(&path).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Unavailable, "{error}");
}

#[tokio::test]
async fn a_socket_that_nobody_serves_is_replaced() {
    let (_dir, path) = place();
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let bus = share(&path).await.unwrap();
    join(&path).await.unwrap().close().await.unwrap();
    bus.close().await.unwrap();
}

#[tokio::test]
async fn what_a_process_that_died_had_in_hand_comes_again_as_redelivered() {
    let (_dir, path) = place();
    let bus = share(&path).await.unwrap();
    let dying = join(&path).await.unwrap();
    let mut jobs = dying.subscribe(Source::Queue(Key::new("jobs.x").unwrap()), 4).await.unwrap();
    bus.publish(job("one")).await.unwrap();
    let in_hand = jobs.next_delivery().await.unwrap();
    assert_eq!((in_hand.redelivered(), in_hand.attempt()), (0, 1));
    // Leaves without a word: the connection ends, and nothing was settled.
    drop(dying);
    let mut jobs = bus.subscribe(Source::Queue(Key::new("jobs.x").unwrap()), 4).await.unwrap();
    let again =
        within("the job comes again", LIMIT, jobs.next_delivery()).await.unwrap_or_else(|e| panic!("{e}"));
    let again = again.unwrap();
    assert_eq!((again.redelivered(), again.attempt()), (1, 1));
    again.ack().await.unwrap();
    // The hand that is late settles nothing.
    assert!(in_hand.ack().await.is_err());
}

#[tokio::test]
async fn after_the_sharing_process_was_lost_everything_is_taken_up_again_and_gaps_are_told() {
    let (_dir, path) = place();
    let host = share(&path).await.unwrap();
    let bus = join(&path).await.unwrap();
    let mut connection = bus.connection();
    assert_eq!((connection.now(), host.connection().now()), (Connection::Up, Connection::Up));
    let mut events = bus.subscribe(Source::Topic(vec!["notify.#".parse().unwrap()]), 8).await.unwrap();
    let name = Token::new("kept").unwrap();
    let mut kept = bus.subscribe(Source::Durable(name, vec!["notify.#".parse().unwrap()]), 8).await.unwrap();
    host.publish(event("before")).await.unwrap();
    for source in [&mut events, &mut kept] {
        let delivery = source.next_delivery().await.unwrap();
        assert_eq!(&delivery.message().body()[..], b"before");
        delivery.ack().await.unwrap();
    }
    host.close().await.unwrap();
    until("the loss is noticed", LIMIT, async || !events.consuming().get())
        .await
        .unwrap_or_else(|e| panic!("{e}"));
    let down = within("it is told", LIMIT, connection.changed()).await.unwrap_or_else(|e| panic!("{e}"));
    assert!(matches!(down, Some(Connection::Down { .. })), "{down:?}");
    let host = share(&path).await.unwrap();
    // Waits for the connection, for nothing was sent before.
    bus.publish(event("after")).await.unwrap();
    let up = within("it is told", LIMIT, connection.changed()).await.unwrap_or_else(|e| panic!("{e}"));
    assert_eq!((up, connection.now()), (Some(Connection::Up), Connection::Up));
    for source in [&mut events, &mut kept] {
        let next = within("a gap", LIMIT, source.next()).await.unwrap_or_else(|e| panic!("{e}"));
        assert!(matches!(next, Some(Received::Gap(_))), "{next:?}");
        let next = within("the event after", LIMIT, source.next()).await.unwrap_or_else(|e| panic!("{e}"));
        let Some(Received::Delivery(delivery)) = next else { panic!("{next:?}") };
        assert_eq!(&delivery.message().body()[..], b"after");
        assert!(source.consuming().get());
    }
    drop(host);
}

#[tokio::test]
async fn a_call_under_way_fails_at_once_as_maybe_executed_when_the_sharing_process_is_lost() {
    let (_dir, path) = place();
    let host = share(&path).await.unwrap();
    let mut calls = host.subscribe(Source::Service(Key::new("calc").unwrap()), 1).await.unwrap();
    let client = Client::new(join(&path).await.unwrap()).with_timeout(Duration::from_secs(60));
    let call = tokio::spawn(async move { client.call_raw(Key::new("calc.add").unwrap(), None).await });
    let taken = calls.next_delivery().await.unwrap();
    host.close().await.unwrap();
    let outcome = within("the call fails", LIMIT, call).await.unwrap_or_else(|e| panic!("{e}")).unwrap();
    let error = outcome.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Unavailable);
    assert!(error.may_have_executed());
    drop(taken);
}

#[tokio::test]
async fn what_is_no_frame_ends_its_own_connection_and_harms_nobody() {
    let (_dir, path) = place();
    let host = share(&path).await.unwrap();
    let bus = join(&path).await.unwrap();
    let hello = br#"{"hello":{"version":2,"exchange":"commissaire"}}"#;
    let mut framed = Vec::new();
    framed.extend((2 + hello.len() as u32).to_le_bytes());
    framed.extend((hello.len() as u16).to_le_bytes());
    framed.extend(hello);
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 64], &[0; 64], &[2, 0, 0, 0, 9, 9], &[]] {
        for greeted in [false, true] {
            let mut stream = UnixStream::connect(&path).unwrap();
            if greeted {
                stream.write_all(&framed).unwrap();
            }
            let _ = stream.write_all(garbage);
        }
    }
    let mut jobs = bus.subscribe(Source::Queue(Key::new("jobs.x").unwrap()), 1).await.unwrap();
    bus.publish(job("well")).await.unwrap();
    assert_eq!(&jobs.next_delivery().await.unwrap().message().body()[..], b"well");
    drop(host);
}

/// Polls once, as a caller does that gives up at once.
async fn poll_once<F: Future + Unpin>(mut future: F) {
    std::future::poll_fn(|cx| {
        let _ = std::pin::Pin::new(&mut future).poll(cx);
        std::task::Poll::Ready(())
    })
    .await;
}

#[tokio::test]
async fn a_close_that_comes_while_frames_are_being_sent_ends_the_subscription() {
    let (_dir, path) = place();
    let (host, bus) = (share(&path).await.unwrap(), join(&path).await.unwrap());
    for _ in 0..600 {
        host.publish(job(&"x".repeat(20_000))).await.unwrap();
    }
    let mut jobs = bus.subscribe(Source::Queue(Key::new("jobs.x").unwrap()), 2000).await.unwrap();
    jobs.next_delivery().await.unwrap().ack().await.unwrap();
    jobs.close();
    let drained = async {
        while let Some(delivery) = jobs.next_delivery().await {
            delivery.ack().await.unwrap();
        }
    };
    within("the subscription ends", LIMIT, drained).await.unwrap_or_else(|e| panic!("{e}"));
}

#[tokio::test]
async fn a_subscribe_that_is_dropped_half_way_consumes_nothing() {
    let (_dir, path) = place();
    let (host, bus) = (share(&path).await.unwrap(), join(&path).await.unwrap());
    poll_once(bus.subscribe(Source::Service(Key::new("calc").unwrap()), 8)).await;
    let call = || Message::new(Address::Service(Key::new("calc.add").unwrap()), "{}").unwrap();
    until("nobody answers", LIMIT, async || {
        host.publish(call()).await.is_err_and(|e| *e.kind() == ErrorKind::NoResponders)
    })
    .await
    .unwrap_or_else(|e| panic!("{e}"));
}

#[tokio::test]
async fn a_settlement_that_is_dropped_half_way_loses_nothing() {
    const JOBS: usize = 400;
    let (_dir, path) = place();
    let (host, bus) = (share(&path).await.unwrap(), join(&path).await.unwrap());
    for number in 0..JOBS {
        host.publish(job(&number.to_string())).await.unwrap();
    }
    let mut jobs = bus.subscribe(Source::Queue(Key::new("jobs.x").unwrap()), JOBS as u16).await.unwrap();
    let mut held = Vec::new();
    while held.len() < JOBS {
        held.push(jobs.next_delivery().await.unwrap());
    }
    // Nothing is written between these polls, and 256 frames wait at the most: the others have no room.
    for delivery in held {
        poll_once(Box::pin(delivery.ack())).await;
    }
    let mut seen = std::collections::HashSet::new();
    let others_come_again = async {
        while seen.len() < JOBS - 256 {
            let delivery = jobs.next_delivery().await.unwrap();
            let body = String::from_utf8(delivery.message().body().to_vec()).unwrap();
            assert!(seen.insert(body.clone()), "{body} came twice");
            delivery.ack().await.unwrap();
        }
    };
    within("what was not settled comes again", LIMIT, others_come_again)
        .await
        .unwrap_or_else(|e| panic!("{e}"));
}

#[tokio::test]
async fn a_message_full_of_headers_can_be_tried_again_and_buried() {
    let (_dir, path) = place();
    let (_host, bus) = (share(&path).await.unwrap(), join(&path).await.unwrap());
    let mut message = job("full");
    while let Ok(more) = message.clone().with(format!("h{}", message.headers().iter().len()), "v") {
        message = more;
    }
    bus.publish(message).await.unwrap();
    let mut jobs = bus.subscribe(Source::Queue(Key::new("jobs.x").unwrap()), 1).await.unwrap();
    for attempt in 1..=3 {
        let delivery = jobs.next_delivery().await.unwrap();
        assert_eq!(delivery.attempt(), attempt);
        delivery.nack(Duration::ZERO, "again").await.unwrap();
    }
    jobs.next_delivery().await.unwrap().term("attempts", "enough").await.unwrap();
}
