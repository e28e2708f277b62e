//! A broker that is killed when it has just made a queue.

use super::*;

/// RabbitMQ before 4 writes down lazily which quorum queues it has made, and forgets those it had not written.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_queue_took_as_soon_as_it_was_made_survives_a_kill() -> Outcome {
    let (mut server, exchange) = (Server::rabbitmq(&[]).await?, exchange());
    let mut late = Vec::new();
    for round in 0..3 {
        let bus = connect(&server.uri(), &exchange).await?;
        let durable = || Source::Durable(Token::new(format!("d{round}")).unwrap(), patterns(&["t.#"]));
        let jobs = key(&format!("jobs.round{round}"));
        drop(bus.subscribe(durable(), 1).await?);
        bus.publish(event("kept")).await?;
        bus.publish(Message::new(Address::Queue(jobs.clone()), "kept")?).await?;
        server.kill();
        drop(bus);
        server.restart().await?;
        let bus = connect(&server.uri(), &exchange).await?;
        let start = Instant::now();
        for source in [Source::Queue(jobs), durable()] {
            let mut subscription = bus.subscribe(source, 1).await?;
            let delivery = next(&mut subscription).await;
            assert_eq!(body(&delivery), "kept");
            delivery.ack().await?;
        }
        late.push(start.elapsed());
        let survey = bus.survey().await?;
        let listed = |what: &str| survey.declared.iter().filter(|one| one.what.to_string() == what).count();
        assert_eq!(listed(&format!("durable d{round}")), 1, "{survey:?}");
        bus.close().await?;
    }
    println!("both are there again {late:?} after the broker");
    Ok(())
}
