//! What an administrator does under a running service: it is made again, and what differs is named.

use super::*;

async fn consumes_again(
    server: &Server,
    bus: &Arc<dyn Bus>,
    queue: &mut Subscription,
    what: &str,
) -> Outcome {
    let start = Instant::now();
    bus.publish(job(what)).await?;
    assert_eq!(take(queue).await, what);
    assert!(start.elapsed() < Duration::from_secs(5), "{what}: {:?} on {server:?}", start.elapsed());
    until("it says that it consumes", LIMIT, async || queue.consuming().get()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_whose_stream_or_consumer_is_deleted_is_consumed_again() -> Outcome {
    let server = Server::nats(&[]).await?;
    let bus = connect(&server.uri()).await?;
    let mut queue = bus.subscribe(jobs(), 4).await?;
    consumes_again(&server, &bus, &mut queue, "before").await?;
    for deleted in [
        &["CONSUMER.DELETE.commissaire=1=q=jobs+test.w"][..],
        &["STREAM.DELETE.commissaire=1=q=jobs+test"],
        &["CONSUMER.DELETE.commissaire=1=q=jobs+test.w", "STREAM.DELETE.commissaire=1=q=jobs+test"],
        &["CONSUMER.DELETE.commissaire=1=q=jobs+test.z"],
    ] {
        for name in deleted {
            assert_eq!(api(&server, name, Value::Null).await["success"], true, "{name}");
        }
        consumes_again(&server, &bus, &mut queue, deleted[0]).await?;
        // A retry still comes, whichever consumer was removed.
        bus.publish(job("retried")).await?;
        next(&mut queue).await.nack(Duration::from_millis(100), "again").await?;
        assert_eq!(take(&mut queue).await, "retried");
    }
    bus.close().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_durable_subscription_is_made_again_in_all_its_parts() -> Outcome {
    let server = Server::nats(&[]).await?;
    let (bus, other) = (connect(&server.uri()).await?, connect(&server.uri()).await?);
    let mut events = bus.subscribe(durable("d", "t.#"), 4).await?;
    for deleted in [
        "CONSUMER.DELETE.commissaire=1=e.d",
        "STREAM.DELETE.commissaire=1=e",
        "STREAM.DELETE.commissaire=1=r=d",
        "STREAM.DELETE.commissaire=1=g",
    ] {
        assert_eq!(api(&server, deleted, Value::Null).await["success"], true, "{deleted}");
        let start = Instant::now();
        // Until it is there again, what is published is for nobody.
        loop {
            other.publish(event("t.x", deleted)).await?;
            let heard = tokio::time::timeout(Duration::from_millis(300), events.next_delivery()).await;
            if let Ok(Some(delivery)) = heard {
                delivery.nack(Duration::from_millis(50), "again").await?;
                break;
            }
            assert!(start.elapsed() < Duration::from_secs(5), "{deleted}: {:?}", start.elapsed());
        }
        assert!(start.elapsed() < Duration::from_secs(5), "{deleted}: {:?}", start.elapsed());
        let mut runs = BTreeSet::new();
        while !runs.contains(&2) {
            let delivery = next(&mut events).await;
            runs.insert(delivery.attempt());
            delivery.ack().await?;
        }
        while let Ok(Some(rest)) =
            tokio::time::timeout(Duration::from_millis(300), events.next_delivery()).await
        {
            rest.ack().await?;
        }
    }
    // A look at the message itself, in the moment when its stream is made, ends a server of version 2.9.10 in a panic.
    until("its record is there again", LIMIT, async || {
        tokio::time::sleep(Duration::from_millis(100)).await;
        api(&server, "STREAM.INFO.commissaire=1=g", Value::Null).await["state"]["messages"].as_u64() > Some(0)
    })
    .await?;
    bus.close().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_is_confirmed_although_its_stream_was_deleted_and_others_hear_it() -> Outcome {
    let server = Server::nats(&[]).await?;
    let (bus, other) = (connect(&server.uri()).await?, connect(&server.uri()).await?);
    let mut ephemeral = other.subscribe(Source::Topic(patterns("#")), 4).await?;
    for _ in 0..3 {
        api(&server, "STREAM.DELETE.commissaire=1=e", Value::Null).await;
        // With somebody who hears it there is no word that nobody stores it.
        let start = Instant::now();
        bus.publish(event("t.x", "heard")).await?;
        assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
        assert_eq!(take(&mut ephemeral).await, "heard");
        while tokio::time::timeout(Duration::from_millis(300), ephemeral.next()).await.is_ok() {}
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_is_confirmed_late_is_heard_once() -> Outcome {
    let server = Server::nats(&[]).await?;
    let proxy = Proxy::to(server.port()).await?;
    let (bus, other) = (connect(&proxy.uri(&server.uri())?).await?, connect(&server.uri()).await?);
    let mut ephemeral = other.subscribe(Source::Topic(patterns("#")), 4).await?;
    proxy.set_way(Way::Out, Traffic { delay: Duration::from_millis(1_500), ..Traffic::default() });
    bus.publish(event("t.x", "late")).await?;
    proxy.set(Traffic::default());
    bus.publish(event("t.x", "next")).await?;
    assert_eq!(take(&mut ephemeral).await, "late");
    assert_eq!(take(&mut ephemeral).await, "next");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_are_written_again_whoever_made_their_stream_again() -> Outcome {
    let server = Server::nats(&[]).await?;
    let (bus, other) = (connect(&server.uri()).await?, connect(&server.uri()).await?);
    let one = bus.subscribe(durable("one", "t.#"), 1).await?;
    let two = other.subscribe(durable("two", "t.#"), 1).await?;
    api(&server, "STREAM.DELETE.commissaire=1=g", Value::Null).await;
    until("both records are there again", LIMIT, async || {
        // A look at the stream while it is made ends a server of version 2.9.10 in a panic.
        tokio::time::sleep(Duration::from_millis(100)).await;
        let asked = json!({"subjects_filter": "commissaire.1.g.>"});
        let info = api(&server, "STREAM.INFO.commissaire=1=g", asked).await;
        ["one", "two"]
            .iter()
            .all(|name| !info["state"]["subjects"][format!("commissaire.1.g.{name}")].is_null())
    })
    .await?;
    drop((one, two));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_that_differ_are_named_and_not_changed() -> Outcome {
    let server = Server::nats(&[]).await?;
    let subjects = json!(["commissaire.1.q.jobs.test", "commissaire.1.z.q.jobs.test"]);
    let name = "commissaire=1=q=jobs+test";
    let made = json!({"name": name, "subjects": subjects, "retention": "limits", "storage": "file"});
    assert!(api(&server, &format!("STREAM.CREATE.{name}"), made).await["error"].is_null());
    let bus = connect(&server.uri()).await?;
    let error = bus.subscribe(jobs(), 1).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Topology, "{error}");
    for part in
        [name, "retention", "limits", "workqueue", "discard_new_per_subject is nothing and must be true"]
    {
        assert!(error.to_string().contains(part), "{part}: {error}");
    }
    let found = api(&server, &format!("STREAM.INFO.{name}"), Value::Null).await;
    assert_eq!(found["config"]["retention"], "limits", "it was changed");
    api(&server, &format!("STREAM.DELETE.{name}"), Value::Null).await;

    let mut queue = bus.subscribe(jobs(), 1).await?;
    let config = json!({"durable_name": "w", "filter_subject": "commissaire.1.q.jobs.test", "ack_policy": "explicit",
        "ack_wait": 5_000_000_000_u64, "max_deliver": 3, "max_ack_pending": 100_000, "max_waiting": 10_000});
    let body = json!({"stream_name": name, "config": config});
    let made = api(&server, &format!("CONSUMER.DURABLE.CREATE.{name}.w"), body).await;
    assert!(made["error"].is_null(), "{made}");
    // The service sees it, and says that it does not consume.
    until("it consumes no more", LIMIT, async || !queue.consuming().get()).await?;
    let error = connect(&server.uri()).await?.subscribe(jobs(), 1).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Topology, "{error}");
    for part in ["consumer w", "ack_wait is 5000000000 and must be 30000000000", "max_deliver is 3"] {
        assert!(error.to_string().contains(part), "{part}: {error}");
    }
    let survey = bus.survey().await?;
    assert!(survey.faults.iter().any(|fault| fault.contains("ack_wait")), "{survey:?}");
    api(&server, &format!("CONSUMER.DELETE.{name}.w"), Value::Null).await;
    consumes_again(&server, &bus, &mut queue, "after").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_server_does_not_know_it_drops_without_a_word() -> Outcome {
    // The reason why everything is read back: were this to change, fields could be relied on.
    let server = Server::nats(&[]).await?;
    let made = json!({"name": "a", "subjects": ["a"], "no_such_setting": true});
    let info = api(&server, "STREAM.CREATE.a", made).await;
    assert!(info["error"].is_null() && info["config"]["no_such_setting"].is_null(), "{info}");
    Ok(())
}
