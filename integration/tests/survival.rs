//! Sudden death (`kill -9`) of whoever keeps the records: nothing that was answered is lost, and who listens knows all.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use commissaire::{Bus, Client, Delivery, Pattern, Received, Source, Subscription, Token};
use commissaire_api::{Host, StorageClient, StorageEvent};
use commissaire_integration::{
    Failure, Kind, Outcome, PATIENCE, Place, Site, alone, each_server, ensure, join, long, seed, until,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::saver::{Saver, changes, nothing_is_lost, record};

each_server!(no_notification_is_lost_to_a_durable_listener_however_often_storage_is_killed);

/// How many saves are answered in all.
const SAVES: usize = 1_000;

/// What a listener knows, by revision.
#[derive(Debug, Default)]
struct Known {
    hosts: BTreeMap<u64, Host>,
    /// Since the last gap.
    heard: HashSet<u64>,
    twice: usize,
    gaps: usize,
}

type Shared = Arc<Mutex<Known>>;

fn read(delivery: &Delivery) -> Outcome<(u64, Host)> {
    let event: StorageEvent =
        serde_json::from_slice(delivery.message().body()).map_err(std::io::Error::from)?;
    let revision = event.revision.ok_or_else(|| Failure::new(format!("no revision: {event:?}")))?;
    Ok((revision, event.model.to().map_err(std::io::Error::from)?))
}

/// Listens as everybody should who keeps a picture of what is stored: by events, and by the change log after a gap.
async fn listen(mut events: Subscription, storage: StorageClient, known: Shared) -> Outcome {
    let lock = || known.lock().unwrap_or_else(PoisonError::into_inner);
    while let Some(received) = events.next().await {
        match received {
            Received::Delivery(delivery) => {
                let (revision, host) = read(&delivery)?;
                let mut known = lock();
                known.twice += usize::from(!known.heard.insert(revision));
                known.hosts.insert(revision, host);
            }
            Received::Gap(_) => {
                let since = {
                    let mut known = lock();
                    known.gaps += 1;
                    known.heard.clear();
                    // Events of different records overtake each other: up to here all is known.
                    (1..).take_while(|revision| known.hosts.contains_key(revision)).last().unwrap_or(0)
                };
                for change in changes(&storage, since).await? {
                    lock().hosts.insert(change.revision, record(&change)?);
                }
            }
        }
    }
    Ok(())
}

fn storage_events() -> Outcome<Vec<Pattern>> {
    Ok(vec![Pattern::new("notify.storage.#")?])
}

fn client(bus: &Arc<dyn Bus>) -> StorageClient {
    StorageClient::new(Client::new(bus.clone()).with_timeout(Duration::from_secs(3)))
}

#[tokio::test]
async fn no_answered_save_is_lost_and_a_listener_catches_up_however_often_up_is_killed() -> Outcome {
    let _machine = alone().await;
    let rounds = long("kills of `up` during 1,000 saves", 4, 40);
    let mut random = StdRng::seed_from_u64(seed()?);
    let place = Place::new()?;
    let mut up = place.up(&[]).await?;
    let (saving, listening) = (join(&place.socket_uri()).await?, join(&place.socket_uri()).await?);
    let known = Shared::default();
    let events = listening.subscribe(Source::Topic(storage_events()?), 1024).await?;
    let listener = tokio::spawn(listen(events, client(&listening), known.clone()));

    let saver = Saver::start(&saving);
    for round in 1..=rounds {
        let next = saver.count() + SAVES / (rounds + 1);
        saver.reaches(random.random_range(saver.count()..=next)).await?;
        tokio::time::sleep(Duration::from_micros(random.random_range(0..20_000))).await;
        up.kill().await?;
        up = place.up(&[]).await.map_err(|failure| failure.in_step(format!("start {round}")))?;
    }
    saver.reaches(SAVES).await?;
    let answered = saver.stop().await?;

    let log = nothing_is_lost(&client(&saving), &answered).await?;
    let complete = until("the listener knows all", PATIENCE, async || {
        known.lock().unwrap_or_else(PoisonError::into_inner).hosts.len() >= log.len()
            || listener.is_finished()
    })
    .await;
    listening.close().await?;
    listener.await??;
    let known = std::mem::take(&mut *known.lock().unwrap_or_else(PoisonError::into_inner));
    println!("{} saves answered, {} changes, {} gaps", answered.len(), log.len(), known.gaps);
    // Two kills may fall into one absence of the listener.
    ensure!((1..=rounds).contains(&known.gaps), "{} gaps for {rounds} kills", known.gaps);
    ensure!(known.twice == 0, "{} events came twice with no gap between", known.twice);
    for change in &log {
        let host = known.hosts.get(&change.revision);
        ensure!(host == Some(&record(change)?), "revision {}: the listener has {host:?}", change.revision);
    }
    ensure!(known.hosts.len() == log.len(), "the listener knows of changes that are not in the log");
    complete?;
    saving.close().await?;
    up.terminate().await?.expect(0).map(drop)
}

async fn no_notification_is_lost_to_a_durable_listener_however_often_storage_is_killed(
    kind: Kind,
) -> Outcome {
    let _machine = alone().await;
    let rounds = long("kills of the storage service during 1,000 saves", 4, 40);
    let mut random = StdRng::seed_from_u64(seed()?);
    let site = Site::on(kind).await?;
    let data = site.place.data().display().to_string();
    let mut storage = site.service("storage", &["--data-dir", &data]).await?;
    let (saving, listening) = (site.join().await?, site.join().await?);
    let known = Shared::default();
    let source = Source::Durable(Token::new("picture")?, storage_events()?);
    let mut events = listening.subscribe(source, 64).await?;
    let heard = known.clone();
    let listener = tokio::spawn(async move {
        while let Some(delivery) = events.next_delivery().await {
            let (revision, host) = read(&delivery)?;
            {
                let mut known = heard.lock().unwrap_or_else(PoisonError::into_inner);
                known.twice += usize::from(known.hosts.insert(revision, host).is_some());
            }
            delivery.ack().await?;
        }
        Outcome::Ok(())
    });

    let saver = Saver::start(&saving);
    for round in 1..=rounds {
        let next = saver.count() + SAVES / (rounds + 1);
        saver.reaches(random.random_range(saver.count()..=next)).await?;
        tokio::time::sleep(Duration::from_micros(random.random_range(0..20_000))).await;
        storage.kill().await?;
        let started = site.service("storage", &["--data-dir", &data]).await;
        storage = started.map_err(|failure| failure.in_step(format!("start {round}")))?;
    }
    saver.reaches(SAVES).await?;
    let answered = saver.stop().await?;

    let log = nothing_is_lost(&client(&saving), &answered).await?;
    let complete = until("the durable listener has all", PATIENCE, async || {
        known.lock().unwrap_or_else(PoisonError::into_inner).hosts.len() >= log.len()
            || listener.is_finished()
    })
    .await;
    listening.close().await?;
    listener.await??;
    let known = std::mem::take(&mut *known.lock().unwrap_or_else(PoisonError::into_inner));
    println!("{} saves answered, {} changes, {} heard twice", answered.len(), log.len(), known.twice);
    for change in &log {
        let host = known.hosts.get(&change.revision);
        ensure!(host == Some(&record(change)?), "revision {}: the listener has {host:?}", change.revision);
    }
    ensure!(known.hosts.len() == log.len(), "the listener heard of changes that are not in the log");
    complete?;
    saving.close().await?;
    storage.terminate().await?.expect(0).map(drop)
}
