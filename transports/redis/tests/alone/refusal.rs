//! Servers, settings and users that are refused, and what is never shown.

use super::*;

const CANARY: &str = "c4nary-s3cret";

#[tokio::test]
async fn strict_refuses_each_setting_by_name() -> Outcome {
    let server = Server::redis(&[("maxmemory-policy", "allkeys-lru")]).await?;
    let error = connect(&format!("{}?durability=strict", server.uri())).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::NotDurable);
    for setting in ["appendonly is no", "appendfsync is everysec", "maxmemory-policy is allkeys-lru"] {
        assert!(error.to_string().contains(setting), "{error}");
    }
    let bus = connect(&server.uri()).await?;
    assert_eq!(bus.guarantees().durability, Durability::None);
    Ok(())
}

#[tokio::test]
async fn cluster_mode_is_refused_by_name() -> Outcome {
    let server = Server::redis(&[("cluster-enabled", "yes")]).await?;
    let error = connect(&server.uri()).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Topology);
    assert!(error.to_string().contains("cluster_enabled:1"), "{error}");
    Ok(())
}

#[tokio::test]
async fn no_error_shows_the_password() -> Outcome {
    let server = Server::redis(&[]).await?;
    order(&server, &["CONFIG", "SET", "requirepass", "another"]).await;
    let port = server.port();
    for uri in [
        format!("redis://:{CANARY}@127.0.0.1:{port}"),
        format!("redis://user:{CANARY}@127.0.0.1:{port}"),
        format!("redis://:{CANARY}@127.0.0.1:1"),
        format!("redis://:{CANARY}@no.such.host.invalid"),
        format!("redis://:{CANARY}@127.0.0.1:{port}/x"),
        format!("redis://:{CANARY}@127.0.0.1:{port}?durability=sure"),
        format!("redis://:{CANARY}@127.0.0.1:{port}?nonsense=1"),
        format!("rediss://:{CANARY}@127.0.0.1:{port}"),
        format!("rediss://:{CANARY}@127.0.0.1:{port}?ca_file=/nonexistent"),
        format!("redis+unix://:{CANARY}@/nonexistent.sock"),
        format!("redis+unix:///nonexistent.sock?db={CANARY}"),
    ] {
        let error = match connect(&uri).await {
            Ok(bus) => panic!("{bus:?} was connected"),
            Err(error) => error,
        };
        let shown = format!("{error} {error:?} {}", error.chain());
        assert!(!shown.contains(CANARY) || uri.contains("db="), "{shown}");
    }
    let bus = connect(&format!("redis://:another@127.0.0.1:{port}")).await?;
    assert!(!format!("{bus:?}").contains("another"));
    Ok(())
}

#[tokio::test]
async fn credentials_are_decoded_and_a_socket_will_do() -> Outcome {
    let dir = tempfile::tempdir()?;
    let socket = dir.path().join("redis.sock");
    let server = Server::redis(&[("unixsocket", &socket.display().to_string())]).await?;
    connect(&format!("redis+unix://{}?db=2", socket.display())).await?.close().await?;
    order(&server, &["CONFIG", "SET", "requirepass", "p@ss/w:rd%"]).await;
    let password = "p%40ss%2Fw%3Ard%25";
    connect(&format!("redis://:{password}@127.0.0.1:{}/3", server.port())).await?.close().await?;
    let file = dir.path().join("password");
    std::fs::write(&file, "p@ss/w:rd%\n")?;
    let uri = format!("redis+unix://{}?db=2&password_file={}", socket.display(), file.display());
    connect(&uri).await?.close().await?;
    let error = connect(&format!("redis+unix://{}?db=2", socket.display())).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Forbidden, "{error}");
    Ok(())
}

#[tokio::test]
async fn a_star_does_not_cross_dots() -> Outcome {
    let server = Server::redis(&[]).await?;
    let bus = connect(&server.uri()).await?;
    let mut topic = bus.subscribe(Source::Topic(vec![Pattern::new("notify.*.created")?]), 4).await?;
    for text in ["notify.a.b.created", "notify.created", "notify.a.created"] {
        bus.publish(Message::new(Address::Topic(key(text)), text)?).await?;
    }
    assert_eq!(body(&next(&mut topic).await), "notify.a.created");
    Ok(())
}

#[tokio::test]
async fn a_server_with_a_password_is_seen_to_be_ready() -> Outcome {
    let server = within("the start", LIMIT, Server::redis(&[("requirepass", "pw")])).await??;
    assert_eq!(*connect(&server.uri()).await.unwrap_err().kind(), ErrorKind::Forbidden);
    connect(&format!("redis://:pw@127.0.0.1:{}", server.port())).await?.close().await?;
    Ok(())
}

#[tokio::test]
async fn a_key_of_another_type_is_named_and_stops_nobody_else() -> Outcome {
    let server = Server::redis(&[]).await?;
    let bus = connect(&server.uri()).await?;
    let stream = "bus:{commissaire}:1:q:jobs.test";
    order(&server, &["SET", stream, "something else"]).await;
    let source = Source::Durable(Token::new("d")?, vec![Pattern::new("t.#")?]);
    for (error, named) in [
        (bus.subscribe(jobs(), 1).await.unwrap_err(), stream),
        (bus.publish(job("a")).await.unwrap_err(), stream),
    ] {
        assert_eq!(*error.kind(), ErrorKind::Topology, "{error}");
        assert!(error.to_string().contains(named), "{error}");
    }
    order(&server, &["DEL", stream]).await;
    order(&server, &["SET", "bus:{commissaire}:1:bind", "something else"]).await;
    let error = bus.subscribe(source, 1).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Topology, "{error}");
    assert!(error.to_string().contains("\"bus:{commissaire}:1:bind\""), "{error}");
    order(&server, &["DEL", "bus:{commissaire}:1:bind"]).await;
    // What goes bad under a consumer says so, others go on, and it comes back.
    let other = Source::Queue(key("jobs.other"));
    let (mut bad, mut good) = (bus.subscribe(jobs(), 1).await?, bus.subscribe(other, 1).await?);
    // That a retry is due there, and cannot be moved, must not keep anybody from anything.
    order(&server, &["ZADD", &format!("{stream}:z"), "1", "1-1"]).await;
    order(&server, &["HSET", &format!("{stream}:b"), "1-1", "x"]).await;
    order(&server, &["SET", stream, "something else"]).await;
    until("the bad one is known", LIMIT, async || !bad.consuming().get()).await?;
    bus.publish(Message::new(Address::Queue(key("jobs.other")), "good")?).await?;
    assert_eq!(body(&next(&mut good).await), "good");
    until("the good one consumes", LIMIT, async || good.consuming().get()).await?;
    assert!(!bad.consuming().get());
    order(&server, &["DEL", stream, &format!("{stream}:z"), &format!("{stream}:b")]).await;
    let mended = Instant::now();
    until("it consumes again", LIMIT, async || bad.consuming().get()).await?;
    assert!(mended.elapsed() < Duration::from_secs(5), "{:?}", mended.elapsed());
    bus.publish(job("again")).await?;
    assert_eq!(body(&next(&mut bad).await), "again");
    Ok(())
}
