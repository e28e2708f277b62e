//! Retries that rest, dropped deliveries, and leases.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retries_rest_through_the_death_of_the_server() -> Outcome {
    let mut server = Server::nats(&[]).await?;
    let bus = connect(&server.uri()).await?;
    let mut queue = bus.subscribe(jobs(), 20).await?;
    let mut due = Vec::new();
    for millis in [2_000_u64, 4_000, 6_000] {
        bus.publish(job(millis.to_string())).await?;
        let after = Duration::from_millis(millis);
        next(&mut queue).await.nack(after, "later").await?;
        due.push((millis.to_string(), Instant::now() + after));
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    server.kill();
    server.restart().await?;
    let control = Lateness::watch();
    for (text, due) in due {
        // That the old ones are settled is of the server's last moment: they may come again.
        let (delivery, now) = loop {
            let delivery = next(&mut queue).await;
            if delivery.attempt() > 1 {
                break (delivery, Instant::now());
            }
            delivery.ack().await?;
        };
        assert_eq!((body(&delivery), delivery.redelivered(), delivery.attempt()), (text, 0, 2));
        assert!(now + Duration::from_millis(20) >= due, "{:?} early", due - now);
        // A server that has just started counts in seconds, and takes its time.
        let late = now.saturating_duration_since(due);
        assert!(late < Duration::from_secs(1) + control.worst(), "{late:?} late");
        delivery.ack().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_that_rest_hold_up_nobody_and_are_on_time() -> Outcome {
    const MANY: usize = 2_000;
    let server = Server::nats(&[]).await?;
    let bus = connect(&server.uri()).await?;
    let mut queue = bus.subscribe(jobs(), 100).await?;
    let publishing = bus.clone();
    let published = tokio::spawn(async move {
        for n in 0..MANY {
            publishing.publish(job(n.to_string())).await.unwrap();
        }
    });
    let after = Duration::from_secs(3);
    let mut due = std::collections::BTreeMap::new();
    let mut settling = tokio::task::JoinSet::new();
    while due.len() < MANY {
        let delivery = next(&mut queue).await;
        if delivery.attempt() > 1 {
            panic!("a retry came before all were retried: the machine is too slow for this test");
        }
        due.insert(body(&delivery), Instant::now());
        settling.spawn(delivery.nack(after, "later"));
    }
    while let Some(settled) = settling.join_next().await {
        settled??;
    }
    published.await?;
    let settled = Instant::now();
    bus.publish(job("fresh")).await?;
    assert_eq!(take(&mut queue).await, "fresh");
    let control = Lateness::watch();
    let mut acking = tokio::task::JoinSet::new();
    for _ in 0..MANY {
        let delivery = next(&mut queue).await;
        let now = Instant::now();
        let asked = due.remove(&body(&delivery)).unwrap();
        assert!(now >= asked + after, "early");
        let limit = after.mul_f64(1.1) + control.worst();
        assert!(now <= settled + limit, "{:?} after the last was settled", now - settled);
        assert_eq!(delivery.redelivered(), 0);
        acking.spawn(delivery.ack());
    }
    while let Some(acked) = acking.join_next().await {
        acked??;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_delivery_is_no_crash_and_keeps_its_turn() -> Outcome {
    let server = Server::nats(&[]).await?;
    let bus = connect(&server.uri()).await?;
    let mut queue = bus.subscribe(jobs(), 1).await?;
    for n in 0..3 {
        bus.publish(job(n.to_string())).await?;
    }
    for _ in 0..5 {
        let delivery = next(&mut queue).await;
        assert_eq!((body(&delivery).as_str(), delivery.redelivered(), delivery.attempt()), ("0", 0, 1));
        drop(delivery);
    }
    for n in 0..2 {
        assert_eq!(take(&mut queue).await, n.to_string());
    }
    // What stands in the buffer of a subscription that is dropped is no crash either.
    drop(queue);
    let mut queue = bus.subscribe(jobs(), 1).await?;
    let delivery = next(&mut queue).await;
    assert_eq!((body(&delivery).as_str(), delivery.redelivered()), ("2", 0));
    delivery.ack().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_that_closes_in_full_swing_keeps_nothing_back() -> Outcome {
    const JOBS: usize = 3_000;
    let server = Server::nats(&[]).await?;
    let (bus, other) = (connect(&server.uri()).await?, connect(&server.uri()).await?);
    let publishing = bus.clone();
    let published = tokio::spawn(async move {
        for n in 0..JOBS {
            publishing.publish(job(n.to_string())).await.unwrap();
        }
    });
    // What the server had sent when a subscription ended would else come again only after a lease, 30 s.
    let mut got = BTreeSet::new();
    while got.len() < JOBS {
        let mut queue = other.subscribe(jobs(), 500).await?;
        for _ in 0..20 {
            match tokio::time::timeout(Duration::from_millis(100), queue.next_delivery()).await {
                Ok(Some(delivery)) => {
                    got.insert(body(&delivery));
                    delivery.ack().await?;
                }
                _ => break,
            }
        }
        drop(queue);
        if published.is_finished() && got.len() + 600 > JOBS {
            break;
        }
    }
    published.await?;
    let mut last = bus.subscribe(jobs(), 500).await?;
    let start = Instant::now();
    while got.len() < JOBS {
        got.insert(take(&mut last).await);
    }
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_read_becomes_a_dead_letter() -> Outcome {
    let server = Server::nats(&[]).await?;
    let bus = connect(&server.uri()).await?;
    let mut queue = bus.subscribe(jobs(), 1).await?;
    let admin = admin(&server).await;
    for rubbish in ["\x01\x01rubbish", ""] {
        admin.publish("commissaire.1.q.jobs.test", rubbish.into()).await.unwrap();
    }
    admin.flush().await.unwrap();
    bus.publish(job("good")).await?;
    // The server stores what two clients publish in an order of its own: the good one may be the first.
    let good = next(&mut queue).await;
    assert_eq!(body(&good), "good");
    good.ack().await?;
    let mut dead = bus.subscribe(Source::DeadLetters(Origin::Queue(key("jobs.test"))), 4).await?;
    for _ in 0..2 {
        let letter = next(&mut dead).await;
        assert_eq!(letter.message().headers().get("bus-dead"), Some("malformed"));
        letter.ack().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_settlement_of_what_the_server_forgot_is_an_error() -> Outcome {
    let server = Server::nats(&[]).await?;
    let bus = connect(&server.uri()).await?;
    let mut queue = bus.subscribe(jobs(), 1).await?;
    bus.publish(job("a")).await?;
    let held = next(&mut queue).await;
    // A library that takes the status 503 for an answer would report success.
    api(&server, "STREAM.DELETE.commissaire=1=q=jobs+test", Value::Null).await;
    assert!(held.ack().await.is_err());
    let held = async {
        bus.publish(job("b")).await.unwrap();
        next(&mut queue).await
    };
    let held = within("consuming again", LIMIT, held).await?;
    assert_eq!(body(&held), "b");
    held.ack().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_program_gives_back_as_it_leaves_looks_like_no_crash_to_another() -> Outcome {
    const JOBS: usize = 200;
    let server = Server::nats(&[]).await?;
    let (stays, publisher) = (connect(&server.uri()).await?, connect(&server.uri()).await?);
    let mut slow = stays.subscribe(jobs(), 1).await?;
    publisher.publish(job("held")).await?;
    let held = next(&mut slow).await;
    for n in 0..JOBS {
        publisher.publish(job(n.to_string())).await?;
    }
    let mut got = BTreeSet::new();
    for round in 0..4 {
        let leaves = connect(&server.uri()).await?;
        let mut queue = leaves.subscribe(jobs(), 50).await?;
        let in_hand = next(&mut queue).await;
        match round % 2 {
            0 => drop((in_hand, queue)),
            _ => leaves.close().await?,
        }
        leaves.close().await?;
    }
    held.ack().await?;
    while got.len() < JOBS {
        let delivery = next(&mut slow).await;
        assert_eq!(delivery.redelivered(), 0, "{}", body(&delivery));
        got.insert(body(&delivery));
        delivery.ack().await?;
    }
    Ok(())
}
