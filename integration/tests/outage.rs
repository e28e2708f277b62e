//! The broker dies under load and comes back: everything goes on by itself, and nothing that was answered is lost.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use commissaire::{Address, Bus, Client, Context, Error, Key, Message, MessageId, RpcError, Service};
use commissaire_api::StorageClient;
use commissaire_integration::{
    Kind, Lateness, Outcome, PATIENCE, Site, alone, each_server, ensure, long, until, within,
};
use commissaire_simple::{Add, Sum};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use crate::saver::{Saver, nothing_is_lost};

each_server!(everything_goes_on_by_itself_when_the_broker_is_back_and_nothing_acknowledged_is_lost);

/// How long a call may wait for its answer, and by how much it may be late.
const CALL: Duration = Duration::from_secs(2);
const LATE: Duration = Duration::from_millis(50);
/// How many leave parcels, and how many call, at one time.
const AT_ONCE: u64 = 8;

/// A parcel to be delivered.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Parcel {
    number: u64,
}

commissaire::job! {
    /// Delivers a parcel.
    pub(crate) Deliver = "jobs.deliver": Parcel
}

/// When what happened; the last time counts.
type Times = Arc<Mutex<BTreeMap<u64, Instant>>>;

fn note(times: &Times, number: u64) {
    times.lock().unwrap_or_else(PoisonError::into_inner).insert(number, Instant::now());
}

fn first_after(times: &Times, since: Instant) -> Option<Instant> {
    let times = times.lock().unwrap_or_else(PoisonError::into_inner);
    times.values().copied().filter(|at| *at > since).min()
}

async fn deliver(delivered: Arc<Times>, parcel: Parcel, _: Context) -> Result<(), RpcError> {
    note(&delivered, parcel.number);
    Ok(())
}

/// Leaves one parcel after another until it is over; each again, with its id, until the broker has it.
async fn leave(
    bus: Arc<dyn Bus>,
    first: u64,
    left: Times,
    over: Arc<AtomicBool>,
    trouble: Arc<Mutex<Option<Error>>>,
) -> Outcome {
    for number in first.. {
        let body = format!(r#"{{"jsonrpc": "2.0", "method": "deliver", "params": {{"number": {number}}}}}"#);
        let message = Message::with_id(MessageId::new(), Address::Queue(Key::new("jobs.deliver")?), body)?;
        while !over.load(Ordering::Relaxed) {
            match within("a publish", PATIENCE, bus.publish(message.clone())).await? {
                Ok(()) => {
                    note(&left, number);
                    break;
                }
                Err(error) => {
                    *trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
        if over.load(Ordering::Relaxed) {
            break;
        }
    }
    Ok(())
}

/// Calls until it is over; returns the longest that a call took.
async fn call(client: Client, answered: Times, over: Arc<AtomicBool>) -> Outcome<Duration> {
    let mut longest = Duration::ZERO;
    let mut number = 0;
    while !over.load(Ordering::Relaxed) {
        number += 1;
        let begun = Instant::now();
        let outcome = client.call(Add, &Sum { x: 1, y: 2 }).await;
        longest = longest.max(begun.elapsed());
        match outcome {
            Ok(sum) => {
                ensure!(sum == 3, "1 + 2 = {sum}");
                note(&answered, number);
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
    Ok(longest)
}

async fn everything_goes_on_by_itself_when_the_broker_is_back_and_nothing_acknowledged_is_lost(
    kind: Kind,
) -> Outcome {
    let _machine = alone().await;
    let down = long("how long the broker is down", Duration::from_secs(5), Duration::from_secs(20));
    let mut site = Site::alone(kind).await?;
    let data = site.place.data().display().to_string();
    let _simple = site.service("simple", &[]).await?;
    let _storage = site.service("storage", &["--data-dir", &data]).await?;
    let (bus, works) = (site.join().await?, site.join().await?);
    let (left, delivered, answered) = (Times::default(), Times::default(), Times::default());
    let worker =
        Service::new("postman", delivered.clone()).job(Deliver, deliver).start(works.clone()).await?;
    let over = Arc::new(AtomicBool::new(false));
    let trouble = Arc::new(Mutex::new(None));
    let lateness = Lateness::watch();
    let client = Client::new(bus.clone()).with_timeout(CALL);
    let (mut leaving, mut calling) = (JoinSet::new(), JoinSet::new());
    for sort in 0..AT_ONCE {
        leaving.spawn(leave(bus.clone(), sort << 32, left.clone(), over.clone(), trouble.clone()));
        calling.spawn(call(client.clone(), answered.clone(), over.clone()));
    }
    let saver = Saver::start(&bus);

    let begun = Instant::now();
    let all_after = |since| {
        let parts = [("left", &left), ("delivered", &delivered), ("answered", &answered)];
        let parts = parts.map(|(what, times)| (what, first_after(times, since)));
        parts.into_iter().chain([("saved", saver.first_after(since))]).collect::<Vec<_>>()
    };
    let goes_on = async |what: &str, since, limit| {
        let mut parts = Vec::new();
        until(what, limit, async || {
            parts = all_after(since);
            parts.iter().all(|(_, at)| at.is_some())
        })
        .await
        .map_err(|failure| failure.in_step(format!("{parts:?}, the last trouble was {trouble:?}")))?;
        Outcome::Ok(parts.into_iter().filter_map(|(_, at)| at).collect::<Vec<Instant>>())
    };
    goes_on("everything is under way", begun, PATIENCE).await?;
    saver.reaches(100).await?;
    site.broker.server()?.kill();
    tokio::time::sleep(down).await;
    site.broker.server()?.restart().await?;
    let back = Instant::now();
    let went_on = goes_on("everything goes on", back, kind.back() + PATIENCE).await?;
    let took: Vec<Duration> = went_on.into_iter().map(|at| at - back).collect();
    println!("left, delivered, answered, saved again after {took:?}");
    ensure!(took.iter().all(|took| *took <= kind.back() + lateness.worst()), "it took {took:?}");

    over.store(true, Ordering::Relaxed);
    for left in within("the last parcels", PATIENCE, leaving.join_all()).await? {
        left?;
    }
    for longest in within("the last calls", PATIENCE, calling.join_all()).await? {
        let longest = longest?;
        ensure!(longest <= CALL + LATE + lateness.worst(), "a call of {CALL:?} took {longest:?}");
    }
    let saves = saver.stop().await?;
    let left: Vec<u64> = left.lock().unwrap_or_else(PoisonError::into_inner).keys().copied().collect();
    until("every parcel that was left is delivered", PATIENCE, async || {
        let delivered = delivered.lock().unwrap_or_else(PoisonError::into_inner);
        left.iter().all(|number| delivered.contains_key(number))
    })
    .await?;
    let storage = StorageClient::new(Client::new(bus.clone()).with_timeout(PATIENCE));
    nothing_is_lost(&storage, &saves).await?;
    println!("{} parcels, {} saves", left.len(), saves.len());
    worker.drain(Duration::from_secs(1)).await;
    works.close().await?;
    Ok(bus.close().await?)
}
