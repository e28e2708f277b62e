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

/// The example service with its key in `etcd`, on the bus on `redis`, at work.
async fn started(place: &Place, etcd: &Server, redis: &Server) -> Outcome<Process> {
    let order = place.order("commissaire-simple-service")?.env("ETCD_MACHINES", etcd.uri());
    let mut service = order.args(["--bus-uri", &redis.uri()]).start()?;
    service.logs("ready", |line| line.contains("ready")).await?;
    Ok(service)
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
    let service = started(&place, &etcd, &redis).await?;
    ensure!(lines(&service, "DEBUG") == 0, "{service:?} tells more than it was asked for");
    let calling = Calling::start(&redis.uri()).await?;
    let changes = |service: &Process| lines(service, "the configuration has changed");
    for round in 0..5 {
        let (before, began) = (lines(&service, "DEBUG"), Instant::now());
        put(&mut writer, "simple", r#"{"logging": {"root": {"level": "DEBUG"}}}"#).await?;
        until("more is told", EFFECT, async || lines(&service, "DEBUG") > before).await?;
        println!("round {round}: after {:?} more is told", began.elapsed());
        put(&mut writer, "simple", r#"{"logging": {"root": {"level": "INFO"}}}"#).await?;
        until("the level is back", EFFECT, async || changes(&service) == 2 * round + 2).await?;
        // What was under way is told.
        tokio::time::sleep(Duration::from_millis(100)).await;
        let quiet = lines(&service, "DEBUG");
        tokio::time::sleep(Duration::from_millis(200)).await;
        ensure!(lines(&service, "DEBUG") == quiet, "it still tells more than it was asked for");
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
    let mut service = started(&place, &etcd, &redis).await?;
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
        // What was refused has changed nothing.
        (r#"{"grace_seconds": 3}"#, "the configuration was read again: it is as before"),
        (
            r#"{"grace_seconds": 3, "bus_uri": "redis://127.0.0.1:1", "logging": {"root": {"level": "DEBUG"}}}"#,
            // The command line says another bus: this is none of its concern.
            "the configuration has changed changed=logging",
        ),
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
async fn a_bus_that_is_dead_can_be_left() -> Outcome {
    let (mut redis, nats) = (Server::redis(&[]).await?, Server::nats(&[]).await?);
    let place = Place::new()?;
    let (file, admin) = (place.path().join("simple.conf"), place.path().join("admin.sock"));
    fs::write(&file, format!(r#"{{"bus_uri": "{}"}}"#, redis.uri()))?;
    let order = place.order("commissaire-simple-service")?.arg("-c").arg(&file).arg("--admin").arg(&admin);
    let mut service = order.start()?;
    service.logs("ready", |line| line.contains("ready")).await?;
    redis.kill();
    // A bus that is not there either is tried again and again.
    fs::write(&file, r#"{"bus_uri": "redis://127.0.0.1:1", "logging": {"root": {"level": "DEBUG"}}}"#)?;
    service.signal(Signal::HUP)?;
    until("the refusal", PATIENCE, async || lines(&service, "nothing changes") == 1).await?;
    let told = lines(&service, "DEBUG");
    until("the next try", PATIENCE, async || lines(&service, "nothing changes") == 2).await?;
    ensure!(lines(&service, "DEBUG") == told, "a part of what was refused holds: {service:?}");
    fs::write(&file, format!(r#"{{"bus_uri": "{}"}}"#, nats.uri()))?;
    service.signal(Signal::HUP)?;
    until("the other bus", PATIENCE, async || lines(&service, "ready service=simple") == 2).await?;
    let call = place.cli(&["call", "simple.add", "[2, 3]", "--bus-uri", &nats.uri()])?;
    call.run().await?.expect(0)?;
    let ready = commissaire_integration::get(&admin.display().to_string(), "/readyz").await?;
    ensure!(ready.status == 200 && ready.body.matches("simple").count() == 1, "{ready:?}");
    service.terminate().await?.expect(0).map(drop)
}

#[tokio::test]
async fn services_that_cannot_start_on_another_bus_come_back_and_keep_their_data() -> Outcome {
    let (one, two, free) = (Server::redis(&[]).await?, Server::redis(&[]).await?, Server::redis(&[]).await?);
    let place = Place::new()?;
    let start = async |name: &str, uri: &str| -> Outcome<Process> {
        let file = place.path().join(format!("{name}.conf"));
        let data = place.path().join(name);
        fs::write(&file, serde_json::json!({"bus_uri": uri, "data_dir": data}).to_string())?;
        let mut storage = place.order("commissaire-storage-service")?.arg("-c").arg(&file).start()?;
        storage.logs("ready", |line| line.contains("ready")).await?;
        Ok(storage)
    };
    let (owner, mut storage) = (start("one", &one.uri()).await?, start("two", &two.uri()).await?);
    let call = async |uri: &str, method: &str, params: &str| -> Outcome<String> {
        let call = place.cli(&["call", method, params, "--bus-uri", uri])?;
        Ok(call.run().await?.expect(0)?.out)
    };
    let host = r#"{"model_type_name": "Host", "model_json_data": {"address": "10.0.0.7"}}"#;
    call(&two.uri(), "storage.save", host).await?;
    // Another store is on that bus already.
    let (file, other) = (place.path().join("two.conf"), place.path().join("other"));
    fs::write(&file, serde_json::json!({"bus_uri": one.uri(), "data_dir": other}).to_string())?;
    storage.signal(Signal::HUP)?;
    storage.logs("the way back", |line| line.contains("back again")).await?;
    until("it is back", PATIENCE, async || lines(&storage, "nothing changes") == 1).await?;
    call(&two.uri(), "storage.get", host).await?;
    // Where the data is holds from the start on, wherever the bus is.
    fs::write(&file, serde_json::json!({"bus_uri": free.uri(), "data_dir": other}).to_string())?;
    storage.signal(Signal::HUP)?;
    storage
        .logs("what is left", |line| {
            line.contains("after a restart of the program this holds as well: data_dir")
        })
        .await?;
    call(&free.uri(), "storage.get", host).await?;
    ensure!(!other.exists(), "there is a second store");
    owner.terminate().await?.expect(0)?;
    storage.terminate().await?.expect(0).map(drop)
}

#[tokio::test]
async fn keys_in_files_are_read_again() -> Outcome {
    let redis = Server::redis(&[]).await?;
    let place = Place::new()?;
    let (file, actors) = (place.path().join("simple.conf"), place.path().join("actors"));
    fs::create_dir(&actors)?;
    let key = async |name: &str| -> Outcome<String> {
        let path = place.path().join(name).display().to_string();
        place.cli(&["key", "new", &path])?.run().await?.expect(0)?;
        Ok(place.cli(&["key", "show", &path])?.run().await?.expect(0)?.out)
    };
    let (anna, bert) = (key("anna").await?, key("bert").await?);
    fs::write(actors.join("anna.pub"), anna)?;
    fs::write(
        &file,
        serde_json::json!({"bus_uri": redis.uri(), "access": {"actors_dir": actors}}).to_string(),
    )?;
    let mut service = place.order("commissaire-simple-service")?.arg("-c").arg(&file).start()?;
    service.logs("ready", |line| line.contains("ready")).await?;
    let call = async |name: &str, code: i32| -> Outcome {
        let call = place.cli(&["call", "simple.add", "[2, 3]", "--bus-uri", &redis.uri()])?;
        let call = call.env("COMMISSAIRE_IDENTITY__NAME", name);
        let call = call.env("COMMISSAIRE_IDENTITY__KEY_FILE", place.path().join(name));
        call.run().await?.expect(code).map(drop)
    };
    call("anna", 0).await?;
    call("bert", 1).await?;
    fs::write(actors.join("bert.pub"), bert)?;
    fs::remove_file(actors.join("anna.pub"))?;
    service.signal(Signal::HUP)?;
    service.logs("the change", |line| line.contains("has changed changed=access")).await?;
    call("bert", 0).await?;
    call("anna", 1).await?;
    service.signal(Signal::HUP)?;
    service.logs("no change", |line| line.contains("it is as before")).await?;
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
    // It was not emptied: this process wrote it. And it is opened again whatever else is wrong.
    fs::write(&file, "{")?;
    fs::rename(&log, place.path().join("service.log.2"))?;
    service.signal(Signal::HUP)?;
    told("nothing changes").await?;
    fs::write(&file, section.to_string())?;
    service.signal(Signal::HUP)?;
    told("it is as before").await?;
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
