//! What Redis alone can do to a bus, and how it comes back.

use super::*;
use crate::STRICT;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_dead_process_held_comes_again_within_seconds() -> Outcome {
    let server = Server::redis(STRICT).await?;
    let (doomed, heir) = (connect(&server.uri()).await?, connect(&server.uri()).await?);
    let mut first = doomed.subscribe(jobs(), 1).await?;
    heir.publish(job("a")).await?;
    let held = next(&mut first).await;
    let mut second = heir.subscribe(jobs(), 1).await?;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let start = Instant::now();
    drop(doomed);
    let again = next(&mut second).await;
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
    assert_eq!((body(&again).as_str(), again.redelivered()), ("a", 1));
    again.ack().await?;
    assert!(held.ack().await.is_err(), "the dead process settled");
    heir.close().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_living_consumer_whose_connections_are_cut_keeps_what_it_has() -> Outcome {
    let server = Server::redis(STRICT).await?;
    let (busy, other) = (connect(&server.uri()).await?, connect(&server.uri()).await?);
    let mut first = busy.subscribe(jobs(), 1).await?;
    other.publish(job("a")).await?;
    let held = next(&mut first).await;
    let mut second = other.subscribe(jobs(), 1).await?;
    for _ in 0..3 {
        order(&server, &["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await;
        order(&server, &["CLIENT", "KILL", "TYPE", "pubsub"]).await;
        let stolen = tokio::time::timeout(Duration::from_secs(3), second.next()).await;
        assert!(stolen.is_err(), "stolen: {stolen:?}");
    }
    held.ack().await?;
    until("both consume again", LIMIT, async || first.consuming().get() && second.consuming().get()).await?;
    busy.publish(job("b")).await?;
    tokio::select! {
        delivery = next(&mut first) => assert_eq!(body(&delivery), "b"),
        delivery = next(&mut second) => assert_eq!(body(&delivery), "b"),
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consumers_go_on_after_everything_was_deleted() -> Outcome {
    let server = Server::redis(STRICT).await?;
    let bus = connect(&server.uri()).await?;
    let mut queue = bus.subscribe(jobs(), 4).await?;
    let durable = Source::Durable(Token::new("d")?, vec![Pattern::new("t.#")?]);
    let mut events = bus.subscribe(durable, 4).await?;
    bus.publish(job("before")).await?;
    next(&mut queue).await.ack().await?;
    order(&server, &["FLUSHALL"]).await;
    order(&server, &["SCRIPT", "FLUSH"]).await;
    let start = Instant::now();
    bus.publish(job("after")).await?;
    let delivery = next(&mut queue).await;
    assert_eq!(body(&delivery), "after");
    delivery.ack().await?;
    until("the durable subscription is bound again", LIMIT, async || {
        let Value::Int(n) = order(&server, &["EXISTS", "bus:{commissaire}:1:bind"]).await else {
            return false;
        };
        n == 1
    })
    .await?;
    bus.publish(Message::new(Address::Topic(key("t.x")), "event")?).await?;
    assert_eq!(body(&next(&mut events).await), "event");
    assert!(start.elapsed() < Duration::from_secs(5));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_when_the_server_is_killed() -> Outcome {
    let mut server = Server::redis(STRICT).await?;
    let bus = connect(&server.uri()).await?;
    let mut queue = bus.subscribe(jobs(), 16).await?;
    let mut topic = bus.subscribe(Source::Topic(vec![Pattern::new("t.#")?]), 16).await?;
    let inbox = Inbox::random();
    let mut replies = bus.subscribe(Source::Inbox(inbox), 16).await?;
    let mut calls = bus.subscribe(Source::Service(key("svc")), 16).await?;
    let publisher = bus.clone();
    let publishing = tokio::spawn(async move {
        let mut stored = BTreeSet::new();
        for n in 0..400 {
            if publisher.publish(job(n.to_string())).await.is_ok() {
                stored.insert(n.to_string());
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        stored
    });
    let mut seen = BTreeSet::new();
    for _ in 0..50 {
        let delivery = next(&mut queue).await;
        seen.insert(body(&delivery));
        delivery.ack().await?;
    }
    server.kill();
    until("all know that it is gone", LIMIT, async || {
        ![&queue, &topic, &replies, &calls].iter().any(|s| s.consuming().get())
    })
    .await?;
    server.restart().await?;
    let start = Instant::now();
    until("all consume again", LIMIT, async || {
        [&queue, &topic, &replies, &calls].iter().all(|s| s.consuming().get())
    })
    .await?;
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    bus.publish(Message::new(Address::Inbox(inbox), "reply")?).await?;
    assert_eq!(body(&next(&mut replies).await), "reply");
    until("calls are taken again", Duration::from_secs(5), async || {
        bus.publish(Message::new(Address::Service(key("svc.m")), "call").unwrap()).await.is_ok()
    })
    .await?;
    assert_eq!(body(&next(&mut calls).await), "call");
    assert!(matches!(within("a gap", LIMIT, topic.next()).await?, Some(Received::Gap(_))));
    let stored = publishing.await?;
    while !seen.is_superset(&stored) {
        let delivery = within("the rest", Duration::from_secs(40), queue.next_delivery()).await?.unwrap();
        seen.insert(body(&delivery));
        delivery.ack().await?;
    }
    bus.close().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reply_that_comes_while_reconnecting_is_kept() -> Outcome {
    let server = Server::redis(&[]).await?;
    let (here, there) = (connect(&server.uri()).await?, connect(&server.uri()).await?);
    let inbox = Inbox::random();
    let mut replies = here.subscribe(Source::Inbox(inbox), 100).await?;
    for round in 0..3 {
        order(&server, &["CLIENT", "KILL", "TYPE", "pubsub"]).await;
        for n in 0..10 {
            there.publish(Message::new(Address::Inbox(inbox), format!("{round} {n}"))?).await?;
        }
        let mut got = BTreeSet::new();
        while got.len() < 10 {
            got.insert(body(&next(&mut replies).await));
        }
        assert!(got.iter().all(|body| body.starts_with(&round.to_string())), "{got:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_letter_that_does_not_fit_leaves_the_message_where_it_was() -> Outcome {
    let server = Server::redis(STRICT).await?;
    let bus = connect(&server.uri()).await?;
    let mut queue = bus.subscribe(jobs(), 4).await?;
    bus.publish(job("a")).await?;
    bus.publish(job("b")).await?;
    let (first, second) = (next(&mut queue).await, next(&mut queue).await);
    order(&server, &["CONFIG", "SET", "maxmemory", "1"]).await;
    let error = first.term("rejected", "no").await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Full, "{error}");
    assert_eq!(*bus.publish(job("c")).await.unwrap_err().kind(), ErrorKind::Full);
    second.ack().await?;
    order(&server, &["CONFIG", "SET", "maxmemory", "0"]).await;
    let pending = order(&server, &["XPENDING", "bus:{commissaire}:1:q:jobs.test", "g"]).await;
    assert!(matches!(&pending, Value::Array(items) if items.first() == Some(&Value::Int(1))), "{pending:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_read_becomes_a_dead_letter() -> Outcome {
    let server = Server::redis(&[]).await?;
    let bus = connect(&server.uri()).await?;
    let mut queue = bus.subscribe(jobs(), 1).await?;
    order(&server, &["XADD", "bus:{commissaire}:1:q:jobs.test", "*", "m", "\x01\x01rubbish"]).await;
    order(&server, &["XADD", "bus:{commissaire}:1:q:jobs.test", "*", "x", "y"]).await;
    bus.publish(job("good")).await?;
    assert_eq!(body(&next(&mut queue).await), "good");
    let mut dead = bus.subscribe(Source::DeadLetters(Origin::Queue(key("jobs.test"))), 4).await?;
    let letter = next(&mut dead).await;
    assert_eq!(letter.message().headers().get("bus-dead"), Some("malformed"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_calls_leave_no_key_behind() -> Outcome {
    let server = Server::redis(&[]).await?;
    let (client, service) = (connect(&server.uri()).await?, connect(&server.uri()).await?);
    let inbox = Inbox::random();
    let mut replies = client.subscribe(Source::Inbox(inbox), 64).await?;
    let mut calls = service.subscribe(Source::Service(key("svc")), 64).await?;
    let mut queue = service.subscribe(jobs(), 4).await?;
    let answering = service.clone();
    let server_side = tokio::spawn(async move {
        for _ in 0..1000 {
            let call = next(&mut calls).await;
            let reply = Message::new(Address::Inbox(inbox), call.message().body().clone()).unwrap();
            answering.publish(reply).await.unwrap();
            call.ack().await.unwrap();
        }
    });
    for n in 0..1000 {
        let call = Message::new(Address::Service(key("svc.m")), n.to_string())?.with_ttl(LIMIT);
        client.publish(call).await?;
        if n % 8 == 7 {
            for _ in 0..8 {
                next(&mut replies).await.ack().await?;
            }
        }
    }
    client.publish(job("a")).await?;
    next(&mut queue).await.ack().await?;
    // It has acknowledged the last call only after its answer was there.
    within("the service ends", LIMIT, server_side).await??;
    service.close().await?;
    client.close().await?;
    let left = order(&server, &["KEYS", "*"]).await;
    let Value::Array(left) = left else { panic!("{left:?}") };
    let left: Vec<String> = left.into_iter().map(|key| redis::from_redis_value(key).unwrap()).collect();
    assert_eq!(left, ["bus:{commissaire}:1:q:jobs.test"], "the queue's own stream is meant to stay");
    Ok(())
}
