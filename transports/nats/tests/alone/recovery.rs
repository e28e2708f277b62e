//! What a server's death does to a bus, and how it comes back.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_when_the_server_is_killed() -> Outcome {
    let mut server = Server::nats(&[]).await?;
    let bus = connect(&server.uri()).await?;
    let mut queue = bus.subscribe(jobs(), 16).await?;
    let mut events = bus.subscribe(durable("d", "d.#"), 16).await?;
    let mut topic = bus.subscribe(Source::Topic(patterns("t.#")), 16).await?;
    let inbox = Inbox::random();
    let mut replies = bus.subscribe(Source::Inbox(inbox), 16).await?;
    let mut calls = bus.subscribe(Source::Service(key("svc")), 16).await?;
    let mut connection = bus.connection();
    let publisher = bus.clone();
    let publishing = tokio::spawn(async move {
        let mut stored = BTreeSet::new();
        for n in 0..400 {
            let sent = if n % 2 == 0 { job(n.to_string()) } else { event("d.x", n.to_string()) };
            if publisher.publish(sent).await.is_ok() {
                stored.insert(n.to_string());
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        stored
    });
    let mut seen = BTreeSet::new();
    for _ in 0..50 {
        seen.insert(take(&mut queue).await);
        seen.insert(take(&mut events).await);
    }
    server.kill();
    until("all know that it is gone", LIMIT, async || {
        ![&queue, &events, &topic, &replies, &calls].iter().any(|s| s.consuming().get())
    })
    .await?;
    assert!(matches!(within("a change", LIMIT, connection.changed()).await?, Some(Connection::Down { .. })));
    assert!(matches!(within("a gap", LIMIT, replies.next()).await?, Some(Received::Gap(_))), "at once");
    server.restart().await?;
    let start = Instant::now();
    until("all consume again", LIMIT, async || {
        [&queue, &events, &topic, &replies, &calls].iter().all(|s| s.consuming().get())
    })
    .await?;
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    assert_eq!(connection.now(), Connection::Up);
    bus.publish(message(Address::Inbox(inbox), "reply")).await?;
    assert_eq!(take(&mut replies).await, "reply");
    until("calls are taken again", Duration::from_secs(5), async || bus.publish(call("call")).await.is_ok())
        .await?;
    assert_eq!(take(&mut calls).await, "call");
    assert!(matches!(within("a gap", LIMIT, topic.next()).await?, Some(Received::Gap(_))));
    let stored = publishing.await?;
    assert!(stored.len() > 300, "only {} were published", stored.len());
    // What was in hand when the server died comes again when its lease ends.
    let limit = Duration::from_secs(40);
    while !seen.is_superset(&stored) {
        let delivery = tokio::select! {
            delivery = within("the rest", limit, queue.next_delivery()) => delivery?,
            delivery = within("the rest", limit, events.next_delivery()) => delivery?,
        };
        let delivery = delivery.unwrap();
        seen.insert(body(&delivery));
        delivery.ack().await?;
    }
    bus.close().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consumers_are_back_within_seconds_each_time() -> Outcome {
    let mut server = Server::nats(&[]).await?;
    let bus = connect(&server.uri()).await?;
    let mut queue = bus.subscribe(jobs(), 4).await?;
    for n in 0..4 {
        server.kill();
        tokio::time::sleep(Duration::from_millis(n * 700)).await;
        server.restart().await?;
        let start = Instant::now();
        bus.publish(job(n.to_string())).await?;
        assert_eq!(take(&mut queue).await, n.to_string());
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stands_still_is_noticed_and_nothing_waits_for_ever() -> Outcome {
    let server = Server::nats(&[]).await?;
    let (bus, service) = (connect(&server.uri()).await?, connect(&server.uri()).await?);
    let mut queue = bus.subscribe(jobs(), 4).await?;
    let mut calls = service.subscribe(Source::Service(key("svc")), 4).await?;
    let control = Lateness::watch();
    server.stop()?;
    let pid = server.pid().unwrap();
    until("all its threads stand still", LIMIT, async || {
        let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        let mut stats = threads.flatten().map(|thread| std::fs::read_to_string(thread.path().join("stat")));
        stats.all(|stat| stat.is_ok_and(|stat| stat.contains(") T ")))
    })
    .await?;
    let start = Instant::now();
    let ttl = Duration::from_millis(800);
    let error = bus.publish(call("late").with_ttl(ttl)).await.unwrap_err();
    let took = start.elapsed();
    assert!(error.may_have_executed() && *error.kind() == ErrorKind::Timeout, "{error:?}");
    assert!(took <= ttl + Duration::from_millis(50) + control.worst(), "{took:?}");
    let error = bus.publish(job("unknown").with_ttl(ttl)).await.unwrap_err();
    assert!(error.may_have_executed(), "{error:?}");
    let mut connection = bus.connection();
    if connection.now() == Connection::Up {
        within("it is taken for dead", Duration::from_secs(15), connection.changed()).await?;
    }
    assert!(matches!(connection.now(), Connection::Down { .. }));
    assert!(!queue.consuming().get());
    // What is published now was not sent.
    let error = bus.publish(job("not sent").with_ttl(Duration::from_millis(300))).await.unwrap_err();
    assert!(!error.may_have_executed() && *error.kind() == ErrorKind::Unavailable, "{error:?}");
    let error = bus.publish(call("not sent").with_ttl(Duration::from_millis(300))).await.unwrap_err();
    assert!(!error.may_have_executed() && *error.kind() == ErrorKind::Unavailable, "{error:?}");
    server.cont()?;
    let start = Instant::now();
    until("both consume again", LIMIT, async || queue.consuming().get() && calls.consuming().get()).await?;
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
    // A call whose caller gave up while the server stood still is not delivered now.
    bus.publish(call("fresh").with_ttl(LIMIT)).await?;
    assert_eq!(take(&mut calls).await, "fresh");
    bus.publish(job("fresh")).await?;
    loop {
        match take(&mut queue).await.as_str() {
            "unknown" => {}
            "fresh" => break,
            other => panic!("{other:?} came and was not sent"),
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bus_without_a_server_dials_at_most_once_a_second() -> Outcome {
    let mut server = Server::nats(&[]).await?;
    let bus = connect(&server.uri()).await?;
    let port = server.port();
    server.kill();
    let listener = loop {
        match tokio::net::TcpListener::bind(("127.0.0.1", port)).await {
            Ok(listener) => break listener,
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    };
    let (start, mut dials) = (Instant::now(), 0_u32);
    while start.elapsed() < Duration::from_secs(6) {
        if let Ok(Ok((socket, _))) = tokio::time::timeout(Duration::from_millis(200), listener.accept()).await
        {
            dials += 1;
            drop(socket);
        }
    }
    assert!((3..=7).contains(&dials), "{dials} dials in 6 s");
    drop(listener);
    server.restart().await?;
    bus.publish(job("after")).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_dead_process_held_comes_again_after_its_lease() -> Outcome {
    let server = Server::nats(&[]).await?;
    let (doomed, heir) = (connect(&server.uri()).await?, connect(&server.uri()).await?);
    let mut first = doomed.subscribe(jobs(), 1).await?;
    heir.publish(job("a")).await?;
    let held = next(&mut first).await;
    let mut second = heir.subscribe(jobs(), 1).await?;
    let start = Instant::now();
    drop(doomed);
    let again = within("after the lease", Duration::from_secs(40), second.next_delivery()).await?.unwrap();
    assert!(start.elapsed() < Duration::from_secs(35), "{:?}", start.elapsed());
    assert_eq!((body(&again).as_str(), again.redelivered()), ("a", 1));
    again.ack().await?;
    assert!(held.ack().await.is_err(), "the dead process settled");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_settled_while_the_server_is_away_is_settled_when_it_is_back() -> Outcome {
    let mut server = Server::nats(&[]).await?;
    let bus = connect(&server.uri()).await?;
    let mut queue = bus.subscribe(jobs(), 4).await?;
    for text in ["acked", "retried", "buried"] {
        bus.publish(job(text)).await?;
    }
    let (acked, retried, buried) = (next(&mut queue).await, next(&mut queue).await, next(&mut queue).await);
    server.kill();
    let settled = tokio::spawn(async move {
        tokio::try_join!(
            acked.ack(),
            retried.nack(Duration::from_millis(500), "why"),
            buried.term("rejected", "no")
        )
    });
    tokio::time::sleep(Duration::from_secs(2)).await;
    server.restart().await?;
    within("settling", LIMIT, settled).await???;
    loop {
        let again = next(&mut queue).await;
        let found = (body(&again), again.attempt());
        again.ack().await?;
        if found == ("retried".to_owned(), 2) {
            break;
        }
        // The server may have forgotten that these were delivered.
        assert_eq!(found.1, 1, "{found:?}");
    }
    let mut dead = bus.subscribe(Source::DeadLetters(Origin::Queue(key("jobs.test"))), 4).await?;
    assert_eq!(take(&mut dead).await, "buried");
    Ok(())
}
