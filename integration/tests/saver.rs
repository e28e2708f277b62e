//! Saving records over and over while something dies, and what must be true of them afterwards.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use commissaire::{Bus, Client, Error};
use commissaire_api::{
    Host, StorageClient,
    client::Guard,
    storage::{Change, Data},
};
use commissaire_integration::{Outcome, PATIENCE, ensure, until, within};
use tokio::task::JoinHandle;

/// How many save at one time, and how many records each has.
const WRITERS: u64 = 8;
const RECORDS: u64 = 20;
/// How long one save may take.
const LIMIT: Duration = Duration::from_secs(3);

/// Saves hosts until it is stopped, and knows which saves were answered.
pub(crate) struct Saver {
    answered: Arc<Mutex<BTreeMap<u64, Saved>>>,
    over: Arc<AtomicBool>,
    writers: Vec<JoinHandle<()>>,
}

/// A save that was answered.
#[derive(Debug, Clone)]
pub(crate) struct Saved {
    pub(crate) host: Host,
    pub(crate) at: Instant,
}

impl Saver {
    /// Begins to save by way of `bus`.
    pub(crate) fn start(bus: &Arc<dyn Bus>) -> Self {
        let (answered, over) = (Arc::new(Mutex::new(BTreeMap::new())), Arc::new(AtomicBool::new(false)));
        let storage = StorageClient::new(Client::new(bus.clone()).with_timeout(LIMIT));
        let writers = (0..WRITERS)
            .map(|writer| {
                let (answered, over, storage) = (answered.clone(), over.clone(), storage.clone());
                tokio::spawn(async move {
                    let mut count = 0;
                    while !over.load(Ordering::Relaxed) {
                        count += 1;
                        let address = format!("host-{writer}-{}", count % RECORDS);
                        let host = Host { address, memory: count, ..Host::default() };
                        match storage.save_guarded(&host, Guard::default()).await {
                            Ok(saved) => {
                                let mut answered = answered.lock().unwrap_or_else(PoisonError::into_inner);
                                answered.insert(saved.revision, Saved { host, at: Instant::now() });
                            }
                            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                        }
                    }
                })
            })
            .collect();
        Self { answered, over, writers }
    }

    /// How many saves were answered so far.
    pub(crate) fn count(&self) -> usize {
        self.answered.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// When the first save after `since` was answered.
    pub(crate) fn first_after(&self, since: Instant) -> Option<Instant> {
        let answered = self.answered.lock().unwrap_or_else(PoisonError::into_inner);
        answered.values().map(|saved| saved.at).filter(|at| *at > since).min()
    }

    /// Waits until so many saves were answered.
    pub(crate) async fn reaches(&self, count: usize) -> Outcome {
        let limit = PATIENCE + Duration::from_millis(50) * u32::try_from(count).unwrap_or(u32::MAX);
        until(format_args!("{count} saves are answered"), limit, async || self.count() >= count).await
    }

    /// Ends it; returns the answered saves by revision.
    pub(crate) async fn stop(self) -> Outcome<BTreeMap<u64, Saved>> {
        self.over.store(true, Ordering::Relaxed);
        for writer in self.writers {
            within("the last save", 2 * LIMIT + PATIENCE, writer).await??;
        }
        Ok(std::mem::take(&mut *self.answered.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// All changes after `since`, asked for until storage tells them.
pub(crate) async fn changes(storage: &StorageClient, since: u64) -> Outcome<Vec<Change>> {
    let (mut all, mut since, begun) = (Vec::new(), since, Instant::now());
    loop {
        match storage.changes(since).await {
            Ok(some) => {
                since = some.next;
                all.extend(some.changes);
                if since >= some.latest {
                    return Ok(all);
                }
            }
            Err(error) if Error::is_temporary(&error) && begun.elapsed() < PATIENCE => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Fails unless every answered save is in the change log as it was answered, and what is stored is the last of each.
pub(crate) async fn nothing_is_lost(
    storage: &StorageClient,
    answered: &BTreeMap<u64, Saved>,
) -> Outcome<Vec<Change>> {
    let log = changes(storage, 0).await?;
    ensure!(log.windows(2).all(|pair| pair[0].revision < pair[1].revision), "the log is not in order");
    let by_revision: BTreeMap<u64, &Change> = log.iter().map(|change| (change.revision, change)).collect();
    let mut last: BTreeMap<&str, (u64, Host)> = BTreeMap::new();
    for change in &log {
        let host: Host = record(change)?;
        last.insert(&change.key, (change.revision, host));
    }
    for (revision, saved) in answered {
        let change = by_revision.get(revision);
        let stored = change.map(|change| record(change)).transpose()?;
        ensure!(
            stored.as_ref() == Some(&saved.host),
            "revision {revision} was answered and is lost: {saved:?}"
        );
    }
    let stored = storage.list_versioned::<Host>().await?.0;
    ensure!(stored.len() == last.len(), "{} records are stored, {} were saved", stored.len(), last.len());
    for versioned in stored {
        let known = &last[&*versioned.record.address];
        ensure!(
            *known == (versioned.revision, versioned.record),
            "what is stored is not the last: {known:?}"
        );
    }
    Ok(log)
}

/// The record of a change.
pub(crate) fn record(change: &Change) -> Outcome<Host> {
    let data = change.record.as_ref().map(Data::to::<Host>).transpose().map_err(std::io::Error::from)?;
    data.ok_or_else(|| {
        commissaire_integration::Failure::new(format!("a change without its record: {change:?}"))
    })
}
