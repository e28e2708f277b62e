//! Following the records of a type.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    time::Duration,
};

use commissaire::{
    Backoff, Error, ErrorKind, Event, Pattern, Received, Result, RpcError, Source, Subscription,
};
use futures_util::FutureExt as _;
use tokio::time::{sleep, timeout};

use super::{
    StorageClient,
    update::{is_compacted, is_temporary},
};
use crate::{
    event::{StorageEvent, Verb},
    record::Record,
    storage::Versioned,
};

/// How long to rely on announcements before asking.
const LOOK: Duration = Duration::from_secs(5);
/// How many records are asked for at once.
const MANY: usize = 64;
const BACKOFF: Backoff = Backoff { first: Duration::from_millis(50), most: Duration::from_secs(5) };

/// What a [`Watch`] sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen<T> {
    /// All that there is, sorted by key. First of all, and again when changes were lost: what is not in it is gone.
    All(Vec<Versioned<T>>),
    /// A record as it is now.
    Saved(Versioned<T>),
    /// The record of this key is gone.
    Deleted(String),
}

/// The records of a type as they change. Begins with all of them, and from then on misses nothing: of several changes
/// of one record at short intervals it may show the last only.
///
/// ```no_run
/// # async fn example(client: commissaire::Client) -> commissaire::Result<()> {
/// use commissaire_api::{Host, StorageClient, client::Seen};
/// let mut hosts = StorageClient::new(client).watch::<Host>().await?;
/// loop {
///     match hosts.next().await? {
///         Seen::All(hosts) => println!("there are {}", hosts.len()),
///         Seen::Saved(host) => println!("{} is {}", host.record.address, host.record.status),
///         Seen::Deleted(address) => println!("{address} is gone"),
///     }
/// }
/// # }
/// ```
#[derive(Debug)]
pub struct Watch<T> {
    storage: StorageClient,
    /// Tells that there is something to ask for.
    bell: Subscription,
    /// The revision up to which the log of changes was seen; `None`: all must be listed.
    seen: Option<u64>,
    /// Whether the log may tell more.
    ask: bool,
    /// The keys of the records that changed, each once.
    changed: VecDeque<String>,
    among_changed: HashSet<String>,
    /// What was found and is not shown yet.
    found: VecDeque<Seen<T>>,
    /// What was found last, by key: in which revision.
    known: HashMap<String, u64>,
    attempt: u32,
}

impl StorageClient {
    /// Follows the records of a type.
    pub async fn watch<T: Record>(&self) -> Result<Watch<T>> {
        let all = Pattern::new(format!("notify.storage.{}.*", T::MODEL.name))?;
        let lost = StorageEvent::lost().key()?.to_string();
        let bell = self.client.bus().subscribe(Source::Topic(vec![all, Pattern::new(lost)?]), 16).await?;
        Ok(Watch {
            storage: self.clone(),
            bell,
            seen: None,
            ask: true,
            changed: VecDeque::new(),
            among_changed: HashSet::new(),
            found: VecDeque::new(),
            known: HashMap::new(),
            attempt: 0,
        })
    }
}

impl<T: Record> Watch<T> {
    /// What is seen next, once there is something. While the storage service is away it waits; an error is final, such as
    /// one of the kind [`Closed`](commissaire::ErrorKind::Closed). Cancelling it loses nothing.
    pub async fn next(&mut self) -> Result<Seen<T>> {
        loop {
            if let Some(seen) = self.found.pop_front() {
                return Ok(seen);
            }
            match self.look().await {
                Ok(()) => self.attempt = 0,
                Err(error) if is_temporary(&error) => {
                    self.attempt = self.attempt.saturating_add(1);
                    sleep(BACKOFF.after(self.attempt)).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// One step nearer to what is next.
    async fn look(&mut self) -> Result<()> {
        let Some(seen) = self.seen else { return self.list().await };
        if self.ask {
            return self.ask(seen).await;
        }
        if !self.changed.is_empty() {
            return self.fetch().await;
        }
        self.rest().await
    }

    async fn list(&mut self) -> Result<()> {
        let (all, revision) = self.storage.list_versioned::<T>().await?;
        self.seen = Some(revision);
        // It may have changed while it was listed.
        self.ask = true;
        self.changed.clear();
        self.among_changed.clear();
        self.known = all.iter().map(|one| (one.record.key().to_owned(), one.revision)).collect();
        self.found.push_back(Seen::All(all));
        Ok(())
    }

    /// Asks the log which records changed.
    async fn ask(&mut self, since: u64) -> Result<()> {
        let told = match self.storage.changes_of::<T>(since).await {
            Err(error) if is_compacted(&error) => {
                self.seen = None;
                return Ok(());
            }
            told => told?,
        };
        for change in told.changes {
            // What is known as it was after this change needs no look.
            if self.known.get(&change.key) != Some(&change.revision) {
                self.changed(change.key);
            }
        }
        self.ask = told.next < told.latest;
        self.seen = Some(told.next);
        Ok(())
    }

    /// Gets records that changed.
    async fn fetch(&mut self) -> Result<()> {
        let keys: Vec<String> = self.changed.iter().take(MANY).cloned().collect();
        let many: Vec<&str> = keys.iter().map(String::as_str).collect();
        let all = match many[..] {
            // Asked for alone, one that is gone is no error.
            [_] => None,
            _ => match self.storage.get_many::<T>(&many).await {
                Ok(all) => Some(all),
                Err(error) if is_of_one(&error) => None,
                Err(error) => return Err(error),
            },
        };
        if let Some(all) = all {
            for found in all {
                self.show(Some(found));
            }
            return Ok(());
        }
        for key in many {
            let found = self.storage.find::<T>(key).await?;
            self.show(found);
        }
        Ok(())
    }

    /// Has the first of those that changed shown as it was found, if that is new.
    fn show(&mut self, found: Option<Versioned<T>>) {
        let Some(key) = self.changed.pop_front() else { return };
        self.among_changed.remove(&key);
        let new = match found {
            Some(found) => {
                let before = self.known.insert(key, found.revision);
                (before != Some(found.revision)).then_some(Seen::Saved(found))
            }
            None => self.known.remove(&key).map(|_| Seen::Deleted(key)),
        };
        self.found.extend(new);
    }

    /// Notes that the record of this key changed.
    fn changed(&mut self, key: String) {
        if self.among_changed.insert(key.clone()) {
            self.changed.push_back(key);
        }
    }

    /// Waits until there may be something.
    async fn rest(&mut self) -> Result<()> {
        let mut heard = timeout(LOOK, self.bell.next()).await.ok();
        // It is asked now and then, whether anything was heard or not.
        self.ask = true;
        while let Some(one) = heard {
            match one {
                None => return Err(Error::new(ErrorKind::Closed, "watching records: the bus is closed")),
                Some(Received::Delivery(delivery)) => {
                    // The changes of other places, and of other programs, are not in what is asked for.
                    match serde_json::from_slice::<StorageEvent>(delivery.message().body()) {
                        Ok(event) if event.event == Verb::Compacted => self.seen = None,
                        Ok(event) => event.record_key().into_iter().for_each(|key| self.changed(key)),
                        Err(_) => {}
                    }
                    // Nobody keeps it: it does not come again, whatever becomes of this.
                    let _ = delivery.ack().await;
                }
                Some(Received::Gap(_)) => self.seen = None,
            }
            // What else is there already.
            heard = self.bell.next().now_or_never();
        }
        Ok(())
    }
}

/// Whether each of several records that were asked for together must be asked for alone: one is gone, or together they
/// are too large.
fn is_of_one(error: &Error) -> bool {
    let codes = [RpcError::STORAGE_LOOKUP, RpcError::TOO_LARGE];
    error.remote().is_some_and(|remote| codes.contains(&remote.code))
}
