//! A subscription ends just as the connection breaks, or before it was made: what it had is not kept from others until its
//! lease is over, and nothing of it stays.

use commissaire::testkit::{Cut, Proxy, Traffic, Way};

use super::*;
use crate::STRICT;

/// Within this after the connection is back somebody has it, far below the lease of 30 s.
const SOON: Duration = Duration::from_secs(5);
/// The key of the queue.
const QUEUE: &str = "bus:{commissaire}:1:q:jobs.test";

/// Waits until so many messages are in somebody's hands.
async fn handed_out(server: &Server, wanted: i64) -> Outcome {
    until(format_args!("{wanted} messages are handed out"), LIMIT, async || {
        let pending = order(server, &["XPENDING", QUEUE, "g"]).await;
        matches!(pending, Value::Array(items) if items.first() == Some(&Value::Int(wanted)))
    })
    .await
}

/// `here` has a subscription that ends while the server's answer, with a message, is on its way to it and is lost.
async fn lost_on_its_way(
    server: &Server,
    proxy: &Proxy,
    here: &Arc<dyn Bus>,
    there: &Arc<dyn Bus>,
) -> Outcome {
    let ends = here.subscribe(jobs(), 4).await?;
    until("its reader waits at the server", LIMIT, async || {
        let Value::Array(readers) = order(server, &["XINFO", "CONSUMERS", QUEUE, "g"]).await else {
            return false;
        };
        let clients = order(server, &["CLIENT", "LIST"]).await;
        let clients: String = redis::from_redis_value(clients).unwrap();
        // Blocked, for a reader that has not read its last answer never comes to wait.
        let waits = |client: &str| client.contains(" flags=b ") && client.contains(" cmd=xreadgroup ");
        !readers.is_empty() && clients.lines().any(waits)
    })
    .await?;
    proxy.set_way(Way::Out, Traffic { stalled: true, ..Traffic::default() });
    there.publish(job("a")).await?;
    handed_out(server, 1).await?;
    drop(ends);
    proxy.cut(Cut::Reset);
    proxy.set(Traffic::default());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_on_its_way_comes_to_another_process() -> Outcome {
    let server = Server::redis(STRICT).await?;
    let proxy = Proxy::to(server.port()).await?;
    let (here, there) = (connect(&proxy.uri(&server.uri())?).await?, connect(&server.uri()).await?);
    lost_on_its_way(&server, &proxy, &here, &there).await?;
    let mut other = there.subscribe(jobs(), 1).await?;
    let delivery = within("what was left over", SOON, other.next_delivery()).await?.unwrap();
    // It was never in anybody's hands.
    assert_eq!((body(&delivery).as_str(), delivery.redelivered()), ("a", 0));
    delivery.ack().await?;
    Ok(here.close().await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_on_its_way_comes_to_the_next_subscription_of_the_same_process() -> Outcome {
    let server = Server::redis(STRICT).await?;
    let proxy = Proxy::to(server.port()).await?;
    let (here, there) = (connect(&proxy.uri(&server.uri())?).await?, connect(&server.uri()).await?);
    lost_on_its_way(&server, &proxy, &here, &there).await?;
    let mut next = here.subscribe(jobs(), 1).await?;
    let delivery = within("what was left over", SOON, next.next_delivery()).await?.unwrap();
    assert_eq!(body(&delivery), "a");
    delivery.ack().await?;
    handed_out(&server, 0).await?;
    Ok(here.close().await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_given_back_to_a_dead_server_comes_to_another_process() -> Outcome {
    let mut server = Server::redis(STRICT).await?;
    let (here, there) = (connect(&server.uri()).await?, connect(&server.uri()).await?);
    let ends = here.subscribe(jobs(), 4).await?;
    for n in 0..3 {
        there.publish(job(n.to_string())).await?;
    }
    handed_out(&server, 3).await?;
    server.kill();
    drop(ends);
    // Longer than a settlement is tried for.
    tokio::time::sleep(Duration::from_secs(11)).await;
    server.restart().await?;
    let start = Instant::now();
    let mut other = there.subscribe(jobs(), 4).await?;
    let mut came = BTreeSet::new();
    while came.len() < 3 {
        let delivery = next(&mut other).await;
        came.insert(body(&delivery));
        delivery.ack().await?;
    }
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    Ok(here.close().await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_gives_up_subscribing_leaves_nothing_to_listen_to() -> Outcome {
    let server = Server::redis(STRICT).await?;
    let bus = connect(&server.uri()).await?;
    let inbox = || Source::Inbox(Inbox::random());
    let _kept = bus.subscribe(inbox(), 1).await?;
    let listened = async || match order(&server, &["PUBSUB", "CHANNELS", "bus:{commissaire}:1:rep:*"]).await {
        Value::Array(channels) => channels.len(),
        other => panic!("{other:?}"),
    };
    server.stop()?;
    for _ in 0..20 {
        let subscribing = tokio::time::timeout(Duration::from_millis(20), bus.subscribe(inbox(), 1));
        assert!(subscribing.await.is_err());
    }
    server.cont()?;
    until("one is listened to", LIMIT, async || listened().await == 1).await?;
    // Nor are the others listened to again: a new connection asks for all at once.
    order(&server, &["CLIENT", "KILL", "TYPE", "pubsub"]).await;
    until("it is listened to again", LIMIT, async || listened().await > 0).await?;
    assert_eq!(listened().await, 1);
    Ok(())
}
