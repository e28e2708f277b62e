//! What operators see and do, where Redis has something of its own to it.

use super::{proxy::Proxy, *};
use crate::STRICT;

fn letters() -> Source {
    Source::DeadLetters(Origin::Queue(key("jobs.test")))
}

async fn of(bus: &Arc<dyn Bus>, what: What) -> Result<commissaire::Declared> {
    let declared = bus.survey().await?.declared;
    let found = declared.iter().find(|declared| declared.what == what);
    Ok(found.unwrap_or_else(|| panic!("{what} is not in {declared:?}")).clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_letter_is_brought_back_once_although_the_answers_are_lost() -> Outcome {
    const LETTERS: usize = 5;
    let server = Server::redis(STRICT).await?;
    let proxy = Proxy::start(&server).await?;
    let (bus, other) = (connect(&proxy.uri()).await?, connect(&server.uri()).await?);
    let mut queue = other.subscribe(jobs(), 50).await?;
    for number in 0..LETTERS {
        other.publish(job(number.to_string())).await?;
        next(&mut queue).await.term("rejected", "no").await?;
    }
    let mut dead = bus.subscribe(letters(), 1).await?;
    let mut came = BTreeSet::new();
    for _ in 0..LETTERS {
        let letter = next(&mut dead).await;
        proxy.mute(true);
        let redriving = tokio::spawn(letter.redrive());
        let delivery = next(&mut queue).await;
        assert!(came.insert(body(&delivery)), "{} came twice", body(&delivery));
        delivery.ack().await?;
        assert!(!redriving.is_finished());
        proxy.cut();
        proxy.mute(false);
        within("a redrive", LIMIT, redriving).await???;
    }
    other.publish(job("end")).await?;
    assert_eq!(body(&next(&mut queue).await), "end");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_letter_without_a_subscription_to_go_back_to_stays() -> Outcome {
    let server = Server::redis(STRICT).await?;
    let bus = connect(&server.uri()).await?;
    let mut events = bus.subscribe(durable(), 1).await?;
    bus.publish(event("dead")).await?;
    next(&mut events).await.term("rejected", "no").await?;
    drop(events);
    let name = Token::new("d")?;
    until("its reader has left", LIMIT, async || {
        of(&bus, What::Durable(name.clone())).await.is_ok_and(|told| told.consumers == Some(0))
    })
    .await?;
    assert!(bus.remove_durable(&name, None).await?);
    let mut dead = bus.subscribe(Source::DeadLetters(Origin::Durable(name.clone())), 1).await?;
    let error = next(&mut dead).await.redrive().await.unwrap_err();
    assert!(*error.kind() == ErrorKind::Topology && !error.may_have_executed(), "{error}");
    let mut events = bus.subscribe(durable(), 1).await?;
    next(&mut dead).await.redrive().await?;
    assert_eq!(next(&mut events).await.message().redriven(), 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_letter_that_does_not_fit_stays() -> Outcome {
    let server = Server::redis(STRICT).await?;
    let bus = connect(&server.uri()).await?;
    let mut queue = bus.subscribe(jobs(), 4).await?;
    bus.publish(job("a")).await?;
    next(&mut queue).await.term("rejected", "no").await?;
    let mut dead = bus.subscribe(letters(), 4).await?;
    let letter = next(&mut dead).await;
    order(&server, &["CONFIG", "SET", "maxmemory", "1"]).await;
    assert_eq!(*letter.redrive().await.unwrap_err().kind(), ErrorKind::Full);
    order(&server, &["CONFIG", "SET", "maxmemory", "0"]).await;
    assert_eq!(of(&bus, What::DeadQueue(key("jobs.test"))).await?.in_hand, Some(1));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_who_remove_a_subscription_one_did() -> Outcome {
    let server = Server::redis(STRICT).await?;
    let (here, there) = (connect(&server.uri()).await?, connect(&server.uri()).await?);
    let name = Token::new("d")?;
    for _ in 0..10 {
        let events = there.subscribe(durable(), 1).await?;
        there.publish(event("kept")).await?;
        drop(events);
        until("its reader has left", LIMIT, async || {
            of(&here, What::Durable(name.clone())).await.is_ok_and(|told| told.consumers == Some(0))
        })
        .await?;
        let asked = (0..16).map(|n| if n % 2 == 0 { &here } else { &there }.remove_durable(&name, None));
        let removed = futures_util::future::try_join_all(asked).await?;
        assert_eq!(removed.iter().filter(|removed| **removed).count(), 1);
    }
    let left = order(&server, &["HLEN", "bus:{commissaire}:1:bind:s"]).await;
    assert_eq!(left, Value::Int(0));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_that_nobody_reads_for_too_long_is_removed() -> Outcome {
    const EXPIRY: Duration = Duration::from_secs(2);
    let server = Server::redis(STRICT).await?;
    let other = connect(&server.uri()).await?;
    let reader = connect_with(&server.uri(), EXPIRY).await?;
    let mut events = reader.subscribe(durable(), 1).await?;
    tokio::time::sleep(EXPIRY * 2).await;
    other.publish(event("read")).await?;
    next(&mut events).await.ack().await?;
    let told = of(&other, What::Durable(Token::new("d")?)).await?;
    assert_eq!((told.idle, told.expires_after), (Some(Duration::ZERO), Some(EXPIRY)));
    // Killed: nobody says that it leaves.
    let killed = connect_with(&server.uri(), EXPIRY).await?;
    let name = Token::new("doomed")?;
    // It is read from some moment within `subscribe` on.
    let start = Instant::now();
    let held = killed.subscribe(Source::Durable(name.clone(), vec![Pattern::new("t.#")?]), 1).await?;
    drop((killed, held));
    until("it is removed", LIMIT, async || other.remove_durable(&name, Some(EXPIRY)).await.unwrap()).await?;
    assert!(start.elapsed() >= EXPIRY, "it was removed after {:?}", start.elapsed());
    // The one that is read stays.
    assert!(!other.remove_durable(&Token::new("d")?, Some(EXPIRY)).await?);
    other.publish(event("end")).await?;
    assert_eq!(body(&next(&mut events).await), "end");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_survey_names_the_consumers_that_are_deaf() -> Outcome {
    let server = Server::redis(STRICT).await?;
    let bus = connect(&server.uri()).await?;
    let mut queue = bus.subscribe(jobs(), 1).await?;
    bus.publish(job("held")).await?;
    bus.publish(job("waits")).await?;
    let held = next(&mut queue).await;
    // One that died with something in hand, as the server sees it.
    let stream = "bus:{commissaire}:1:q:jobs.test";
    order(&server, &["XREADGROUP", "GROUP", "g", "gone", "COUNT", "1", "STREAMS", stream, ">"]).await;
    let survey = bus.survey().await?;
    let told = survey.declared.iter().find(|told| told.what == What::Queue(key("jobs.test"))).unwrap();
    assert_eq!((told.waiting, told.in_hand, told.consumers, told.deaf), (Some(0), Some(2), Some(2), Some(1)));
    assert!(survey.faults.iter().any(|fault| fault.contains("do not read")), "{:?}", survey.faults);
    let broker = &survey.broker;
    assert!(broker.starts_with("Redis 7.") || broker.starts_with("Redis 8."), "{broker}");
    assert!(broker.ends_with(&format!(" at 127.0.0.1:{}", server.port())), "{broker}");
    held.ack().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_survey_tells_what_the_server_lacks_and_what_it_may_not_ask() -> Outcome {
    let server = Server::redis(&[]).await?;
    let bus = connect(&server.uri()).await?;
    bus.publish(job("a")).await?;
    let _events = bus.subscribe(durable(), 1).await?;
    let faults = bus.survey().await?.faults;
    assert!(faults.iter().any(|fault| fault.contains("appendonly is no, not yes")), "{faults:?}");
    order(&server, &["ACL", "SETUSER", "default", "-scan", "-config|get"]).await;
    let survey = bus.survey().await?;
    assert!(survey.unknown.iter().any(|unknown| unknown.contains("allow SCAN")), "{survey:?}");
    assert!(survey.unknown.iter().any(|unknown| unknown.contains("allow CONFIG GET")), "{survey:?}");
    assert!(survey.declared.iter().any(|told| told.what == What::Durable(Token::new("d").unwrap())));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_survey_finds_its_own_among_many_keys() -> Outcome {
    let server = Server::redis(&[]).await?;
    let bus = connect(&server.uri()).await?;
    bus.publish(job("a")).await?;
    let fill = "for i = 1, 20000 do redis.call('SET', 'other:' .. ARGV[1] .. i, i) end";
    for lot in 'a'..='o' {
        order(&server, &["EVAL", fill, "0", &lot.to_string()]).await;
    }
    let survey = within("a survey", LIMIT, bus.survey()).await??;
    assert_eq!(survey.declared.len(), 1, "{survey:?}");
    assert!(survey.unknown.is_empty(), "{survey:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bus_says_when_it_is_not_connected() -> Outcome {
    let mut server = Server::redis(STRICT).await?;
    let bus = connect(&server.uri()).await?;
    let _subscriptions = [
        bus.subscribe(jobs(), 1).await?,
        bus.subscribe(Source::Service(key("svc")), 1).await?,
        bus.subscribe(Source::Control(key("svc")), 1).await?,
    ];
    let mut watch = bus.connection();
    assert_eq!(watch.now(), Connection::Up);
    // One of its connections is as good as none.
    order(&server, &["CLIENT", "KILL", "TYPE", "pubsub"]).await;
    let down = within("it says that it is down", LIMIT, watch.changed()).await?;
    assert!(matches!(down, Some(Connection::Down { .. })), "{down:?}");
    until("it says that it is up", LIMIT, async || watch.now() == Connection::Up).await?;
    server.kill();
    until("it says that it is down", LIMIT, async || watch.now() != Connection::Up).await?;
    server.restart().await?;
    until("it says that it is up", Duration::from_secs(5), async || watch.now() == Connection::Up).await?;
    until("all consume", LIMIT, async || _subscriptions.iter().all(|one| one.consuming().get())).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ledger_costs_what_the_page_says_and_forgets_by_itself() -> Outcome {
    const IDS: usize = 5_000;
    let server = Server::redis(&[]).await?;
    let bus = connect(&server.uri()).await?;
    let (ledger, place) = (bus.ledger().unwrap(), Origin::Queue(key("jobs.investigate")));
    let used = async || -> i64 {
        let info: String =
            redis::cmd("INFO").arg("memory").query_async(&mut admin(&server).await).await.unwrap();
        let line = info.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap();
        line.parse().unwrap()
    };
    let before = used().await;
    let window = Duration::from_secs(3);
    let done = (0..IDS).map(|_| {
        let (ledger, place) = (&ledger, &place);
        async move {
            let id = MessageId::new();
            ledger.begin(place, id, 1, LIMIT).await?;
            ledger.end(place, id, 1, Some(window)).await
        }
    });
    futures_util::future::try_join_all(done).await?;
    let each = (used().await - before) / IDS as i64;
    println!("{each} bytes an id");
    assert!(each < 350, "{each} bytes an id");
    until("all is forgotten", LIMIT, async || order(&server, &["DBSIZE"]).await == Value::Int(0)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_away_is_dialled_once_a_second() -> Outcome {
    let mut server = Server::redis(STRICT).await?;
    let proxy = Proxy::start(&server).await?;
    let bus = connect(&proxy.uri()).await?;
    let queue = bus.subscribe(jobs(), 1).await?;
    let service = bus.subscribe(Source::Service(key("svc")), 1).await?;
    until("all consume", LIMIT, async || queue.consuming().get() && service.consuming().get()).await?;
    let (before, start) = (proxy.dials(), Instant::now());
    server.kill();
    tokio::time::sleep(Duration::from_secs(4)).await;
    let (dials, seconds) = (proxy.dials() - before, start.elapsed().as_secs_f64());
    assert!(dials as f64 <= seconds + 1.0 && dials >= 2, "{dials} dials in {seconds} s");
    server.restart().await?;
    let before = proxy.dials();
    until("all is well again", Duration::from_secs(5), async || {
        bus.connection().now() == Connection::Up && queue.consuming().get() && service.consuming().get()
    })
    .await?;
    // Each of its four connections once.
    assert!(proxy.dials() - before <= 5, "{} dials", proxy.dials() - before);
    Ok(())
}
