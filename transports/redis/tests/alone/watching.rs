//! An administrator takes things away under a running service: it makes them again, and says meanwhile that it does not
//! consume.

use super::*;
use crate::STRICT;

const PREFIX: &str = "bus:{commissaire}:1:";
/// Within this everything consumes again.
const SOON: Duration = Duration::from_secs(5);

/// Publishes `message` anew until `subscription` gets one of it; how long that took since `start`.
async fn comes_again(
    bus: &Arc<dyn Bus>,
    message: impl Fn() -> Message,
    subscription: &mut Subscription,
    start: Instant,
) -> Outcome<Duration> {
    let what = format!("what is sent to {} comes again", message().address());
    until(what, LIMIT, async || {
        if bus.publish(message()).await.is_err() {
            return false;
        }
        match tokio::time::timeout(Duration::from_millis(50), subscription.next_delivery()).await {
            Ok(Some(delivery)) => delivery.ack().await.is_ok(),
            _ => false,
        }
    })
    .await?;
    until("it says that it consumes", LIMIT, async || subscription.consuming().get()).await?;
    Ok(start.elapsed())
}

/// What is done to a server with a running service, by its commands.
async fn survives(orders: &[&[&str]]) -> Outcome {
    let server = Server::redis(STRICT).await?;
    let (service, publisher) = (connect(&server.uri()).await?, connect(&server.uri()).await?);
    let mut queue = service.subscribe(jobs(), 4).await?;
    let mut events = service.subscribe(durable(), 4).await?;
    let mut calls = service.subscribe(Source::Service(key("svc")), 4).await?;
    let call = || Message::new(Address::Service(key("svc.m")), "x").unwrap().with_ttl(LIMIT);
    // The publisher knows the bindings by now.
    publisher.publish(event("before")).await?;
    next(&mut events).await.ack().await?;
    publisher.publish(job("before")).await?;
    next(&mut queue).await.ack().await?;
    let start = Instant::now();
    for order_words in orders {
        order(&server, order_words).await;
    }
    for (message, subscription) in [
        (&(|| job("again")) as &(dyn Fn() -> Message + Sync), &mut queue),
        (&|| event("again"), &mut events),
        (&call, &mut calls),
    ] {
        let took = comes_again(&publisher, message, subscription, start).await?;
        assert!(took < SOON, "{took:?} after {orders:?}");
    }
    // A publisher that comes now finds the bindings as well.
    let late = connect(&server.uri()).await?;
    late.publish(event("late")).await?;
    let got = async { while body(&next(&mut events).await) != "late" {} };
    within("an event of a new publisher", LIMIT, got).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_stream_is_made_again() -> Outcome {
    survives(&[&["DEL", &format!("{PREFIX}q:jobs.test"), &format!("{PREFIX}sub:d")]]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_destroyed_group_is_made_again() -> Outcome {
    survives(&[
        &["XGROUP", "DESTROY", &format!("{PREFIX}q:jobs.test"), "g"],
        &["XGROUP", "DESTROY", &format!("{PREFIX}sub:d"), "g"],
    ])
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleted_bindings_are_made_again() -> Outcome {
    survives(&[&["DEL", &format!("{PREFIX}bind"), &format!("{PREFIX}bind:v")]]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_version_of_the_bindings_is_made_again() -> Outcome {
    survives(&[&["DEL", &format!("{PREFIX}bind:v")]]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleted_bindings_alone_are_made_again_and_noticed_by_those_who_know_none() -> Outcome {
    let server = Server::redis(STRICT).await?;
    let (service, publisher) = (connect(&server.uri()).await?, connect(&server.uri()).await?);
    let mut events = service.subscribe(durable(), 4).await?;
    order(&server, &["DEL", &format!("{PREFIX}bind")]).await;
    // The first publisher to look finds none, and remembers that under the version that is there.
    let start = Instant::now();
    publisher.publish(event("to nobody")).await?;
    let took = comes_again(&publisher, || event("again"), &mut events, start).await?;
    assert!(took < SOON, "{took:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_sign_of_life_is_given_again() -> Outcome {
    survives(&[&["DEL", &format!("{PREFIX}live:svc"), &format!("{PREFIX}rpc:svc")]]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_that_was_flushed_is_made_again() -> Outcome {
    survives(&[&["FLUSHALL"], &["SCRIPT", "FLUSH"]]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_whose_hands_are_full_makes_its_stream_again_too() -> Outcome {
    let server = Server::redis(STRICT).await?;
    let bus = connect(&server.uri()).await?;
    let mut queue = bus.subscribe(jobs(), 1).await?;
    bus.publish(job("held")).await?;
    let held = next(&mut queue).await;
    order(&server, &["DEL", &format!("{PREFIX}q:jobs.test")]).await;
    bus.publish(job("next")).await?;
    held.ack().await?;
    let start = Instant::now();
    assert_eq!(body(&next(&mut queue).await), "next");
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_there_is_not_consumed() -> Outcome {
    let server = Server::redis(STRICT).await?;
    let bus = connect(&server.uri()).await?;
    let queue = bus.subscribe(jobs(), 4).await?;
    let other = bus.subscribe(Source::Queue(key("jobs.other")), 4).await?;
    // The right to make groups is taken away, and then the group.
    order(&server, &["ACL", "SETUSER", "default", "-xgroup|create"]).await;
    order(&server, &["XGROUP", "DESTROY", &format!("{PREFIX}q:jobs.test"), "g"]).await;
    until("it does not consume", LIMIT, async || !queue.consuming().get()).await?;
    until("the other does", LIMIT, async || other.consuming().get()).await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(!queue.consuming().get());
    order(&server, &["ACL", "SETUSER", "default", "+xgroup|create"]).await;
    until("it consumes again", SOON, async || queue.consuming().get() && other.consuming().get()).await
}
