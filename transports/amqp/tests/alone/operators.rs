//! What operators see and do.

use commissaire::survey::What;

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_survey_shows_what_is_declared_and_how_much_waits() -> Outcome {
    let (server, exchange) = (shared().await?, exchange());
    let (here, there) = (connect(&server.uri(), &exchange).await?, connect(&server.uri(), &exchange).await?);
    for number in 0..7 {
        there.publish(job(number.to_string())).await?;
    }
    let mut durable = here.subscribe(Source::Durable(Token::new("d")?, patterns(&["t.#", "u"])), 1).await?;
    let _service = here.subscribe(Source::Service(key("svc")), 1).await?;
    there.publish(event("bad")).await?;
    next(&mut durable).await.term("rejected", "no").await?;
    until("the survey shows it all", LIMIT, async || {
        let survey = there.survey().await.unwrap();
        let find = |what: What| survey.declared.iter().find(|one| one.what == what);
        let Some(queue) = find(What::Queue(key("jobs.test"))) else { return false };
        let Some(durable) = find(What::Durable(Token::new("d").unwrap())) else { return false };
        let Some(dead) = find(What::DeadDurable(Token::new("d").unwrap())) else { return false };
        let Some(service) = find(What::Service(key("svc"))) else { return false };
        survey.broker.contains("RabbitMQ 3.")
            && queue.waiting == Some(7)
            && queue.consumers == Some(0)
            && queue.in_hand.is_none()
            && durable.patterns.as_deref() == Some(&["t.#".to_owned(), "u".to_owned()])
            && durable.consumers == Some(1)
            && durable.idle == Some(Duration::ZERO)
            && durable.expires_after == Some(Duration::from_secs(7 * 24 * 3600))
            && dead.waiting == Some(1)
            && service.consumers == Some(1)
            && !survey.unknown.is_empty()
    })
    .await?;
    here.close().await?;
    there.close().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_who_remove_a_durable_subscription_one_does() -> Outcome {
    let (server, exchange) = (shared().await?, exchange());
    let bus = connect(&server.uri(), &exchange).await?;
    let name = Token::new("old")?;
    let source = || Source::Durable(Token::new("old").unwrap(), patterns(&["t.#"]));
    assert!(!bus.remove_durable(&name, None).await?, "there is none yet");
    let reading = bus.subscribe(source(), 1).await?;
    assert!(!bus.remove_durable(&name, Some(Duration::ZERO)).await?, "somebody reads it");
    drop(reading);
    bus.publish(event("kept")).await?;
    assert!(!bus.remove_durable(&name, Some(Duration::from_secs(60))).await?, "it was read just now");
    let mut tasks = Vec::new();
    for _ in 0..5 {
        let other = connect(&server.uri(), &exchange).await?;
        let name = name.clone();
        tasks.push(tokio::spawn(async move {
            let removed = other.remove_durable(&name, Some(Duration::from_millis(1))).await;
            other.close().await?;
            removed
        }));
    }
    let mut removed = 0;
    for task in tasks {
        removed += usize::from(task.await??);
    }
    assert_eq!(removed, 1);
    let listed = |survey: commissaire::survey::Survey| {
        survey.declared.iter().any(|one| one.what == What::Durable(Token::new("old").unwrap()))
    };
    assert!(!listed(bus.survey().await?));
    // Made again it begins anew; one that is removed under its reader comes back by itself.
    let mut again = bus.subscribe(source(), 1).await?;
    bus.publish(event("new")).await?;
    let delivery = next(&mut again).await;
    assert_eq!(body(&delivery), "new");
    delivery.ack().await?;
    assert!(bus.remove_durable(&name, None).await?);
    until("its reader makes it again", LIMIT, async || {
        bus.publish(event("after")).await.unwrap();
        matches!(tokio::time::timeout(Duration::from_millis(200), again.next_delivery()).await, Ok(Some(_)))
    })
    .await?;
    until("it is listed again", LIMIT, async || listed(bus.survey().await.unwrap())).await?;
    bus.close().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_letter_is_brought_back() -> Outcome {
    let (server, exchange) = (shared().await?, exchange());
    let bus = connect(&server.uri(), &exchange).await?;
    let mut queue = bus.subscribe(jobs(), 1).await?;
    let mut durable = bus.subscribe(Source::Durable(Token::new("d")?, patterns(&["t.#"])), 1).await?;
    bus.publish(job("job")).await?;
    bus.publish(event("event")).await?;
    for (subscription, origin, wanted) in [
        (&mut queue, Origin::Queue(key("jobs.test")), "job"),
        (&mut durable, Origin::Durable(Token::new("d")?), "event"),
    ] {
        next(subscription).await.term("rejected", "no").await?;
        let mut dead = bus.subscribe(Source::DeadLetters(origin), 1).await?;
        next(&mut dead).await.redrive().await?;
        let back = next(subscription).await;
        assert_eq!((body(&back).as_str(), back.attempt(), back.message().redriven()), (wanted, 1, 1));
        back.ack().await?;
        assert!(
            tokio::time::timeout(Duration::from_millis(300), dead.next()).await.is_err(),
            "it is there still"
        );
    }
    bus.close().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_whose_queue_is_gone_holds_up_no_other() -> Outcome {
    let (server, exchange) = (shared().await?, exchange());
    let bus = connect(&server.uri(), &exchange).await?;
    let other = || Source::Queue(key("jobs.other"));
    let (mut queue, mut gone) = (bus.subscribe(jobs(), 1).await?, bus.subscribe(other(), 40).await?);
    let rest = Duration::from_secs(3);
    // More than the broker moves at a time.
    for _ in 0..40 {
        bus.publish(Message::new(Address::Queue(key("jobs.other")), "lost")?).await?;
        next(&mut gone).await.nack(rest, "later").await?;
    }
    drop(gone);
    server.rabbitmqctl(&["delete_queue", &format!("{exchange}.1.q.jobs.other")]).await?;
    bus.publish(job("kept")).await?;
    let nacked = next(&mut queue).await;
    nacked.nack(rest, "later").await?;
    assert_eq!(body(&next(&mut queue).await), "kept");
    bus.close().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_read_becomes_a_dead_letter() -> Outcome {
    let (server, exchange) = (shared().await?, exchange());
    let bus = connect(&server.uri(), &exchange).await?;
    let mut queue = bus.subscribe(jobs(), 1).await?;
    let publish = format!(
        "rabbit_basic:publish(rabbit_misc:r(<<\"/\">>, exchange, <<\"{exchange}.1.work\">>), \
         <<\"{exchange}.1.q.jobs.test\">>, [], <<1, 1, \"rubbish\">>)."
    );
    server.rabbitmqctl(&["eval", &publish]).await?;
    bus.publish(job("good")).await?;
    assert_eq!(body(&next(&mut queue).await), "good");
    let mut dead = bus.subscribe(Source::DeadLetters(Origin::Queue(key("jobs.test"))), 4).await?;
    let letter = next(&mut dead).await;
    assert_eq!(letter.message().headers().get("bus-dead"), Some("malformed"));
    bus.close().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_refuses_and_takes_again_when_there_is_room() -> Outcome {
    let (server, exchange) = (shared().await?, exchange());
    let bus = connect(&server.uri(), &exchange).await?;
    let durable = || Source::Durable(Token::new("d").unwrap(), patterns(&["t.#"]));
    drop(bus.subscribe(durable(), 1).await?);
    let pattern = format!("^{exchange}");
    server
        .rabbitmqctl(&[
            "set_policy",
            exchange.as_str(),
            &pattern,
            "{\"max-length\": 5}",
            "--apply-to",
            "queues",
        ])
        .await?;
    for message in [job("x"), event("x")] {
        let fill = async || {
            for _ in 0..20 {
                // The same thing as new.
                bus.publish(Message::new(message.address().clone(), "x")?).await?;
            }
            Ok(())
        };
        let refused: Result<()> = fill().await;
        let error = refused.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Full, "{error}");
        assert!(!error.may_have_executed() && error.is_temporary());
    }
    for (source, message) in [(jobs(), job("more")), (durable(), event("more"))] {
        let mut reader = bus.subscribe(source, 1).await?;
        next(&mut reader).await.ack().await?;
        next(&mut reader).await.ack().await?;
        until("there is room again", LIMIT, async || bus.publish(message.clone()).await.is_ok()).await?;
    }
    server.rabbitmqctl(&["clear_policy", exchange.as_str()]).await?;
    bus.close().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_question_that_nobody_waits_for_any_more_costs_no_connection() -> Outcome {
    let (server, exchange) = (shared().await?, exchange());
    let bus = connect(&server.uri(), &exchange).await?;
    let queue = bus.subscribe(jobs(), 1).await?;
    let mut watch = bus.connection();
    let absent = Token::new("absent")?;
    let mut given_up = 0;
    for _ in 0..400 {
        // The broker answers that there is no such queue, and closes the channel, just when we leave it.
        let patience = Duration::from_micros(rand::random_range(0..3_000));
        given_up +=
            usize::from(tokio::time::timeout(patience, bus.remove_durable(&absent, None)).await.is_err());
    }
    assert!((1..400).contains(&given_up), "{given_up} were given up");
    let told = tokio::time::timeout(Duration::from_secs(1), watch.changed()).await;
    assert!(told.is_err() && queue.consuming().get(), "{told:?}");
    bus.close().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_program_declared_as_its_last_is_listed() -> Outcome {
    let (server, exchange) = (shared().await?, exchange());
    let brief = connect(&server.uri(), &exchange).await?;
    brief.publish(job("last")).await?;
    brief.close().await?;
    let bus = connect(&server.uri(), &exchange).await?;
    let survey = bus.survey().await?;
    let told = survey.declared.iter().find(|told| told.what == What::Queue(key("jobs.test")));
    assert_eq!(told.and_then(|told| told.waiting), Some(1), "{survey:?}");
    bus.close().await?;
    Ok(())
}
