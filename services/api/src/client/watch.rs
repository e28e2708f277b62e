//! Following the records of a type.

use std::{
    collections::{HashMap, VecDeque},
    marker::PhantomData,
    time::Duration,
};

use commissaire::{Backoff, Error, ErrorKind, Event, Pattern, Received, Result, Source, Subscription};
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
    /// The revision up to which all was seen; `None`: all must be listed.
    seen: Option<u64>,
    waiting: VecDeque<String>,
    /// What was shown, by key: in which revision.
    shown: HashMap<String, u64>,
    /// Whether there may be more changes at once.
    more: bool,
    attempt: u32,
    record: PhantomData<fn() -> T>,
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
            waiting: VecDeque::new(),
            shown: HashMap::new(),
            more: true,
            attempt: 0,
            record: PhantomData,
        })
    }
}

impl<T: Record> Watch<T> {
    /// What is seen next, once there is something. While the storage service is away it waits; an error is final, such as
    /// one of the kind [`Closed`](commissaire::ErrorKind::Closed). Cancelling it loses nothing.
    pub async fn next(&mut self) -> Result<Seen<T>> {
        loop {
            let looked = self.look().await;
            match looked {
                Ok(Some(seen)) => {
                    self.attempt = 0;
                    return Ok(seen);
                }
                Ok(None) => {
                    self.attempt = 0;
                    if !self.more && self.waiting.is_empty() && self.seen.is_some() {
                        self.rest().await?;
                    }
                }
                Err(error) if is_temporary(&error) => {
                    self.attempt = self.attempt.saturating_add(1);
                    sleep(BACKOFF.after(self.attempt)).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// What there is to be seen now, if there is something.
    async fn look(&mut self) -> Result<Option<Seen<T>>> {
        let Some(seen) = self.seen else {
            let (all, revision) = self.storage.list_versioned::<T>().await?;
            self.seen = Some(revision);
            self.waiting.clear();
            self.shown = all.iter().map(|one| (one.record.key().to_owned(), one.revision)).collect();
            return Ok(Some(Seen::All(all)));
        };
        if let Some(key) = self.waiting.front() {
            let found = self.storage.find::<T>(key).await?;
            let key = self.waiting.pop_front().unwrap_or_default();
            // It may have been shown already: what is announced is in the changes as well.
            return Ok(match found {
                Some(found) => {
                    let before = self.shown.insert(key, found.revision);
                    (before != Some(found.revision)).then_some(Seen::Saved(found))
                }
                None => self.shown.remove(&key).map(|_| Seen::Deleted(key)),
            });
        }
        let told = match self.storage.changes_of::<T>(seen).await {
            Err(error) if is_compacted(&error) => {
                self.seen = None;
                return Ok(None);
            }
            told => told?,
        };
        for change in told.changes {
            self.look_at(Some(change.key));
        }
        self.more = told.next < told.latest || !self.waiting.is_empty();
        self.seen = Some(told.next);
        Ok(None)
    }

    /// Looks at the record of this key next.
    fn look_at(&mut self, key: Option<String>) {
        if let Some(key) = key.filter(|key| !self.waiting.contains(key)) {
            self.waiting.push_back(key);
        }
    }

    /// Waits until there may be something.
    async fn rest(&mut self) -> Result<()> {
        match timeout(LOOK, self.bell.next()).await {
            Ok(None) => Err(Error::new(ErrorKind::Closed, "watching records: the bus is closed")),
            Ok(Some(Received::Delivery(delivery))) => {
                // The changes of other places, and of other programs, are not in what is asked for.
                match serde_json::from_slice::<StorageEvent>(delivery.message().body()) {
                    Ok(event) if event.event == Verb::Compacted => self.seen = None,
                    Ok(event) => self.look_at(event.record_key()),
                    Err(_) => {}
                }
                // Nobody keeps it: it does not come again, whatever becomes of this.
                let _ = delivery.ack().await;
                Ok(())
            }
            Ok(Some(Received::Gap(_))) => {
                self.seen = None;
                Ok(())
            }
            // It is asked now and then, whether anything was heard or not.
            _ => Ok(()),
        }
    }
}
