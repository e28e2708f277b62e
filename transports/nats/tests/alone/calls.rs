//! Calls over core NATS, which keeps nothing and promises nothing.

use super::*;

async fn service(bus: &Arc<dyn Bus>, prefetch: u16) -> Result<Subscription> {
    bus.subscribe(Source::Service(key("svc")), prefetch).await
}

/// Answers calls by their own body, each after `rest`.
fn echo(bus: Arc<dyn Bus>, mut calls: Subscription, rest: Duration) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        while let Some(delivery) = calls.next_delivery().await {
            let bus = bus.clone();
            tokio::spawn(async move {
                tokio::time::sleep(rest).await;
                let call = delivery.message();
                let reply =
                    Message::new(Address::Inbox(call.reply_to().unwrap()), call.body().clone()).unwrap();
                let correlation = call.headers().get(header::CORRELATION).unwrap();
                bus.publish(reply.with(header::CORRELATION, correlation).unwrap()).await.unwrap();
                delivery.ack().await.unwrap();
            });
        }
    })
}

fn asks(inbox: Inbox, n: u128) -> Message {
    let call = call(n.to_string()).with_ttl(LIMIT);
    call.with(header::REPLY, inbox.to_string())
        .unwrap()
        .with(header::CORRELATION, format!("{n:032x}"))
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quick_reply_says_that_the_call_was_taken_and_a_slow_one_need_not() -> Outcome {
    let server = Server::nats(&[]).await?;
    let admin = admin(&server).await;
    let mut words = admin.subscribe("_INBOX.commissaire.1.m.>").await.unwrap();
    known(&admin).await;
    let (client, far) = (connect(&server.uri()).await?, connect(&server.uri()).await?);
    let inbox = Inbox::random();
    let mut replies = client.subscribe(Source::Inbox(inbox), 100).await?;
    for (rest, least, most) in [(Duration::ZERO, 0, 150), (Duration::from_millis(100), 200, 200)] {
        let served = echo(far.clone(), service(&far, 100).await?, rest);
        for n in 0..200 {
            client.publish(asks(inbox, n)).await?;
            if rest.is_zero() {
                next(&mut replies).await.ack().await?;
            }
        }
        if !rest.is_zero() {
            for _ in 0..200 {
                next(&mut replies).await.ack().await?;
            }
        }
        let mut said = 0;
        while let Ok(Some(word)) = tokio::time::timeout(Duration::from_millis(200), words.next()).await {
            said += usize::from(&*word.payload == b"+");
        }
        assert!((least..=most).contains(&said), "{said} words on 200 calls that took {rest:?}");
        served.abort();
        until("nobody is there", LIMIT, async || client.publish(call("x")).await.is_err()).await?;
        while tokio::time::timeout(Duration::from_millis(100), words.next()).await.is_ok() {}
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forged_place_for_answers_is_never_published_to() -> Outcome {
    let server = Server::nats(&[]).await?;
    let admin = admin(&server).await;
    let bus = connect(&server.uri()).await?;
    bus.publish(job("kept")).await?;
    let mut calls = service(&bus, 4).await?;
    let mut heard = admin.subscribe("victim.>").await.unwrap();
    let honest = commissaire::envelope::encode(&call("forged"));
    let purge = "$JS.API.STREAM.PURGE.commissaire=1=q=jobs+test";
    for reply in [purge, "victim.a", "_INBOX.commissaire.1.m.x.1", "commissaire.1.q.jobs.test"] {
        // One that is taken, and one that cannot be read.
        for payload in [honest.clone(), b"rubbish".to_vec()] {
            admin.publish_with_reply("commissaire.1.s.svc", reply, payload.into()).await.unwrap();
        }
        assert_eq!(take(&mut calls).await, "forged");
    }
    // An inbox that is none counts as none.
    let forged = Message::new(Address::Service(key("svc.m")), "reply")?.with(header::REPLY, purge)?;
    admin.publish("commissaire.1.s.svc", commissaire::envelope::encode(&forged).into()).await.unwrap();
    assert_eq!(next(&mut calls).await.message().reply_to(), None);
    tokio::time::sleep(Duration::from_millis(100)).await;
    let kept = api(&server, "STREAM.INFO.commissaire=1=q=jobs+test", Value::Null).await;
    assert_eq!(kept["state"]["messages"], 1, "{kept}");
    assert!(tokio::time::timeout(Duration::from_millis(200), heard.next()).await.is_err());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_comes_late_is_taken_only_if_somebody_waits_for_it() -> Outcome {
    let server = Server::nats(&[]).await?;
    let admin = admin(&server).await;
    let (client, far) = (connect(&server.uri()).await?, connect(&server.uri()).await?);
    let mut calls = service(&far, 4).await?;
    // Held on its way: the subject to answer to is of a call that nobody waits for any more.
    let mut seen = admin.subscribe("commissaire.1.s.svc").await.unwrap();
    known(&admin).await;
    let ttl = Duration::from_millis(1500);
    client.publish(call("first").with_ttl(ttl)).await?;
    assert_eq!(take(&mut calls).await, "first");
    let raw = within("the call on the wire", LIMIT, seen.next()).await?.unwrap();
    tokio::time::sleep(ttl).await;
    admin.publish_with_reply(raw.subject, raw.reply.unwrap(), raw.payload).await.unwrap();
    client.publish(call("second").with_ttl(ttl)).await?;
    assert_eq!(take(&mut calls).await, "second");
    let late = tokio::time::timeout(Duration::from_millis(500), calls.next()).await;
    assert!(late.is_err(), "a call was delivered whose time had passed: {late:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_is_stopped_meets_the_deadline_of_its_callers() -> Outcome {
    let server = Server::nats(&[]).await?;
    let client = connect(&server.uri()).await?;
    // Somebody who listens and never says a word.
    let admin = admin(&server).await;
    let _stopped = admin.queue_subscribe("commissaire.1.s.svc", "s".to_owned()).await.unwrap();
    known(&admin).await;
    let control = Lateness::watch();
    for _ in 0..20 {
        let (start, ttl) = (Instant::now(), Duration::from_millis(200));
        let error = client.publish(call("x").with_ttl(ttl)).await.unwrap_err();
        let took = start.elapsed();
        assert!(*error.kind() == ErrorKind::Timeout && error.may_have_executed(), "{error:?}");
        assert!(took >= ttl && took <= ttl + Duration::from_millis(50) + control.worst(), "{took:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_leaves_gives_waiting_calls_to_another() -> Outcome {
    let server = Server::nats(&[]).await?;
    let (client, leaves, stays) =
        (connect(&server.uri()).await?, connect(&server.uri()).await?, connect(&server.uri()).await?);
    let mut first = service(&leaves, 1).await?;
    for n in 0..50 {
        client.publish(call(n.to_string()).with_ttl(LIMIT)).await?;
    }
    let held = next(&mut first).await;
    let mut second = service(&stays, 50).await?;
    first.close();
    held.ack().await?;
    let mut got = BTreeSet::new();
    for _ in 1..50 {
        let text = tokio::select! {
            delivery = within("a call", LIMIT, second.next_delivery()) => body(&delivery?.unwrap()),
            Some(delivery) = first.next_delivery() => body(&delivery),
        };
        assert!(got.insert(text), "a call was delivered twice");
    }
    assert_eq!(got.len(), 49);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_without_an_answer_leave_nothing_behind_and_no_subscription_stays() -> Outcome {
    let server = Server::nats(&[("http", "\"127.0.0.1:0\"")]).await?;
    let (client, far) = (connect(&server.uri()).await?, connect(&server.uri()).await?);
    for _ in 0..200 {
        let _calls = service(&far, 4).await?;
        let _topic = far.subscribe(Source::Topic(patterns("t.#")), 4).await?;
        client.publish(call("x").with_ttl(Duration::from_secs(1))).await.ok();
    }
    until("nobody is there", LIMIT, async || {
        client.publish(call("x")).await.is_err_and(|e| *e.kind() == ErrorKind::NoResponders)
    })
    .await?;
    let refused = client.publish(call("x")).await.map_err(|e: Error| e.kind().clone());
    assert_eq!(refused, Err(ErrorKind::NoResponders));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_subscriber_of_events_hears_of_what_it_missed() -> Outcome {
    let server = Server::nats(&[]).await?;
    let (here, there) = (connect(&server.uri()).await?, connect(&server.uri()).await?);
    let mut slow = here.subscribe(Source::Topic(patterns("t.#")), 1).await?;
    let many = 6_000;
    for n in 0..many {
        there.publish(event("t.x", n.to_string())).await?;
    }
    let (mut got, mut gaps, mut last) = (0, 0, None);
    while let Ok(Some(received)) = tokio::time::timeout(Duration::from_secs(1), slow.next()).await {
        match received {
            Received::Gap(_) => gaps += 1,
            Received::Delivery(delivery) => {
                let n: u32 = body(&delivery).parse().unwrap();
                assert!(last.is_none_or(|last| last < n), "out of order");
                assert!(gaps > 0 || last.is_none_or(|last| last + 1 == n), "missing without a gap");
                last = Some(n);
                got += 1;
            }
        }
    }
    assert!(got >= 4_000 && got < many && gaps >= 1, "{got} of {many}, {gaps} gaps");
    there.publish(event("t.x", "after")).await?;
    assert_eq!(body(&next(&mut slow).await), "after");
    Ok(())
}
