//! Configurations that change while a service runs.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use commissaire::{BusOptions, Client, connect};
use commissaire_integration::{Failure, Outcome, PATIENCE, Place, Process, Server, Signal, ensure, until};
use commissaire_simple::{Add, Sum};

use crate::etcd::{client, failed, key, put};

/// Within this a change in etcd takes effect.
const EFFECT: Duration = Duration::from_secs(1);

/// Calls that go on and on, none of which may fail.
struct Calling {
    over: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<Outcome>,
}

impl Calling {
    async fn start(uri: &str) -> Outcome<Self> {
        let bus = connect(&uri.parse()?, &BusOptions::default(), commissaire_transports::ALL).await?;
        let (over, answered) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (until, counted) = (over.clone(), answered.clone());
        let task = tokio::spawn(async move {
            let client = Client::new(bus.clone());
            while !until.load(Ordering::Acquire) {
                let n = counted.load(Ordering::Relaxed) as i64;
                let sum = client.call(Add, &Sum { x: n, y: 1 }).await?;
                ensure!(sum == n + 1, "{n} + 1 is {sum}");
                counted.fetch_add(1, Ordering::Relaxed);
            }
            Ok(bus.close().await?)
        });
        Ok(Self { over, answered, task })
    }

    async fn stop(self) -> Outcome<u64> {
        self.over.store(true, Ordering::Release);
        self.task.await.map_err(|e| Failure::new(e.to_string()))??;
        Ok(self.answered.load(Ordering::Relaxed))
    }
}

/// What `process` logged so far that holds `text`.
fn lines(process: &Process, text: &str) -> usize {
    process.err().iter().filter(|line| line.contains(text)).count()
}

#[tokio::test]
async fn a_level_that_changes_in_etcd_holds_within_a_second_and_no_message_is_lost() -> Outcome {
    let (etcd, redis) = (Server::etcd(&[]).await?, Server::redis(&[]).await?);
    let mut writer = client(&etcd.uri()).await?;
    let place = Place::new()?;
    let order = place.order("commissaire-simple-service")?.env("ETCD_MACHINES", etcd.uri());
    let mut service = order.args(["--bus-uri", &redis.uri()]).start()?;
    service.logs("ready", |line| line.contains("ready")).await?;
    ensure!(lines(&service, "DEBUG") == 0, "{service:?} tells more than it was asked for");
    let calling = Calling::start(&redis.uri()).await?;
    for round in 0..5 {
        let (before, began) = (lines(&service, "DEBUG"), Instant::now());
        put(&mut writer, "simple", r#"{"logging": {"root": {"level": "DEBUG"}}}"#).await?;
        until("more is told", EFFECT, async || lines(&service, "DEBUG") > before).await?;
        println!("round {round}: after {:?} more is told", began.elapsed());
        let told = lines(&service, "the configuration has changed");
        put(&mut writer, "simple", r#"{"logging": {"root": {"level": "INFO"}}}"#).await?;
        until("the level is back", EFFECT, async || lines(&service, "the configuration has changed") > told)
            .await?;
        let quiet = lines(&service, "DEBUG");
        tokio::time::sleep(Duration::from_millis(200)).await;
        ensure!(lines(&service, "DEBUG") <= quiet + 1, "it still tells more than it was asked for");
    }
    let answered = calling.stop().await?;
    ensure!(answered > 100, "only {answered} calls were answered");
    service.terminate().await?.expect(0).map(drop)
}

#[tokio::test]
async fn what_cannot_be_used_changes_nothing_and_what_needs_a_restart_says_so() -> Outcome {
    let (etcd, redis) = (Server::etcd(&[]).await?, Server::redis(&[]).await?);
    let mut writer = client(&etcd.uri()).await?;
    let place = Place::new()?;
    let order = place.order("commissaire-simple-service")?.env("ETCD_MACHINES", etcd.uri());
    let mut service = order.args(["--bus-uri", &redis.uri()]).start()?;
    service.logs("ready", |line| line.contains("ready")).await?;
    let calling = Calling::start(&redis.uri()).await?;
    for (text, says) in [
        (r#"{"grace_seconds": "long"}"#, "member \"grace_seconds\" must be"),
        (
            r#"{"logging": {"root": {"handlers": ["nobody"]}}}"#,
            "member \"logging.root.handlers.0\" names \"nobody\"",
        ),
        (r#"{"bogus": 1}"#, "member \"bogus\" is not known here"),
        (r#"{"admin": "127.0.0.1:1"}"#, "after a restart of the program this holds as well: admin"),
        (r#"{"grace_seconds": 3}"#, "the configuration has changed changed=grace_seconds"),
        ("[]", "must be one JSON object"),
    ] {
        put(&mut writer, "simple", text).await?;
        service.logs(says, |line| line.contains(says)).await?;
    }
    // The key may go, and come again.
    writer.delete(key("simple"), None).await.map_err(failed)?;
    service.logs("no key", |line| line.contains("has no key")).await?;
    calling.stop().await?;
    service.terminate().await?.expect(0).map(drop)
}

#[tokio::test]
async fn etcd_may_be_away_and_come_back() -> Outcome {
    let (mut etcd, redis) = (Server::etcd(&[]).await?, Server::redis(&[]).await?);
    let place = Place::new()?;
    put(&mut client(&etcd.uri()).await?, "simple", r#"{"grace_seconds": 3}"#).await?;
    let machines = etcd.uri();
    etcd.kill();
    // It was away when the service started.
    let order = place.order("commissaire-simple-service")?.env("ETCD_MACHINES", &machines);
    let mut service = order.args(["--bus-uri", &redis.uri()]).start()?;
    service.logs("etcd cannot be read", |line| line.contains("etcd cannot be read")).await?;
    service.logs("ready", |line| line.contains("ready")).await?;
    let calling = Calling::start(&redis.uri()).await?;
    etcd.restart().await?;
    service.logs("a change", |line| line.contains("has changed changed=grace_seconds")).await?;
    // What it said last holds while it is away, also when the rest is read again.
    etcd.kill();
    service.signal(Signal::HUP)?;
    service.logs("what holds", |line| line.contains("what it said last holds")).await?;
    service.logs("no change", |line| line.contains("it is as before")).await?;
    // And it may change while nobody can watch: the store is another one.
    etcd.restart().await?;
    put(&mut client(&machines).await?, "simple", r#"{"grace_seconds": 4, "debug": true}"#).await?;
    service.logs("another change", |line| line.contains("changed=\"debug, grace_seconds\"")).await?;
    calling.stop().await?;
    service.terminate().await?.expect(0).map(drop)
}

#[tokio::test]
async fn another_bus_uri_moves_a_service_to_the_other_bus() -> Outcome {
    let (redis, nats) = (Server::redis(&[]).await?, Server::nats(&[]).await?);
    let place = Place::new()?;
    let file = place.path().join("simple.conf");
    let admin = place.path().join("admin.sock");
    let write =
        |uri: &str| fs::write(&file, format!(r#"{{"bus_uri": "{uri}", "admin": "{}"}}"#, admin.display()));
    write(&redis.uri())?;
    let mut service = place.order("commissaire-simple-service")?.arg("-c").arg(&file).start()?;
    service.logs("ready", |line| line.contains("ready")).await?;
    for (round, uri) in [nats.uri(), redis.uri(), nats.uri()].into_iter().enumerate() {
        let before = if uri == redis.uri() { nats.uri() } else { redis.uri() };
        // A bus that is not there is not joined, and the one that is there not left.
        write("redis://127.0.0.1:1")?;
        service.signal(Signal::HUP)?;
        until("the refusal", PATIENCE, async || lines(&service, "nothing changes") == round + 1).await?;
        let call = |uri: &str| place.cli(&["call", "simple.add", "[2, 3]", "--bus-uri", uri]);
        call(&before)?.run().await?.expect(0)?;
        write(&uri)?;
        service.signal(Signal::HUP)?;
        until("the other bus", PATIENCE, async || lines(&service, "ready service=simple") == round + 2)
            .await?;
        call(&uri)?.run().await?.expect(0)?;
        // Nobody is left behind.
        call(&before)?.run().await?.expect(2)?;
        let ready = commissaire_integration::get(&admin.display().to_string(), "/readyz").await?;
        ensure!(ready.status == 200, "{ready:?}");
    }
    service.terminate().await?.expect(0).map(drop)
}

#[tokio::test]
async fn a_file_of_the_log_is_opened_again_when_it_was_moved_away() -> Outcome {
    let redis = Server::redis(&[]).await?;
    let place = Place::new()?;
    let (file, log) = (place.path().join("simple.conf"), place.path().join("service.log"));
    let section = serde_json::json!({"logging": {
        "version": 1,
        "formatters": {"json": {"class": "commissaire.JsonFormatter"}},
        "handlers": {"file": {"class": "logging.FileHandler", "filename": log, "mode": "w", "formatter": "json"}},
        "root": {"level": "INFO", "handlers": ["file"]}
    }});
    fs::write(&file, section.to_string())?;
    let order = place.order("commissaire-simple-service")?.arg("-c").arg(&file);
    let service = order.args(["--bus-uri", &redis.uri()]).start()?;
    let told = async |text: &str| {
        until(text, PATIENCE, async || fs::read_to_string(&log).is_ok_and(|log| log.contains(text))).await
    };
    told("\"message\":\"ready\"").await?;
    let moved = place.path().join("service.log.1");
    fs::rename(&log, &moved)?;
    service.signal(Signal::HUP)?;
    told("it is as before").await?;
    // It was not emptied: this process wrote it.
    service.signal(Signal::HUP)?;
    until("the second time", PATIENCE, async || {
        fs::read_to_string(&log).is_ok_and(|log| log.matches("it is as before").count() == 2)
    })
    .await?;
    let ended = service.terminate().await?.expect(0)?;
    ensure!(ended.err.is_empty(), "{ended:?}");
    for line in [fs::read_to_string(&moved)?, fs::read_to_string(&log)?].concat().lines() {
        let line: serde_json::Value = serde_json::from_str(line).map_err(std::io::Error::from)?;
        ensure!(
            line["logger"].is_string() && line["level"].is_string() && line["time"].is_string(),
            "{line}"
        );
    }
    Ok(())
}
