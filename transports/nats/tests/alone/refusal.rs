//! Servers, settings and users that are refused, and what is never shown.

use super::*;

const CANARY: &str = "c4nary-s3cret";

async fn refused(uri: &str) -> Error {
    match connect(uri).await {
        Ok(bus) => panic!("{bus:?} was connected"),
        Err(error) => error,
    }
}

#[tokio::test]
async fn what_a_server_lacks_is_named() -> Outcome {
    let small = Server::nats(&[("max_payload", "500000")]).await?;
    let error = refused(&small.uri()).await;
    assert!(
        *error.kind() == ErrorKind::Config && error.to_string().contains("max_payload is 500000"),
        "{error}"
    );
    let bus = connect(&Server::nats(&[("max_payload", "2000000")]).await?.uri()).await?;
    assert_eq!(bus.guarantees().durability, Durability::Kill);
    let server = Server::nats(&[]).await?;
    let error = refused(&format!("{}?durability=strict-power", server.uri())).await;
    assert!(*error.kind() == ErrorKind::NotDurable && error.to_string().contains("sync_interval"), "{error}");
    Ok(())
}

#[tokio::test]
async fn a_server_without_jetstream_is_named() -> Outcome {
    let account = "{ a { jetstream: disabled, users: [ { user: a, password: b } ] } }";
    let server = Server::nats(&[("accounts", account)]).await?;
    let error = refused(&format!("nats://a:b@127.0.0.1:{}", server.port())).await;
    assert!(*error.kind() == ErrorKind::Config && error.to_string().contains("JetStream"), "{error}");
    Ok(())
}

#[tokio::test]
async fn no_error_shows_a_secret() -> Outcome {
    let server = Server::nats(&[("authorization", "{ user: user, password: another }")]).await?;
    let port = server.port();
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("secret");
    std::fs::write(&file, CANARY)?;
    let file = file.display();
    for uri in [
        format!("nats://user:{CANARY}@127.0.0.1:{port}"),
        format!("nats://{CANARY}@127.0.0.1:{port}"),
        format!("nats://user:{CANARY}@127.0.0.1:1"),
        format!("nats://user:{CANARY}@no.such.host.invalid"),
        format!("nats://user:{CANARY}@127.0.0.1:{port}/x"),
        format!("nats://user:{CANARY}@127.0.0.1:{port}?durability=sure"),
        format!("nats://user:{CANARY}@127.0.0.1:{port}?nonsense=1"),
        format!("nats://user:{CANARY}@127.0.0.1:{port}?inbox_prefix=x"),
        format!("nats://user:{CANARY}@127.0.0.1:{port}?password_file={file}"),
        format!("nats://user:{CANARY}@127.0.0.1:{port}?nkey_file={file}"),
        format!("nats://user:{CANARY}@127.0.0.1:{port}?ca_file={file}"),
        format!("tls://user:{CANARY}@127.0.0.1:{port}"),
        format!("tls://user:{CANARY}@127.0.0.1:{port}?ca_file=/nonexistent"),
        format!("nats://user@127.0.0.1:{port}?password_file={file}"),
        format!("nats://127.0.0.1:{port}?password_file={file}"),
        format!("nats://127.0.0.1:{port}?nkey_file={file}"),
        format!("nats://127.0.0.1:{port}?creds_file={file}"),
        format!("nats://127.0.0.1:{port}?creds_file=/nonexistent"),
    ] {
        let error = refused(&uri).await;
        let shown = format!("{error} {error:?} {}", error.chain());
        assert!(!shown.contains(CANARY), "{shown}");
    }
    let error = refused(&format!("nats://user:{CANARY}@127.0.0.1:{port}")).await;
    assert_eq!(*error.kind(), ErrorKind::Forbidden, "{error}");
    let bus = connect(&format!("nats://user:another@127.0.0.1:{port}")).await?;
    assert!(!format!("{bus:?}").contains("another"));
    Ok(())
}

#[tokio::test]
async fn every_way_to_say_who_one_is_works() -> Outcome {
    let dir = tempfile::tempdir()?;
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let server = Server::nats(&[("authorization", r#"{ user: "u ser", password: "p@ss/w:rd%" }"#)]).await?;
    let port = server.port();
    connect(&format!("nats://u%20ser:p%40ss%2Fw%3Ard%25@127.0.0.1:{port}")).await?.close().await?;
    let password = file("password", "p@ss/w:rd%\n");
    connect(&format!("nats://u%20ser@127.0.0.1:{port}?password_file={password}")).await?.close().await?;

    let server = Server::nats(&[("authorization", "{ token: t0ken }")]).await?;
    let port = server.port();
    connect(&format!("nats://t0ken@127.0.0.1:{port}")).await?.close().await?;
    let token = file("token", "t0ken");
    connect(&format!("nats://127.0.0.1:{port}?password_file={token}")).await?.close().await?;
    assert_eq!(*refused(&format!("nats://127.0.0.1:{port}")).await.kind(), ErrorKind::Forbidden);

    // A key of the tests of NATS itself.
    let (public, seed) = (
        "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4",
        "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY",
    );
    let server =
        Server::nats(&[("authorization", &format!("{{ users: [ {{ nkey: {public} }} ] }}"))]).await?;
    let seed = file("seed", seed);
    connect(&format!("nats://127.0.0.1:{}?nkey_file={seed}", server.port())).await?.close().await?;
    Ok(())
}

#[tokio::test]
async fn several_servers_may_be_named() -> Outcome {
    let server = Server::nats(&[]).await?;
    let uri = format!("nats://127.0.0.1:1?servers=127.0.0.1:{}", server.port());
    connect(&uri).await?.close().await?;
    for wrong in ["a:b@h:1", "h:1,", "h/x", "nats://h:1"] {
        let error = refused(&format!("nats://127.0.0.1:1?servers={}", wrong.replace('@', "%40"))).await;
        assert_eq!(*error.kind(), ErrorKind::Config, "{error}");
        assert!(!error.to_string().contains("a:b"), "{error}");
    }
    Ok(())
}
