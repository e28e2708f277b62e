//! Which journals an instance works on: those that it was asked for, and those that nobody goes on with.

use std::{
    collections::{BTreeSet, HashSet},
    future::Future,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use commissaire::{Client, ErrorKind, Result};
use sha2::{Digest, Sha256};
use tokio::{
    sync::{Notify, broadcast},
    time::{Interval, interval, sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

use super::{Seen, StorageClient, journal::Journalled};
use crate::record::REQUESTED;

/// How long the lease of an instance on a journal holds when it dies.
const LEASE: Duration = Duration::from_secs(15);
/// How many ends of runs are kept for those who are slow to hear of them.
const OVER: usize = 1024;
/// How often journals that are open are looked at: whether nobody goes on with them.
const LOOK: Duration = Duration::from_secs(5);

/// The runs of one instance. Each has a lease while it is at work, so that no other instance is at the same journal; when
/// an instance dies, another takes its journals up within the life of a lease and the rest between two looks, some 20 s.
#[derive(Debug)]
pub struct Runs {
    instance: String,
    /// What the leases are called: this word, and the key.
    word: &'static str,
    at_once: AtomicUsize,
    journals: Mutex<Journals>,
    /// Rung when there is something to do.
    bell: Notify,
    /// The keys of the journals whose runs are over.
    over: broadcast::Sender<String>,
}

/// The keys of journals that wait, and of those that are worked on.
#[derive(Debug, Default)]
struct Journals {
    waiting: BTreeSet<String>,
    busy: HashSet<String>,
}

/// When to take nothing new, and when to end what was begun.
#[derive(Debug, Clone, Default)]
pub struct Stops {
    /// Nothing new is taken.
    pub stop: CancellationToken,
    /// What was begun is dropped: another instance, or the next start, takes it up.
    pub end: CancellationToken,
    /// What was begun.
    pub tasks: TaskTracker,
}

impl Runs {
    /// Those of a new instance of `service`, whose leases are called `word` and the key; at most `at_once` at one time.
    pub fn new(service: &str, word: &'static str, at_once: usize) -> Arc<Self> {
        Arc::new(Self {
            instance: format!("{service} {}", Uuid::new_v4().simple()),
            word,
            at_once: AtomicUsize::new(at_once),
            journals: Mutex::default(),
            bell: Notify::new(),
            over: broadcast::channel(OVER).0,
        })
    }

    /// This instance, in the journals that it holds.
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// Has the journal of `key` looked at soon.
    pub fn want(&self, key: &str) {
        self.lock().waiting.insert(key.to_owned());
        self.bell.notify_one();
    }

    /// At most so many at one time, and one at least. What is under way goes on.
    pub fn limit(&self, at_once: usize) {
        self.at_once.store(at_once, Ordering::Relaxed);
        self.bell.notify_one();
    }

    /// Hears from now on whether a run of `key` is over, whichever instance it is by.
    pub fn ending(&self, key: &str) -> Ending {
        Ending { key: key.to_owned(), over: self.over.subscribe() }
    }

    /// Works on journals by `run` until it is to stop. An error of `run`: it was interrupted, and is taken up again.
    pub async fn work<T, F, R>(self: Arc<Self>, client: Client, stops: Stops, run: F)
    where
        T: Journalled,
        F: Fn(String) -> R + Clone + Send + Sync + 'static,
        R: Future<Output = Result<()>> + Send + 'static,
    {
        let storage = StorageClient::new(client);
        let follow = self.follow::<T>(&storage);
        let dispatch = async {
            loop {
                let key = loop {
                    let bell = self.bell.notified();
                    match self.next() {
                        Some(key) => break key,
                        None => bell.await,
                    }
                };
                let (storage, end, run) = (storage.clone(), stops.end.clone(), run.clone());
                let runs = self.clone();
                stops.tasks.spawn(async move {
                    // However it ends, the journal is free again.
                    let busy = Busy { runs, key };
                    tokio::select! {
                        () = busy.runs.one(&storage, &busy.key, run) => {}
                        () = end.cancelled() => {}
                    }
                    drop(busy);
                });
            }
        };
        tokio::select! {
            () = dispatch => {}
            () = follow => {}
            () = stops.stop.cancelled() => {}
        }
    }

    /// Works on one journal, if nobody else does.
    async fn one<F, R>(&self, storage: &StorageClient, key: &str, run: F)
    where
        F: Fn(String) -> R,
        R: Future<Output = Result<()>>,
    {
        let lease = match storage.lease(&lease_name(self.word, key), &self.instance, LEASE).await {
            Ok(Some(lease)) => lease,
            // Whoever has it goes on with it, or dies and is found by a look.
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(kind = self.word, key, %error, "it cannot be begun now: it is tried again");
                return;
            }
        };
        let ended = tokio::select! {
            ended = run(key.to_owned()) => ended,
            () = lease.lost() => {
                tracing::warn!(kind = self.word, key, "the lease was lost: another instance goes on with it");
                return;
            }
        };
        lease.release().await;
        if let Err(error) = ended {
            tracing::warn!(kind = self.word, key, %error, "it was interrupted: it is taken up again");
        }
    }

    /// Follows the journals, and has those that are open looked at, again and again.
    async fn follow<T: Journalled>(&self, storage: &StorageClient) {
        // Not all instances at one moment.
        let rest = LOOK.mul_f64(0.8 + 0.4 * f64::from(std::process::id() % 100) / 100.0);
        let mut look = interval(rest);
        while let Err(error) = self.follow_some::<T>(storage, &mut look).await
            && *error.kind() != ErrorKind::Closed
        {
            tracing::error!(kind = self.word, %error, "journals cannot be followed; tried again");
            sleep(LOOK).await;
        }
    }

    /// Until something goes wrong.
    async fn follow_some<T: Journalled>(&self, storage: &StorageClient, look: &mut Interval) -> Result<()> {
        let mut journals = storage.watch::<T>().await?;
        let mut open = HashSet::new();
        loop {
            let seen = tokio::select! {
                seen = journals.next() => seen?,
                _ = look.tick() => {
                    open.iter().for_each(|key: &String| self.want(key));
                    continue;
                }
            };
            match seen {
                Seen::All(all) => {
                    let all = all.into_iter().map(|found| found.record);
                    let key = |mut journal: T| journal.entry().is_open().then(|| journal.key().to_owned());
                    open = all.filter_map(key).collect();
                }
                Seen::Saved(found) => {
                    let mut journal = found.record;
                    let entry = journal.entry();
                    let (is_open, is_new) = (entry.is_open(), *entry.status == REQUESTED);
                    if !is_open {
                        open.remove(journal.key());
                        // Whoever waits here for a run of another instance; nobody may.
                        let _ = self.over.send(journal.key().to_owned());
                        continue;
                    }
                    if is_new {
                        self.want(journal.key());
                    }
                    open.insert(journal.key().to_owned());
                }
                Seen::Deleted(key) => drop(open.remove(&key)),
            }
        }
    }

    /// The next that waits and is not worked on, from now on worked on; while there are places.
    fn next(&self) -> Option<String> {
        let mut journals = self.lock();
        if journals.busy.len() >= self.at_once.load(Ordering::Relaxed).max(1) {
            return None;
        }
        let next = journals.waiting.iter().find(|key| !journals.busy.contains(*key)).cloned()?;
        journals.waiting.remove(&next);
        journals.busy.insert(next.clone());
        Some(next)
    }

    fn lock(&self) -> MutexGuard<'_, Journals> {
        self.journals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stops {
    /// Takes nothing new, and gives what was begun `grace` to end.
    pub async fn finish(&self, grace: Duration) {
        self.stop.cancel();
        self.tasks.close();
        let _ = timeout(grace.saturating_sub(Duration::from_millis(500)), self.tasks.wait()).await;
        self.end.cancel();
        self.tasks.wait().await;
    }
}

/// The end of a run of one journal.
#[derive(Debug)]
pub struct Ending {
    key: String,
    over: broadcast::Receiver<String>,
}

impl Ending {
    /// Resolves when it was there; or when it may have been missed among very many.
    pub async fn heard(mut self) {
        while self.over.recv().await.is_ok_and(|key| key != self.key) {}
    }
}

/// A journal that is worked on.
struct Busy {
    runs: Arc<Runs>,
    key: String,
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.runs.lock().busy.remove(&self.key);
        self.runs.bell.notify_one();
        // Nobody may be listening.
        let _ = self.runs.over.send(std::mem::take(&mut self.key));
    }
}

/// A name of a lease may be shorter than a key.
fn lease_name(word: &str, key: &str) -> String {
    if key.len() <= 128 {
        return format!("{word} {key}");
    }
    let hash = Sha256::digest(key.as_bytes());
    format!("{word} {}", hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}
