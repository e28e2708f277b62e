//! What an operator deletes under a running program is made again.

use super::*;

/// The most until a subscription consumes again, beside what a rabbitmqctl takes.
const BACK: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_queue_is_consumed_again_within_seconds() -> Outcome {
    let (server, exchange) = (shared().await?, exchange());
    let bus = connect(&server.uri(), &exchange).await?;
    let mut queue = bus.subscribe(jobs(), 4).await?;
    let inbox = Inbox::random();
    let mut replies = bus.subscribe(Source::Inbox(inbox), 4).await?;
    let mut durable = bus.subscribe(Source::Durable(Token::new("d")?, patterns(&["t.#"])), 4).await?;
    let mut service = bus.subscribe(Source::Service(key("svc")), 4).await?;
    for name in ["q.jobs.test".to_owned(), format!("reply.{inbox}"), "sub.d".to_owned(), "rpc.svc".to_owned()]
    {
        server.rabbitmqctl(&["delete_queue", &format!("{exchange}.1.{name}")]).await?;
    }
    let all = |bus: [&Subscription; 4]| bus.iter().all(|subscription| subscription.consuming().get());
    until("all consume again", BACK, async || all([&queue, &replies, &durable, &service])).await?;
    assert!(
        matches!(within("a gap", LIMIT, replies.next()).await?, Some(Received::Gap(_))),
        "replies may be lost"
    );
    bus.publish(job("job")).await?;
    bus.publish(Message::new(Address::Inbox(inbox), "reply")?).await?;
    bus.publish(event("event")).await?;
    until("calls are taken again", BACK, async || bus.publish(call("call")).await.is_ok()).await?;
    for (subscription, wanted) in
        [(&mut queue, "job"), (&mut replies, "reply"), (&mut durable, "event"), (&mut service, "call")]
    {
        let delivery = next(subscription).await;
        assert_eq!(body(&delivery), wanted);
        delivery.ack().await?;
    }
    bus.close().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_binding_that_was_taken_away_is_made_again() -> Outcome {
    let (server, exchange) = (shared().await?, exchange());
    let bus = connect(&server.uri(), &exchange).await?;
    let mut topic = bus.subscribe(Source::Topic(patterns(&["t.#"])), 16).await?;
    // All bindings of events go with their exchange, and the next event finds none.
    let delete = format!(
        "rabbit_exchange:delete(rabbit_misc:r(<<\"/\">>, exchange, <<\"{exchange}.1.evt\">>), false, <<\"test\">>)."
    );
    server.rabbitmqctl(&["eval", &delete]).await?;
    let mut heard = false;
    let start = Instant::now();
    while !heard && start.elapsed() < LIMIT {
        // While the exchange is away an event may fail; it must not be taken for stored silently for long.
        let _ = bus.publish(event("again")).await;
        heard = matches!(
            tokio::time::timeout(Duration::from_millis(200), topic.next_delivery()).await,
            Ok(Some(_))
        );
    }
    assert!(heard, "no event came for {LIMIT:?} after the exchange was deleted");
    bus.close().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closed_connections_are_made_again_and_replies_wait_meanwhile() -> Outcome {
    let (server, names) = (shared().await?, [exchange(), exchange()]);
    // The same bus under two client names, of which the operator closes one.
    let (here, there) =
        (connect(&server.uri(), &names[0]).await?, connect_as(server, &names[0], &names[1]).await?);
    let inbox = Inbox::random();
    let mut replies = here.subscribe(Source::Inbox(inbox), 100).await?;
    let mut topic = here.subscribe(Source::Topic(patterns(&["t.#"])), 4).await?;
    let mut queue = here.subscribe(jobs(), 1).await?;
    there.publish(job("a")).await?;
    let held = next(&mut queue).await;
    let mut watch = here.connection();
    assert!(close_connections(server, &names[0]).await? >= 2);
    for number in 0..20 {
        there.publish(Message::new(Address::Inbox(inbox), number.to_string())?).await?;
    }
    within("the loss is told", LIMIT, async {
        while !matches!(watch.now(), Connection::Up) || !queue.consuming().get() {
            if tokio::time::timeout(Duration::from_millis(100), watch.changed()).await == Ok(None) {
                break;
            }
        }
    })
    .await?;
    let mut got = BTreeSet::new();
    while got.len() < 20 {
        // No gap: the broker has kept them.
        match within("a reply", LIMIT, replies.next()).await? {
            Some(Received::Delivery(reply)) => assert!(got.insert(body(&reply)), "a reply came twice"),
            other => panic!("{other:?} came where a reply was awaited"),
        }
    }
    assert!(matches!(within("a gap", LIMIT, topic.next()).await?, Some(Received::Gap(_))));
    let error = held.ack().await.unwrap_err();
    assert!(error.may_have_executed(), "{error}");
    let again = next(&mut queue).await;
    assert_eq!((body(&again).as_str(), again.redelivered() >= 1), ("a", true));
    again.ack().await?;
    here.close().await?;
    there.close().await?;
    Ok(())
}

async fn connect_as(server: &Server, exchange: &Token, name: &Token) -> Result<Arc<dyn Bus>> {
    let options = BusOptions {
        exchange: exchange.clone(),
        client_name: format!("test of {name}"),
        ..BusOptions::default()
    };
    (commissaire_amqp::DRIVER.connect)(server.uri().parse::<BusUri>()?, options).await
}
