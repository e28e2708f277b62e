//! A password in a bus URI is told to nobody but the broker.

use std::fs;

use commissaire_integration::{Broker, Ended, Outcome, PATIENCE, Place, Server, ensure, get, join, until};

/// Stands in every password here, and nowhere else.
const CANARY: &str = "c4n4ry";

/// A server where `someone` has a password with characters that must be escaped.
async fn server(place: &Place) -> Outcome<Server> {
    let users = place.path().join("users.acl");
    let everything = "~* &* +@all";
    let texts = [
        format!("user default on nopass {everything}"),
        format!("user someone on >{CANARY}/\u{e9} {everything}"),
    ];
    fs::write(&users, texts.join("\n") + "\n")?;
    let users = users.display().to_string();
    let mut settings = Broker::STRICT.to_vec();
    settings.push(("aclfile", &users));
    Server::redis(&settings).await
}

fn silent(ended: &Ended, what: &str) -> Outcome {
    let told = ended.out.contains(CANARY) || ended.err.contains(CANARY);
    ensure!(!told, "{what} told the password: {ended:#?}");
    Ok(())
}

/// Everything that takes a bus URI, given `uri` in each way that there is.
async fn every_way(place: &Place, uri: &str, code: i32) -> Outcome {
    let data = place.data().display().to_string();
    let commands: [&[&str]; 7] = [
        &["call", "simple.add", "[2, 3]"],
        &["publish", "notify.x", "1"],
        &["enqueue", "jobs.x", "[1]"],
        &["listen", "notify.#", "--count", "1", "--timeout", "1s"],
        &["up", "--data-dir", &data],
        &["dlq", "ls"],
        &["doctor"],
    ];
    for command in commands {
        let what = format!("{} with {}", command[0], uri.replace(CANARY, "PASSWORD"));
        let by_option = place.cli(command)?.args(["-vvv", "--bus-uri", uri]).run().await?;
        silent(&by_option, &what)?;
        let by_environment = place.cli(command)?.env("COMMISSAIRE_BUS_URI", uri).run().await?;
        silent(&by_environment, &what)?;
        for ended in [by_option, by_environment] {
            ended.expect(code).map_err(|failure| failure.in_step(&what))?;
        }
    }
    let file = place.path().join("service.conf");
    fs::write(&file, serde_json::json!({ "bus_uri": uri }).to_string())?;
    for service in ["commissaire-simple-service", "commissaire-storage-service"] {
        let what = format!("{service} with {}", uri.replace(CANARY, "PASSWORD"));
        let orders = [
            place.order(service)?.args(["-vvv", "--config"]).arg(&file),
            place.order(service)?.arg("-vvv").env("COMMISSAIRE_BUS_URI", uri),
            place.order(service)?.args(["-vvv", "--bus-uri", uri]),
        ];
        for order in orders {
            let ended = order.args(["--data-dir", &data]).run().await?;
            silent(&ended, &what)?;
            ended.expect(code).map_err(|failure| failure.in_step(&what))?;
        }
    }
    // The library's own errors.
    let parsed: commissaire::Result<commissaire::BusUri> = uri.parse();
    if let Ok(parsed) = &parsed {
        ensure!(!format!("{parsed} {parsed:?} {parsed:#?}").contains(CANARY), "a URI shows itself: {parsed}");
    }
    match join(uri).await {
        Ok(_) => Err(commissaire_integration::Failure::new("it could be joined")),
        Err(failure) => {
            let text = failure.to_string();
            ensure!(!text.contains(CANARY), "an error told the password: {text}");
            Ok(())
        }
    }
}

#[tokio::test]
async fn a_uri_that_does_not_lead_to_a_bus_is_refused_without_its_password() -> Outcome {
    let place = Place::new()?;
    let server = server(&place).await?;
    let port = server.port();
    let user = format!("{{ user: someone, password: \"{CANARY}/\u{e9}\" }}");
    let nats = Server::nats(&[("authorization", &user)]).await?;
    for (code, uri) in [
        // A wrong password, a wrong one that is written with escapes, and a user who is not there.
        (78, format!("redis://someone:{CANARY}@127.0.0.1:{port}")),
        (78, format!("redis://someone:{CANARY}%2F%C3%A8@127.0.0.1:{port}/0?durability=strict")),
        (78, format!("redis://nobody:{CANARY}@127.0.0.1:{port}")),
        (78, format!("nats://someone:{CANARY}@127.0.0.1:{}", nats.port())),
        // A host where nobody is, and one that does not exist.
        (3, format!("redis://:{CANARY}@127.0.0.1:1")),
        (3, format!("redis://:{CANARY}@nowhere.invalid")),
        (3, format!("nats://someone:{CANARY}@127.0.0.1:1")),
        (3, format!("amqp://someone:{CANARY}@127.0.0.1:1")),
        // TLS to a server that speaks none.
        (3, format!("rediss://:{CANARY}@127.0.0.1:{port}")),
        // Schemes that nobody serves, and one that takes no password.
        (78, format!("amqp+carrier://someone:{CANARY}@127.0.0.1")),
        (78, format!("memory://someone:{CANARY}@host")),
        (78, format!("mailto:{CANARY}@127.0.0.1")),
    ] {
        every_way(&place, &uri, code).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_uri_that_cannot_be_read_is_refused_without_its_password() -> Outcome {
    let place = Place::new()?;
    for uri in [
        format!("redis://:{CANARY}@127.0.0.1:port"),
        format!("redis://:{CANARY}@[::1"),
        format!("redis//:{CANARY}@127.0.0.1"),
        CANARY.to_owned(),
        // Characters in the password that have to be escaped.
        format!("redis://:{CANARY}#1@127.0.0.1:1"),
        format!("redis://someone:1/{CANARY}@127.0.0.1:1"),
        format!("redis://someone:1?{CANARY}@127.0.0.1:1"),
        format!("redis://someone:1#{CANARY}@127.0.0.1:1"),
        format!("redis://:%FF{CANARY}@127.0.0.1:1"),
        // An option that does not exist, and one that does with a strange value.
        format!("redis://:{CANARY}@127.0.0.1:1/?pasword={CANARY}"),
    ] {
        every_way(&place, &uri, 78).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_program_at_work_tells_its_password_nowhere_whatever_befalls_it() -> Outcome {
    let place = Place::new()?;
    let mut server = server(&place).await?;
    let uri = server.uri().replace("://", &format!("://someone:{CANARY}%2F%C3%A9@"));
    let admin = place.path().join("admin.sock").display().to_string();
    let up = place.cli(&["up", "-vvv", "--admin", &admin, "--data-dir"])?.arg(place.data());
    let mut up = up.env("COMMISSAIRE_BUS_URI", &uri).start()?;
    up.says("ready", |line| line == "ready").await?;
    let call = async |code: i32, params: &str| -> Outcome {
        let order =
            place.cli(&["call", "simple.wordy_add", params, "-vvv", "--timeout", "1s", "--bus-uri", &uri])?;
        let ended = order.run().await?;
        silent(&ended, "call")?;
        ended.expect(code).map(drop)
    };
    call(0, "[2, 3]").await?;
    call(1, "[2]").await?;
    server.kill();
    call(3, "[2, 3]").await?;
    let status = async |wanted: u16| {
        until(format_args!("/readyz is {wanted}"), PATIENCE, async || {
            get(&admin, "/readyz").await.is_ok_and(|answer| answer.status == wanted)
        })
        .await
    };
    status(503).await?;
    server.restart().await?;
    status(200).await?;
    call(0, "[2, 3]").await?;
    for path in ["/healthz", "/readyz", "/metrics", "/"] {
        let answer = get(&admin, path).await?;
        ensure!(!format!("{answer:?}").contains(CANARY), "{path} told the password: {answer:?}");
    }
    let ended = up.terminate().await?;
    silent(&ended, "up")?;
    ensure!(
        ended.err.contains("redis"),
        "with -vvv it says nothing of redis: was it heard at all? {ended:?}"
    );
    ended.expect(0).map(drop)
}
