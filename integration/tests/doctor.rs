//! `commissaire doctor` and `require`: what a bus gives, and what is wrong with it.

use std::{fs, net::TcpListener};

use commissaire_integration::{Kind, Outcome, Place, Server, Site, each_bus, ensure};

each_bus!(a_bus_in_order_is_healthy, jobs_that_nobody_takes_are_a_finding,);

async fn a_bus_in_order_is_healthy(kind: Kind) -> Outcome {
    let site = Site::on(kind).await?;
    let _simple = site.service("simple", &[]).await?;
    let told = site.cli(&["doctor"])?.run().await?.expect(0)?;
    for part in ["bus ", "broker ", "connection  up", "PROMISES", "nothing wrong was found"] {
        ensure!(told.out.contains(part), "{part:?} is not in {}", told.out);
    }
    let json = site.cli(&["doctor", "--json"])?.run().await?.expect(0)?.json()?;
    ensure!(json["reachable"] == true && json["healthy"] == true, "{json:#}");
    let declared = json["survey"]["declared"].as_array().cloned().unwrap_or_default();
    let service = declared.iter().find(|one| one["what"]["service"] == "simple");
    let unknown = json["survey"]["unknown"].as_array().is_some_and(|unknown| !unknown.is_empty());
    // What a broker does not tell is unknown, and it says so.
    ensure!(unknown || service.is_some_and(|one| one["consumers"] == 1), "{json:#}");
    Ok(())
}

async fn jobs_that_nobody_takes_are_a_finding(kind: Kind) -> Outcome {
    let site = Site::on(kind).await?;
    for number in 0..3 {
        let job = format!("[{number}]");
        site.cli(&["enqueue", "jobs.forgotten", &job])?.run().await?.expect(0)?;
    }
    let ended = site.cli(&["doctor", "--json"])?.run().await?;
    let json = ended.json()?;
    let declared = json["survey"]["declared"].as_array().cloned().unwrap_or_default();
    let queue = declared.iter().find(|one| one["what"]["queue"] == "jobs.forgotten");
    let Some(queue) = queue else {
        let unknown = json["survey"]["unknown"].as_array().is_some_and(|unknown| !unknown.is_empty());
        ensure!(unknown, "a queue is not told of, and nothing is unknown: {json:#}");
        return Ok(());
    };
    ensure!(queue["waiting"] == 3, "{json:#}");
    // Where consumers are not told, it takes a while until nobody is known to be there.
    if queue["consumers"].is_null() {
        return Ok(());
    }
    let found = json["findings"].as_array().cloned().unwrap_or_default();
    let about = found.iter().any(|one| one["about"] == "queue jobs.forgotten");
    ensure!(about && ended.code == Some(1), "{json:#}");
    Ok(())
}

#[tokio::test]
async fn a_bus_that_cannot_be_reached_is_said_with_what_to_do() -> Outcome {
    let place = Place::new()?;
    // Nobody listens there: the port was free a moment ago.
    let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
    for scheme in ["redis", "nats", "amqp"] {
        let uri = format!("{scheme}://127.0.0.1:{port}");
        let ended = place.cli(&["doctor", "--bus-uri", &uri])?.run().await?.expect(3)?;
        for part in ["cannot be reached", &port.to_string(), "bus_uri"] {
            ensure!(ended.out.contains(part), "{part:?} is not in {ended:#?}");
        }
        let json = place.cli(&["doctor", "--json", "--bus-uri", &uri])?.run().await?.expect(3)?.json()?;
        ensure!(json["reachable"] == false && json["error"].is_string(), "{json}");
    }
    // Nor is there a bus that it would find by itself.
    let ended = place.cli(&["doctor"])?.run().await?.expect(3)?;
    ensure!(ended.out.contains("commissaire up"), "{ended:#?}");
    place.cli(&["doctor", "--bus-uri", "carrier-pigeon://x"])?.run().await?.expect(78).map(drop)
}

#[tokio::test]
async fn a_redis_that_forgets_is_a_finding_where_more_is_required() -> Outcome {
    let server = Server::redis(&[]).await?;
    let place = Place::new()?;
    let doctor = place.cli(&["doctor", "--json", "--bus-uri", &server.uri()])?;
    let json = doctor.env("COMMISSAIRE_REQUIRE", "durable, shared").run().await?.expect(1)?.json()?;
    let found = json["findings"].to_string();
    ensure!(found.contains("durable is required") && !found.contains("shared is"), "{json:#}");
    Ok(())
}

#[tokio::test]
async fn a_program_does_not_start_on_a_bus_that_gives_less_than_it_requires() -> Outcome {
    let place = Place::new()?;
    let data = place.data().display().to_string();
    let up = place.cli(&["up", "--data-dir", &data])?.env("COMMISSAIRE_REQUIRE", "durable,shared");
    let refused = up.run().await?.expect(78)?;
    refused.tells(&["durable", "do not survive", "redis://"])?;
    ensure!(!refused.out.contains("ready"), "{refused:#?}");
    ensure!(!place.data().join("bus.sock").exists(), "the socket of the bus that was refused is still there");

    let file = place.path().join("simple.conf");
    for (require, code, says) in [
        (r#"["shared"]"#, 78, "no other process"),
        (r#""republish""#, 78, "published twice"),
        (r#"["at-least-once"]"#, 0, ""),
        (r#"["undying"]"#, 78, "at_least_once, durable"),
        ("7", 78, "list of names"),
    ] {
        fs::write(&file, format!(r#"{{"bus_uri": "memory://", "require": {require}}}"#))?;
        let mut simple = place.order("commissaire-simple-service")?.arg("-c").arg(&file).start()?;
        if code == 0 {
            simple.logs("ready", |line| line.contains(" ready ")).await?;
            simple.terminate().await?.expect(0)?;
        } else {
            simple.ended().await?.expect(code)?.tells(&[says])?;
        }
    }
    // It moves the commands as well.
    let up = place.up(&[]).await?;
    let call = place.cli(&["call", "simple.add", "[2, 3]"])?;
    call.env("COMMISSAIRE_REQUIRE", "durable").run().await?.expect(78)?.tells(&["durable"])?;
    let call = place.cli(&["call", "simple.add", "[2, 3]"])?;
    call.env("COMMISSAIRE_REQUIRE", "shared").run().await?.expect(0)?;
    up.terminate().await?.expect(0).map(drop)
}
