//! A broker that is short of memory takes no messages, and everything else goes on.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alarm_stops_publishers_within_bounds_and_nobody_else() -> Outcome {
    let (server, exchange) = (Server::rabbitmq(&[]).await?, exchange());
    let bus = connect(&server.uri(), &exchange).await?;
    for number in 0..30 {
        bus.publish(job(number.to_string())).await?;
    }
    let mut queue = bus.subscribe(jobs(), 4).await?;
    next(&mut queue).await.ack().await?;
    server.rabbitmqctl(&["set_vm_memory_high_watermark", "absolute", "1000"]).await?;
    // The broker says that it is blocked to those who publish: the first may be on its way then.
    let short = |body: &str| job(body).with_ttl(Duration::from_secs(2));
    let start = Instant::now();
    let first = bus.publish(short("first")).await.unwrap_err();
    let second = bus.publish(short("second")).await.unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
    assert!(first.is_temporary() && second.is_temporary(), "{first} {second}");
    assert!(!second.may_have_executed() && second.to_string().contains("memory"), "{second}");
    for _ in 0..20 {
        next(&mut queue).await.ack().await?;
    }
    assert!(queue.consuming().get());
    // More than a broker's patience with a client that is silent.
    tokio::time::sleep(Duration::from_secs(14)).await;
    let waiting = {
        let bus = bus.clone();
        tokio::spawn(async move { bus.publish(job("waits")).await })
    };
    tokio::time::sleep(Duration::from_millis(500)).await;
    server.rabbitmqctl(&["set_vm_memory_high_watermark", "0.6"]).await?;
    within("who waited is let through", Duration::from_secs(5), waiting).await???;
    bus.publish(job("after")).await?;
    let mut left = BTreeSet::new();
    while !left.contains("after") {
        let delivery = next(&mut queue).await;
        left.insert(body(&delivery));
        delivery.ack().await?;
    }
    assert!(left.contains("waits") && left.contains("29") && !left.contains("second"), "{left:?}");
    bus.close().await?;
    Ok(())
}
