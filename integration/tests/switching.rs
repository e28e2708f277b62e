//! Another bus is one option: nothing else that anybody wrote changes.

use commissaire_integration::{Kind, Outcome, Place, Server, Site, ensure};

/// What a user does, with COMMISSAIRE_BUS_URI as the only thing that knows the bus. Returns all that was printed.
async fn script(site: &Site) -> Outcome<Vec<String>> {
    let mut printed = Vec::new();
    let data = site.place.path().join("records").display().to_string();
    let simple = site.service("simple", &[]).await?;
    let storage = site.service("storage", &["--data-dir", &data]).await?;
    let listeners = [
        vec!["listen", "notify.storage.Host.*", "--count", "2", "--timeout", "30s"],
        vec!["listen", "notify.#", "--durable", "audit", "--count", "3", "--timeout", "30s"],
    ];
    let mut listening = Vec::new();
    for arguments in listeners {
        let mut listener = site.cli(&arguments)?.start()?;
        listener.logs("listening", |line| line == "listening").await?;
        listening.push(listener);
    }
    let host = r#"{"model_type_name": "Host", "model_json_data": {"address": "10.0.0.7"}}"#;
    for (code, arguments) in [
        (0, ["call", "simple.wordy_add", "[2, 3]"]),
        (0, ["call", "storage.save", host]),
        (0, ["call", "storage.delete", host]),
        (1, ["call", "storage.get", host]),
        (1, ["call", "simple.divide", "[2, 3]"]),
        (2, ["call", "nobody.there", "[2, 3]"]),
        (64, ["call", "simple.*", "[2, 3]"]),
        (0, ["publish", "notify.site.opened", r#"{"by": "me"}"#]),
    ] {
        let ended = site.cli(&arguments)?.run().await?.expect(code)?;
        printed.extend([ended.out, ended.err]);
    }
    for listener in listening {
        let heard = listener.ended().await?.expect(0)?;
        for line in heard.out.lines() {
            let event: serde_json::Value = serde_json::from_str(line).map_err(std::io::Error::from)?;
            printed.push(format!("{} {}", event["key"], event["body"]));
        }
    }
    for service in [storage, simple] {
        service.terminate().await?.expect(0)?;
    }
    Ok(printed)
}

#[tokio::test]
async fn the_same_script_prints_the_same_on_every_bus() -> Outcome {
    let memory = script(&Site::on(Kind::Memory).await?).await?;
    for kind in [Kind::Redis, Kind::Nats, Kind::Amqp] {
        let printed = script(&Site::on(kind).await?).await?;
        ensure!(memory == printed, "memory printed\n{memory:#?}\n{kind:?} printed\n{printed:#?}");
    }
    Ok(())
}

#[tokio::test]
async fn up_with_a_bus_uri_puts_its_services_on_that_bus() -> Outcome {
    let server = Server::redis(&[]).await?;
    let place = Place::new()?;
    let order = place.cli(&["up", "--data-dir"])?.arg(place.data()).env("COMMISSAIRE_BUS_URI", server.uri());
    let mut up = order.start()?;
    up.says("ready", |line| line == "ready").await?;
    ensure!(!place.data().join("bus.sock").exists(), "there is a socket that nobody asked for");
    // From another home nothing but the URI leads there.
    let other = Place::new()?;
    let call = other.cli(&["call", "simple.add", "[2, 3]", "--bus-uri", &server.uri()])?;
    ensure!(call.run().await?.expect(0)?.out == "5\n", "2 + 3 is something else");
    other.cli(&["call", "simple.add", "[2, 3]"])?.run().await?.expect(3)?;
    up.terminate().await?.expect(0).map(drop)
}
