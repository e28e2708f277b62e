//! The conformance suite over Redis as Kombu uses it, and what holds there alone.

#![allow(clippy::unwrap_used)]

use std::{sync::Arc, time::Duration};

use commissaire::{
    Address, Bus, BusOptions, BusUri, Inbox, Key, Message, Pattern, Source, Token,
    testkit::{Certificates, Differential, Failure, Outcome, Secure, Server, Target, differential, within},
};

/// As the shipped configuration has it.
const STRICT: &[(&str, &str)] = &[("appendonly", "yes"), ("appendfsync", "always")];

async fn kombu() -> Result<Target, Failure> {
    let server = Server::redis(STRICT).await?;
    let uri = format!("kombu+{}/0?durability=strict-power", server.uri());
    Ok(Target::driver(commissaire_kombu::DRIVER, uri).on(server).lease(Duration::from_secs(10)))
}

commissaire::conformance!(kombu, commissaire_kombu::DRIVER.promises);

#[test]
fn random_programs_come_to_what_the_model_says() {
    differential(kombu);
}

#[test]
fn random_programs_over_deaths_of_the_server_come_to_what_the_model_says() {
    Differential::restarting().check(kombu);
}

async fn connect(uri: &str) -> Outcome<Arc<dyn Bus>> {
    Ok((commissaire_kombu::DRIVER.connect)(uri.parse::<BusUri>()?, BusOptions::default()).await?)
}

/// Sends one message each way, and sees it come.
async fn carries(uri: &str) -> Outcome {
    let (here, there) = (connect(uri).await?, connect(uri).await?);
    let inbox = Inbox::random();
    let pattern = vec![Pattern::new("t.#")?];
    for (source, address) in [
        (Source::Service(Key::new("calc")?), Address::Service(Key::new("calc.add")?)),
        (Source::Queue(Key::new("jobs.a")?), Address::Queue(Key::new("jobs.a")?)),
        (Source::Topic(pattern.clone()), Address::Topic(Key::new("t.x")?)),
        (Source::Durable(Token::new("d")?, pattern), Address::Topic(Key::new("t.y")?)),
        (Source::Inbox(inbox), Address::Inbox(inbox)),
    ] {
        let mut subscription = here.subscribe(source, 1).await?;
        there.publish(Message::new(address.clone(), "x")?).await?;
        let what = format!("a delivery to {address}");
        let delivery = within(what, Duration::from_secs(15), subscription.next_delivery()).await?;
        let delivery = delivery.ok_or_else(|| Failure::new("the subscription ended"))?;
        assert_eq!(delivery.message().address(), &address);
        delivery.ack().await?;
    }
    here.close().await?;
    there.close().await?;
    Ok(())
}

#[tokio::test]
async fn the_options_of_kombu_programs_are_kept_to() -> Outcome {
    let server = Server::redis(&[]).await?;
    let uri = format!("kombu+{}/3?global_keyprefix=site:&sep=:&priority_steps=0,5", server.uri());
    carries(&uri).await?;
    let client = redis::Client::open(format!("{}/3", server.uri())).unwrap();
    let mut admin = client.get_multiplexed_async_connection().await.unwrap();
    let keys: Vec<String> = redis::cmd("KEYS").arg("*").query_async(&mut admin).await.unwrap();
    assert!(keys.iter().all(|key| key.starts_with("site:")), "{keys:?}");
    let lines: Vec<String> =
        redis::cmd("SMEMBERS").arg("site:_kombu.binding.commissaire").query_async(&mut admin).await.unwrap();
    assert!(lines.contains(&r"jobs.a:^jobs\.a$:jobs.a".to_owned()), "{lines:?}");
    // The less urgent list of the queue is read too.
    let bus = connect(&uri).await?;
    let mut jobs = bus.subscribe(Source::Queue(Key::new("jobs.a")?), 1).await?;
    let raw = r#"{"body": "x", "properties": {"priority": 7, "delivery_tag": "t", "delivery_info": {}}}"#;
    redis::cmd("LPUSH").arg("site:jobs.a:5").arg(raw).query_async::<i64>(&mut admin).await.unwrap();
    let job = within("a less urgent job", Duration::from_secs(15), jobs.next_delivery()).await?;
    let job = job.ok_or_else(|| Failure::new("the subscription ended"))?;
    assert_eq!(&job.message().body()[..], b"x");
    // Given back, it is where it was.
    drop(job);
    bus.close().await?;
    let left: i64 = redis::cmd("LLEN").arg("site:jobs.a:5").query_async(&mut admin).await.unwrap();
    assert_eq!(left, 1);
    Ok(())
}

#[tokio::test]
async fn a_unix_socket_will_do() -> Outcome {
    let dir = tempfile::tempdir()?;
    let socket = dir.path().join("redis.sock").display().to_string();
    let _server = Server::redis(&[("unixsocket", &socket)]).await?;
    carries(&format!("kombu+redis+socket://{socket}?db=2")).await
}

#[tokio::test]
async fn tls_verifies_both_sides() -> Outcome {
    let plain = Server::redis(&[]).await?;
    let secure = Secure {
        driver: commissaire_kombu::DRIVER,
        schemes: ("kombu+redis", "kombu+rediss"),
        login: "",
        plain: plain.port(),
    };
    let start = async |files: &Certificates, name: &str, demands: bool| {
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let server = Server::redis(&[
            ("tls-port", &port.to_string()),
            ("tls-cert-file", &files.of(name)),
            ("tls-key-file", &files.key(name)),
            ("tls-ca-cert-file", &files.of("ca")),
            ("tls-auth-clients", if demands { "yes" } else { "no" }),
        ])
        .await?;
        Ok((server, port))
    };
    secure.check(start).await
}
