//! The broker dies, or stops for a while, and comes back.

use super::*;

/// From when the port answers again.
const BACK: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_when_the_broker_is_killed() -> Outcome {
    let (mut server, exchange) = (Server::rabbitmq(&[]).await?, exchange());
    let bus = connect(&server.uri(), &exchange).await?;
    let mut queue = bus.subscribe(jobs(), 16).await?;
    let mut durable = bus.subscribe(Source::Durable(Token::new("d")?, patterns(&["t.#"])), 16).await?;
    let mut topic = bus.subscribe(Source::Topic(patterns(&["t.#"])), 16).await?;
    let inbox = Inbox::random();
    let mut replies = bus.subscribe(Source::Inbox(inbox), 16).await?;
    let mut calls = bus.subscribe(Source::Service(key("svc")), 16).await?;
    let publisher = bus.clone();
    let publishing = tokio::spawn(async move {
        let (mut stored, mut tried) = (BTreeSet::new(), 0);
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(6) {
            tried += 1;
            let (job, event) = (job(tried.to_string()), event(tried.to_string()));
            let took = Instant::now();
            let published = (publisher.publish(job).await, publisher.publish(event).await);
            assert!(took.elapsed() < Duration::from_secs(25), "publishing took {:?}", took.elapsed());
            if published.0.is_ok() && published.1.is_ok() {
                stored.insert(tried.to_string());
            }
        }
        stored
    });
    let mut settled = BTreeSet::new();
    while settled.len() < 50 {
        settled.extend(acked(next(&mut queue).await).await);
    }
    // What was acknowledged a second ago is known to the broker.
    tokio::time::sleep(Duration::from_secs(1)).await;
    server.kill();
    let all = |all: [&Subscription; 5]| all.iter().filter(|one| one.consuming().get()).count();
    until("all know that it is gone", LIMIT, async || all([&queue, &durable, &topic, &replies, &calls]) == 0)
        .await?;
    assert!(matches!(bus.connection().now(), Connection::Down { .. }));
    // The connection that publishes may know it a moment later than the one that consumes.
    until("a call is refused as not sent", LIMIT, async || {
        let lost = call("lost").with_ttl(Duration::from_secs(1));
        let refused = bus.publish(lost).await.unwrap_err();
        !refused.may_have_executed()
    })
    .await?;
    server.restart().await?;
    let start = Instant::now();
    until("all consume again", BACK, async || all([&queue, &durable, &topic, &replies, &calls]) == 5).await?;
    println!("all consume again {:?} after the broker was there", start.elapsed());
    let gap = |received: Option<Received>| matches!(received, Some(Received::Gap(_)));
    assert!(gap(within("a gap in the replies", LIMIT, replies.next()).await?));
    bus.publish(Message::new(Address::Inbox(inbox), "reply")?).await?;
    assert_eq!(body(&next(&mut replies).await), "reply");
    bus.publish(call("call")).await?;
    assert_eq!(body(&next(&mut calls).await), "call");
    let stored = publishing.await?;
    assert!(stored.len() > 50, "only {} were stored", stored.len());
    let mut seen = settled.clone();
    while !seen.is_superset(&stored) {
        let delivery = next(&mut queue).await;
        assert!(
            !settled.contains(&body(&delivery)),
            "{} came again after its acknowledgement",
            body(&delivery)
        );
        seen.extend(acked(delivery).await);
    }
    let mut seen = BTreeSet::new();
    while !seen.is_superset(&stored) {
        seen.extend(acked(next(&mut durable).await).await);
    }
    let mut announced = false;
    while let Ok(Some(received)) = tokio::time::timeout(Duration::from_secs(1), topic.next()).await {
        announced |= matches!(received, Received::Gap(_));
    }
    assert!(announced, "no gap for the ephemeral subscription");
    bus.close().await?;
    Ok(())
}

/// The body, if its acknowledgement went through: what was in hand while the connection was lost comes again.
async fn acked(delivery: Delivery) -> Option<String> {
    let text = body(&delivery);
    delivery.ack().await.ok().map(|()| text)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_stops_for_long_is_noticed_and_found_again() -> Outcome {
    use std::io::Write;
    if std::env::var_os("COMMISSAIRE_LONG").is_none() {
        // Not by `eprintln!`, which the test harness would swallow.
        writeln!(std::io::stderr(), "a broker that stops: excluded: needs time: COMMISSAIRE_LONG=1")?;
        return Ok(());
    }
    let (server, exchange) = (Server::rabbitmq(&[]).await?, exchange());
    let bus = connect(&server.uri(), &exchange).await?;
    let mut queue = bus.subscribe(jobs(), 16).await?;
    bus.publish(job("before")).await?;
    next(&mut queue).await.ack().await?;
    server.stop()?;
    let start = Instant::now();
    let refused = bus.publish(job("meanwhile")).await;
    assert!(start.elapsed() < Duration::from_secs(11), "publishing took {:?}", start.elapsed());
    let unknown = refused.as_ref().is_err_and(commissaire::Error::may_have_executed);
    assert!(unknown, "{refused:?}");
    until("the silence is noticed", LIMIT, async || !queue.consuming().get()).await?;
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    tokio::time::sleep(Duration::from_secs(20).saturating_sub(start.elapsed())).await;
    server.cont()?;
    until("it consumes again", BACK, async || queue.consuming().get()).await?;
    bus.publish(job("after")).await?;
    while body(&next(&mut queue).await) != "after" {}
    bus.close().await?;
    Ok(())
}
