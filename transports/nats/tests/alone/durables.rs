//! Durable subscriptions: their records, their idleness, their bounds, their patterns; and the survey.

use super::*;
use commissaire::{Survey, What};

async fn with_expiry(server: &Server, idle_expiry: Duration) -> Result<Arc<dyn Bus>> {
    let options = BusOptions { idle_expiry, ..BusOptions::default() };
    (commissaire_nats::DRIVER.connect)(server.uri().parse()?, options).await
}

fn found(survey: &Survey, what: &What) -> commissaire::Declared {
    let found = survey.declared.iter().find(|declared| declared.what == *what);
    found.unwrap_or_else(|| panic!("{what} is not in {survey:?}")).clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_survey_tells_what_there_is() -> Outcome {
    let server = Server::nats(&[]).await?;
    let bus = connect(&server.uri()).await?;
    let mut queue = bus.subscribe(jobs(), 1).await?;
    for text in ["buried", "resting", "held", "waits", "waits too"] {
        bus.publish(job(text)).await?;
    }
    next(&mut queue).await.term("rejected", "no").await?;
    next(&mut queue).await.nack(Duration::from_secs(60), "later").await?;
    let held = next(&mut queue).await;
    let events = bus.subscribe(durable("d", "t.# u"), 1).await?;
    drop(events);
    // What it took as it leaves would be in hand to the server, and look as if it read still.
    until("the reader has gone", LIMIT, async || {
        let survey = bus.survey().await.unwrap();
        found(&survey, &What::Durable(token("d"))).idle > Some(Duration::ZERO)
    })
    .await?;
    bus.publish(event("t.x", "one")).await?;
    bus.publish(event("u", "two")).await?;
    let other = BusOptions { exchange: token("commissaire_2"), ..BusOptions::default() };
    let other = (commissaire_nats::DRIVER.connect)(server.uri().parse()?, other).await?;
    other.publish(job("of others")).await?;

    let survey = bus.survey().await?;
    assert!(survey.broker.contains("2.") && survey.broker.contains("127.0.0.1"), "{}", survey.broker);
    assert_eq!(survey.faults, Vec::<String>::new());
    assert!(survey.unknown.iter().any(|text| text.contains("sync_interval")));
    let queued = found(&survey, &What::Queue(key("jobs.test")));
    assert_eq!((queued.waiting, queued.in_hand, queued.resting), (Some(2), Some(1), Some(1)), "{queued:?}");
    assert!(queued.oldest.is_some_and(|age| age < LIMIT), "{queued:?}");
    let dead = found(&survey, &What::DeadQueue(key("jobs.test")));
    assert_eq!((dead.waiting, dead.in_hand), (Some(1), Some(0)), "{dead:?}");
    let kept = found(&survey, &What::Durable(token("d")));
    assert_eq!((kept.waiting, kept.in_hand, kept.resting), (Some(2), Some(0), Some(0)), "{kept:?}");
    assert_eq!(kept.patterns.as_deref(), Some(&["t.#".to_owned(), "u".to_owned()][..]));
    assert_eq!(kept.expires_after, Some(Duration::from_secs(7 * 24 * 3600)));
    assert_eq!(survey.declared.len(), 3, "{survey:?}");
    held.ack().await?;
    let same = bus.survey().await?;
    assert_eq!(found(&same, &What::Queue(key("jobs.test"))).resting, Some(1), "looking changed something");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_while_nothing_is_stored_gives_every_event_after_it() -> Outcome {
    let mut server = Server::nats(&[]).await?;
    let bus = connect(&server.uri()).await?;
    // Events that nobody stores; a subscription that begins behind them; and nothing is left of either.
    let mut early = bus.subscribe(durable("early", "t.x"), 16).await?;
    for n in 0..10 {
        bus.publish(event("t.y", format!("unwanted {n}"))).await?;
    }
    let mut late = bus.subscribe(durable("late", "t.x"), 16).await?;
    server.kill();
    server.restart().await?;
    for n in 0..12 {
        bus.publish(event("t.x", n.to_string())).await?;
    }
    for subscription in [&mut early, &mut late] {
        let mut got = BTreeSet::new();
        for _ in 0..12 {
            got.insert(take(subscription).await);
        }
        assert_eq!(got.len(), 12, "{got:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_keeps_what_one_subscription_wants_when_another_acknowledged_more() -> Outcome
{
    // The server writes what was acknowledged within 100 ms; without that it would lose nothing.
    const WRITTEN: Duration = Duration::from_millis(400);
    let mut server = Server::nats(&[]).await?;
    let uri = server.uri();
    let bus = connect(&uri).await?;
    let mut asleep = bus.subscribe(durable("asleep", "t.x"), 16).await?;
    asleep.close();
    assert!(asleep.next().await.is_none());
    for n in 0..3 {
        bus.publish(event("t.x", n.to_string())).await?;
    }
    let mut awake = bus.subscribe(durable("awake", "t.y"), 16).await?;
    bus.publish(event("t.y", "seen")).await?;
    next(&mut awake).await.ack().await?;
    tokio::time::sleep(WRITTEN).await;
    server.kill();
    server.restart().await?;
    let mut asleep = bus.subscribe(durable("asleep", "t.x"), 16).await?;
    for n in 0..3 {
        assert_eq!(take(&mut asleep).await, n.to_string());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_subscription_is_removed_by_one_and_a_read_one_by_none() -> Outcome {
    let server = Server::nats(&[]).await?;
    let (one, two) = (with_expiry(&server, Duration::from_secs(2)).await?, connect(&server.uri()).await?);
    let read = one.subscribe(durable("read", "t.#"), 4).await?;
    let mut full = one.subscribe(durable("full", "t.#"), 1).await?;
    for name in ["idle", "left"] {
        drop(one.subscribe(durable(name, "t.#"), 4).await?);
    }
    one.publish(event("t.x", "kept")).await?;
    let held = next(&mut full).await;
    let idle = Duration::from_secs(2);
    for name in ["read", "full", "idle", "never"] {
        assert!(!two.remove_durable(&token(name), Some(idle)).await?, "{name} was removed too soon");
    }
    tokio::time::sleep(idle + Duration::from_millis(200)).await;
    for name in ["read", "full", "never"] {
        assert!(!two.remove_durable(&token(name), Some(idle)).await?, "{name} was removed under its reader");
    }
    let name = token("idle");
    let tries = (0..8).map(|n| if n % 2 == 0 { &one } else { &two }.remove_durable(&name, Some(idle)));
    let removed = futures_util::future::try_join_all(tries).await?;
    assert_eq!(removed.iter().filter(|removed| **removed).count(), 1, "{removed:?}");
    let survey = two.survey().await?;
    assert!(
        !survey.declared.iter().any(|declared| declared.what == What::Durable(name.clone())),
        "{survey:?}"
    );
    held.ack().await?;
    // Without a condition: once.
    let name = token("left");
    let tries = (0..8).map(|n| if n % 2 == 0 { &one } else { &two }.remove_durable(&name, None));
    let removed = futures_util::future::try_join_all(tries).await?;
    assert_eq!(removed.iter().filter(|removed| **removed).count(), 1, "{removed:?}");
    // Under its reader too, which makes it again.
    assert!(two.remove_durable(&token("read"), None).await?);
    let mut read = read;
    let start = Instant::now();
    loop {
        two.publish(event("t.x", "after")).await?;
        if let Ok(Some(delivery)) =
            tokio::time::timeout(Duration::from_millis(300), read.next_delivery()).await
            && body(&delivery) == "after"
        {
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_take_over_the_patterns_of_the_last() -> Outcome {
    let server = Server::nats(&[]).await?;
    let (one, two) = (connect(&server.uri()).await?, connect(&server.uri()).await?);
    let mut first = one.subscribe(durable("d", "a.x"), 50).await?;
    let mut second = two.subscribe(durable("d", "a.y a.z"), 50).await?;
    let mut got = BTreeSet::new();
    for n in 0..100 {
        for text in ["a.x", "a.y", "a.z", "a.q"] {
            two.publish(event(text, format!("{text} {n}"))).await?;
        }
        let readers = [&mut first, &mut second];
        for reader in readers {
            while let Ok(Some(delivery)) =
                tokio::time::timeout(Duration::from_millis(2), reader.next_delivery()).await
            {
                got.insert(body(&delivery));
                delivery.ack().await?;
            }
        }
    }
    while got.len() < 200 {
        let delivery = tokio::select! {
            delivery = within("the rest", LIMIT, first.next_delivery()) => delivery?.unwrap(),
            delivery = within("the rest", LIMIT, second.next_delivery()) => delivery?.unwrap(),
        };
        got.insert(body(&delivery));
        delivery.ack().await?;
    }
    assert!(got.iter().all(|text| text.starts_with("a.y") || text.starts_with("a.z")), "{got:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_published_twice_is_stored_once_and_every_settlement_of_it_once() -> Outcome {
    let server = Server::nats(&[]).await?;
    let bus = connect(&server.uri()).await?;
    let mut queue = bus.subscribe(jobs(), 10).await?;
    let sent = job("twice");
    for _ in 0..3 {
        bus.publish(sent.clone()).await?;
    }
    let origin = || Source::DeadLetters(Origin::Queue(key("jobs.test")));
    let mut dead = bus.subscribe(origin(), 4).await?;
    // The same id may be retried, buried and brought back as often as is wanted within the window.
    for round in 0..4 {
        let delivery = next(&mut queue).await;
        assert_eq!(
            (delivery.attempt(), delivery.message().redriven(), delivery.redelivered()),
            (1, round, 0)
        );
        delivery.nack(Duration::ZERO, "once more").await?;
        let delivery = next(&mut queue).await;
        assert_eq!((delivery.attempt(), delivery.message().id()), (2, sent.id()));
        delivery.nack(Duration::from_millis(30), "once more").await?;
        next(&mut queue).await.term("attempts", "no").await?;
        let letter = next(&mut dead).await;
        assert_eq!(letter.message().id(), sent.id());
        drop(letter);
        next(&mut dead).await.redrive().await?;
    }
    assert_eq!(take(&mut queue).await, "twice");
    bus.publish(job("end")).await?;
    assert_eq!(take(&mut queue).await, "end");
    drop(dead);
    let left = api(&server, "STREAM.INFO.commissaire=1=d", Value::Null).await;
    assert_eq!(left["state"]["messages"], 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_of_a_durable_subscription_is_for_it_alone_and_needs_a_place() -> Outcome {
    let server = Server::nats(&[]).await?;
    let bus = connect(&server.uri()).await?;
    let (mut one, mut two) =
        (bus.subscribe(durable("one", "t.#"), 1).await?, bus.subscribe(durable("two", "t.#"), 1).await?);
    for n in 0..20 {
        bus.publish(event("t.x", n.to_string())).await?;
    }
    for n in 0..20 {
        assert_eq!(take(&mut two).await, n.to_string());
    }
    let mut done = BTreeSet::new();
    let mut runs = 0;
    while done.len() < 20 {
        let delivery = next(&mut one).await;
        runs += 1;
        let (text, attempt) = (body(&delivery), delivery.attempt());
        assert_eq!(delivery.redelivered(), 0, "a retry looks like a crash");
        let more = tokio::time::timeout(Duration::from_millis(5), one.next()).await;
        assert!(more.is_err(), "two in hand with a prefetch of 1: {more:?}");
        if attempt < 3 {
            delivery.nack(Duration::from_millis(20), "again").await?;
        } else {
            delivery.ack().await?;
            assert!(done.insert(text));
        }
    }
    assert_eq!(runs, 60);
    assert!(tokio::time::timeout(Duration::from_millis(300), two.next()).await.is_err());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_event_may_be_a_dead_letter_of_several() -> Outcome {
    let server = Server::nats(&[]).await?;
    let bus = connect(&server.uri()).await?;
    let names = ["one", "two"];
    let mut readers = Vec::new();
    for name in names {
        readers.push(bus.subscribe(durable(name, "t.#"), 1).await?);
    }
    bus.publish(event("t.x", "bad")).await?;
    for reader in &mut readers {
        let delivery = next(reader).await;
        assert_eq!(delivery.redelivered(), 0);
        drop(delivery);
        let delivery = next(reader).await;
        assert_eq!(delivery.redelivered(), 0);
        delivery.term("rejected", "no").await?;
    }
    for name in names {
        let mut dead = bus.subscribe(Source::DeadLetters(Origin::Durable(token(name))), 1).await?;
        assert_eq!(take(&mut dead).await, "bad", "{name}");
    }
    Ok(())
}
