//! A site moves from one broker to another while it runs, over `commissaire bridge`.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use commissaire::{
    Bus, Client, Context, Error, Key, Pattern, Result, RpcError, Running, Service, Source, Subscription,
    Token, service::DEFAULT_DEDUP,
};
use commissaire_integration::{
    Failure, Kind, Outcome, PATIENCE, Process, Server, Site, alone, ensure, until,
};
use commissaire_simple::{Add, Sum};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json, value::RawValue};
use tokio::{
    sync::RwLock,
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep},
};

/// How many calls a second, all callers together.
const RATE: u64 = 500;
const KEYS: [&str; 5] = ["storage.*", "simple.*", "effects.*", "jobs.effects", "notify.#"];

/// Something to be done once.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Deed {
    number: usize,
}

commissaire::method! {
    /// Does it, whenever it is asked.
    pub(crate) Effect = "effects.do": Deed => usize
}

commissaire::job! {
    /// The same as a job.
    pub(crate) Later = "jobs.effects": Deed
}

/// How often each was done: as a call, and as a job.
#[derive(Debug, Default)]
pub(crate) struct Done {
    calls: Mutex<HashMap<usize, u32>>,
    jobs: Mutex<HashMap<usize, u32>>,
}

fn note(done: &Mutex<HashMap<usize, u32>>, number: usize) {
    *done.lock().unwrap_or_else(PoisonError::into_inner).entry(number).or_default() += 1;
}

/// How many were done, and how many of them more than once.
fn counted(done: &Mutex<HashMap<usize, u32>>) -> (usize, usize) {
    let done = done.lock().unwrap_or_else(PoisonError::into_inner);
    (done.len(), done.values().filter(|times| **times > 1).count())
}

async fn effects(bus: &Arc<dyn Bus>, done: &Arc<Done>) -> Result<Running> {
    async fn now(done: Arc<Done>, deed: Deed, _: Context) -> Result<usize, RpcError> {
        note(&done.calls, deed.number);
        Ok(deed.number)
    }
    async fn later(done: Arc<Done>, deed: Deed, _: Context) -> Result<(), RpcError> {
        note(&done.jobs, deed.number);
        Ok(())
    }
    let service = Service::new("effects", done.clone()).method(Effect, now).job(Later, later);
    service.dedup(DEFAULT_DEDUP).start(bus.clone()).await
}

/// What a load came to.
#[derive(Debug, Default)]
struct Load {
    asked: AtomicUsize,
    answered: AtomicUsize,
    enqueued: Mutex<Vec<usize>>,
    stop: AtomicBool,
    failed: Mutex<Vec<(usize, Error)>>,
}

/// Calls at [`RATE`] on whatever bus `client` is on, and now and then leaves a job there and saves a record.
async fn load(load: Arc<Load>, client: Arc<RwLock<Client>>) {
    let mut tick = interval(Duration::from_micros(1_000_000 / RATE));
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut calls = JoinSet::new();
    while !load.stop.load(Ordering::Relaxed) {
        tick.tick().await;
        let number = load.asked.fetch_add(1, Ordering::Relaxed);
        let (load, client) = (load.clone(), client.read().await.clone());
        calls.spawn(async move {
            let outcome = one(&load, &client, number).await;
            load.answered.fetch_add(1, Ordering::Relaxed);
            if let Err(error) = outcome {
                load.failed.lock().unwrap_or_else(PoisonError::into_inner).push((number, error));
            }
        });
        while calls.try_join_next().is_some() {}
    }
    calls.join_all().await;
}

async fn one(load: &Load, client: &Client, number: usize) -> Result<()> {
    let x = i64::try_from(number).unwrap_or_default();
    let odd = |what: Value| Error::malformed(format!("call {number} was answered {what}"));
    match number % 10 {
        0 => {
            let record = json!({"name": format!("c{}", number % 50), "status": format!("{number}")});
            let params = json!({"model_type_name": "Cluster", "model_json_data": record});
            let saved = client.call_raw(Key::new("storage.save")?, Some(raw(&params)?)).await?;
            let saved: Value = serde_json::from_str(saved.get()).unwrap_or_default();
            if saved["status"] == record["status"] { Ok(()) } else { Err(odd(saved)) }
        }
        1 => {
            client.enqueue(Later, &Deed { number }).await?;
            load.enqueued.lock().unwrap_or_else(PoisonError::into_inner).push(number);
            Ok(())
        }
        2..=5 => match client.call(Effect, &Deed { number }).await? {
            done if done == number => Ok(()),
            done => Err(odd(json!(done))),
        },
        _ => match client.call(Add, &Sum { x, y: 1 }).await? {
            sum if sum == x + 1 => Ok(()),
            sum => Err(odd(json!(sum))),
        },
    }
}

fn raw(value: &Value) -> Result<Box<RawValue>> {
    RawValue::from_string(value.to_string()).map_err(|e| Error::malformed("no JSON").because(e))
}

/// Events by their bodies, and how often each came.
type Told = HashMap<Vec<u8>, u32>;

/// What comes within a second of each other.
async fn told(heard: &mut Subscription) -> Outcome<Told> {
    let mut told = Told::new();
    while let Ok(Some(event)) = tokio::time::timeout(Duration::from_secs(1), heard.next_delivery()).await {
        *told.entry(event.message().body().to_vec()).or_default() += 1;
        event.ack().await?;
    }
    Ok(told)
}

/// The revision of the change that an event tells of.
fn revision(event: &[u8]) -> u64 {
    let event: Value = serde_json::from_slice(event).unwrap_or_default();
    event["revision"].as_u64().unwrap_or(u64::MAX)
}

/// Storage on `etcd`, so that more than one instance may be, and the example service.
async fn services(site: &Site, etcd: &Server) -> Outcome<[Process; 2]> {
    let config = site.place.path().join("storage.conf");
    let handlers = json!({"storage_handlers": {"type": "etcd", "server_url": etcd.uri()}});
    std::fs::write(&config, handlers.to_string())?;
    let data = site.place.data().display().to_string();
    let config = config.display().to_string();
    Ok([
        site.service("storage", &["--data-dir", &data, "-c", &config]).await?,
        site.service("simple", &[]).await?,
    ])
}

/// The bridge between two sites.
async fn bridge(from: &Site, to: &Site) -> Outcome<Process> {
    let mut words = vec!["bridge".to_owned(), from.uri(), to.uri(), "--keys".to_owned()];
    words.extend(KEYS.map(str::to_owned));
    words.extend(["--report".to_owned(), "1s".to_owned()]);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut bridge = from.place.cli(&words)?.start()?;
    bridge.logs("ready", |line| line == "ready").await?;
    Ok(bridge)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_system_moves_from_redis_to_nats() -> Outcome {
    let _machine = alone().await;
    let (old, new) = (Site::alone(Kind::Redis).await?, Site::alone(Kind::Nats).await?);
    move_over(old, new).await
}

async fn move_over(mut old: Site, new: Site) -> Outcome {
    const PHASE: Duration = Duration::from_secs(3);
    let etcd = Server::etcd(&[]).await?;
    let done = Arc::new(Done::default());
    let (on_old, on_new) = (old.join().await?, new.join().await?);
    let first = services(&old, &etcd).await?;
    let first_effects = effects(&on_old, &done).await?;
    let client = Client::new(on_old.clone()).with_timeout(Duration::from_secs(10));
    let (moving, staying) = (Arc::new(RwLock::new(client.clone())), Arc::new(Load::default()));
    let work = tokio::spawn(load(staying.clone(), moving.clone()));
    sleep(PHASE).await;
    // The bridge, then everything a second time on the new bus, then no more on the old one.
    let bridge = bridge(&old, &new).await?;
    let changes =
        || Outcome::Ok(Source::Durable(Token::new("sees-changes")?, vec![Pattern::new("notify.storage.#")?]));
    // The new bus first: what is announced in between is heard there only, and nothing on the old one only.
    let mut heard_new = on_new.subscribe(changes()?, 10_000).await?;
    let mut heard_old = on_old.subscribe(changes()?, 10_000).await?;
    sleep(PHASE).await;
    // Who shares an etcd shares the key that its secrets are sealed with.
    let keys = [&old, &new].map(|site| site.place.data().join("storage"));
    std::fs::create_dir_all(&keys[1])?;
    std::fs::copy(keys[0].join("master.key"), keys[1].join("master.key"))?;
    let second = services(&new, &etcd).await?;
    let second_effects = effects(&on_new, &done).await?;
    sleep(PHASE).await;
    for service in first {
        service.terminate().await?.expect(0)?;
    }
    first_effects.drain(Duration::from_secs(10)).await;
    sleep(PHASE).await;
    let over_the_bridge = staying.answered.load(Ordering::Relaxed);
    ensure!(over_the_bridge > 0, "nobody called");
    *moving.write().await = Client::new(on_new.clone()).with_timeout(Duration::from_secs(10));
    sleep(PHASE).await;
    staying.stop.store(true, Ordering::Relaxed);
    work.await?;
    let asked = staying.asked.load(Ordering::Relaxed);
    let failed = std::mem::take(&mut *staying.failed.lock().unwrap_or_else(PoisonError::into_inner));
    println!("{asked} calls, {} failed; the bridge: {:?}", failed.len(), bridge.out().last());
    for (number, error) in failed.iter().take(5) {
        println!("call {number}: {error:?}");
    }
    ensure!(failed.is_empty(), "{} of {asked} calls failed: {:?}", failed.len(), failed.first());
    // Every job that was left was done, once; so was every call.
    let enqueued = staying.enqueued.lock().unwrap_or_else(PoisonError::into_inner).len();
    until("all jobs are done", PATIENCE, async || counted(&done.jobs).0 >= enqueued).await?;
    let (jobs, calls) = (counted(&done.jobs), counted(&done.calls));
    println!("{enqueued} jobs were done as {jobs:?}, calls with an effect as {calls:?}");
    ensure!(jobs == (enqueued, 0), "{enqueued} jobs were done as {jobs:?}");
    ensure!(calls.1 == 0, "{} of {} effects are there twice", calls.1, calls.0);
    // What was announced on either bus was heard on both, once.
    let (on_one, on_other) = (told(&mut heard_old).await?, told(&mut heard_new).await?);
    println!("{} events were heard on the old bus, {} on the new one", on_one.len(), on_other.len());
    let twice = on_one.values().chain(on_other.values()).filter(|times| **times > 1).count();
    // Of what was announced since both listen; the storages on both buses share an etcd, and with it the revisions.
    let since = on_one.keys().map(|event| revision(event)).min().unwrap_or_default();
    let missed = |here: &Told, there: &Told| {
        here.keys().filter(|event| revision(event) >= since && !there.contains_key(*event)).count()
    };
    let missed = (missed(&on_one, &on_other), missed(&on_other, &on_one));
    ensure!(on_one.len() > 100, "only {} events were heard", on_one.len());
    ensure!(twice == 0, "{twice} events were heard twice");
    ensure!(missed == (0, 0), "events were heard on one bus only: {missed:?}");
    // The old broker dies under calls that go over the bridge: they say what may have become of them.
    let dying = Arc::new(Load { asked: AtomicUsize::new(1_000_000), ..Load::default() });
    let client = Arc::new(RwLock::new(client.with_timeout(Duration::from_secs(3))));
    let work = tokio::spawn(load(dying.clone(), client));
    sleep(Duration::from_secs(1)).await;
    old.broker.server()?.kill();
    sleep(Duration::from_secs(1)).await;
    dying.stop.store(true, Ordering::Relaxed);
    work.await?;
    let failed = std::mem::take(&mut *dying.failed.lock().unwrap_or_else(PoisonError::into_inner));
    let unknown = failed.iter().filter(|(_, error)| error.may_have_executed()).count();
    println!("with the broker {} calls failed, {unknown} of them unknown", failed.len());
    ensure!(!failed.is_empty(), "calls over a dead broker were answered");
    if let Some((number, error)) = failed.iter().find(|(_, error)| !error.is_temporary()) {
        return Err(Failure::new(format!("call {number} failed for good: {error:?}")));
    }
    let carried_out = done.calls.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let known = failed.iter().filter(|(_, error)| !error.may_have_executed());
    let lied: Vec<_> = known.filter(|(number, _)| carried_out.contains_key(number)).collect();
    ensure!(lied.is_empty(), "calls that were carried out say that they were not: {lied:?}");
    let doubled = counted(&done.calls).1;
    ensure!(doubled == 0, "{doubled} effects are there twice");
    let ended = bridge.terminate().await?;
    println!("the bridge ended with {:?}: {}", ended.code, ended.out.lines().last().unwrap_or_default());
    second_effects.drain(Duration::from_secs(1)).await;
    drop(second);
    Ok(())
}

#[tokio::test]
async fn a_bridge_that_is_told_to_end_finishes_what_it_had_begun() -> Outcome {
    let (one, other) = (Site::alone(Kind::Redis).await?, Site::alone(Kind::Nats).await?);
    let done = Arc::new(Done::default());
    let (here, there) = (one.join().await?, other.join().await?);
    async fn slow(done: Arc<Done>, deed: Deed, _: Context) -> Result<usize, RpcError> {
        sleep(Duration::from_secs(2)).await;
        note(&done.calls, deed.number);
        Ok(deed.number)
    }
    let running = Service::new("effects", done.clone()).method(Effect, slow).start(there.clone()).await?;
    let bridge = bridge(&one, &other).await?;
    let client = Client::new(here.clone());
    until("the service is there", PATIENCE, async || {
        client
            .call_raw(Key::new("effects.nothing").unwrap_or_else(|_| unreachable!()), None)
            .await
            .err()
            .is_some_and(|error| error.remote().is_some())
    })
    .await?;
    let calling = tokio::spawn(async move { client.call(Effect, &Deed { number: 7 }).await });
    until("the call is on its way", PATIENCE, async || {
        bridge.out().last().is_some_and(|line| line.contains(r#""carried":2"#))
    })
    .await?;
    let ended = bridge.terminate().await?.expect(0)?;
    ensure!(calling.await?? == 7, "the call was not answered");
    ensure!(ended.out.lines().last().is_some_and(|line| line.contains("\"replies\"")), "{}", ended.out);
    running.drain(Duration::from_secs(1)).await;
    // It has left: nobody answers any more, and that is said at once.
    let gone = Client::new(here).call(Effect, &Deed { number: 8 }).await.err();
    ensure!(gone.is_some_and(|error| !error.may_have_executed()), "a call to a bridge that is gone");
    Ok(())
}
