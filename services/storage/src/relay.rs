//! The relay: announces what a handler has changed.
//!
//! At least once, in order for each record, many records at one time. A message that is sent again, even
//! after a restart, has the id that it had: it comes of the place, the record and the revision. A change counts as
//! announced only after the bus has taken it.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use commissaire::{Address, Backoff, Bus, Error, ErrorKind, Event, Message, MessageId};
use commissaire_api::{
    StorageEvent,
    storage::{Change, Data},
};
use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use sha2::{Digest, Sha256};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::handler::{StoreError, hashed_id};

/// How many messages are on their way at one time.
const WINDOW: usize = 64;
/// How many entries are in memory: those on their way, and those behind them of the same records.
const AHEAD: usize = 256;
/// How many bytes of entries are read at one time.
const AHEAD_BYTES: usize = 4 << 20;
/// How many entries are removed from the outbox together, without waiting for more.
const REMOVE: usize = 64;
/// How long a sent entry stays in the outbox for others to be removed with it.
const LINGER: Duration = Duration::from_millis(50);
/// How long messages on their way are waited for at the end. What is left is sent at the next start.
const GRACE: Duration = Duration::from_secs(1);
/// How long it is waited for, beyond that, until it is noted what was sent: what is not is sent again.
const NOTE: Duration = Duration::from_secs(5);
const BACKOFF: Backoff = Backoff { first: Duration::from_millis(100), most: Duration::from_secs(10) };

/// What is to be announced.
#[async_trait]
pub trait Outbox: Send + Sync {
    /// In which place it was changed.
    fn id(&self) -> Uuid;

    /// What is to be announced after the revision `after`, by revision: at most `most`, and of at most `bytes` together,
    /// but one at least. Those that share a revision come together.
    fn due(&self, after: u64, most: usize, bytes: usize) -> Result<Vec<Change>, StoreError>;

    /// Resolves when there is more to be announced, at once if that was so since the last time.
    async fn more(&self);

    /// Notes that these were announced: a revision stands as often as it was given out.
    async fn sent(&self, revisions: Vec<u64>) -> Result<(), StoreError>;
}

/// Announces what is in `outbox` on `bus`, and what comes into it, until `stop`.
pub async fn relay(outbox: Arc<dyn Outbox>, bus: Arc<dyn Bus>, stop: CancellationToken) {
    let relay = Relay {
        line: Line { bus, place: outbox.id(), failing: AtomicBool::new(false) }.into(),
        outbox,
        going: FuturesUnordered::new(),
        behind: HashMap::new(),
        ready: VecDeque::new(),
        held: 0,
        read: 0,
        more: true,
        look: Instant::now(),
        sent: Vec::new(),
        linger: Instant::now(),
        removing: false,
    };
    relay.run(stop).await;
}

/// The id of the message that announces `change` of the place `place`: the same each time it is sent.
pub fn message_id(place: Uuid, change: &Change) -> MessageId {
    // Neither part can hold a slash.
    id(place, change.revision, &format!("{}/{}", change.model_type_name, change.key))
}

/// The id of the message that tells of `what` in the revision `revision` of the place `place`.
pub(crate) fn id(place: Uuid, revision: u64, what: &str) -> MessageId {
    let hash = Sha256::new().chain_update(place.as_bytes()).chain_update(revision.to_be_bytes());
    MessageId(hashed_id(hash.chain_update(what)))
}

struct Relay {
    outbox: Arc<dyn Outbox>,
    line: Arc<Line>,
    going: FuturesUnordered<BoxFuture<'static, Done>>,
    /// The records that have a message on its way, and what waits behind it.
    behind: HashMap<Place, VecDeque<Change>>,
    /// What may go as soon as the window has room.
    ready: VecDeque<Change>,
    /// How many entries are in memory.
    held: usize,
    /// The revision up to which the outbox was read.
    read: u64,
    /// Whether the outbox may hold more.
    more: bool,
    /// When to look into the outbox again at the earliest.
    look: Instant,
    /// What was sent and is not yet removed.
    sent: Vec<u64>,
    /// When `sent` is removed at the latest.
    linger: Instant,
    removing: bool,
}

/// Which record: model and key.
type Place = (String, String);

enum Done {
    Sent(Place, u64),
    Removed(Vec<u64>, Result<(), StoreError>),
}

impl Relay {
    async fn run(mut self, stop: CancellationToken) {
        loop {
            self.fill();
            let outbox = self.outbox.clone();
            tokio::select! {
                () = stop.cancelled() => break,
                () = outbox.more() => self.more = true,
                Some(done) = self.going.next() => self.note(done),
                () = sleep_until(self.linger), if !self.sent.is_empty() && !self.removing => self.remove(),
                () = sleep_until(self.look), if self.may_read() => {}
            }
        }
        self.finish().await;
    }

    /// Waits for what is on its way, and removes what was sent.
    async fn finish(&mut self) {
        let end = Instant::now() + GRACE;
        loop {
            if !self.sent.is_empty() && !self.removing {
                self.remove();
            }
            tokio::select! {
                done = self.going.next() => match done {
                    Some(done) => self.note(done),
                    None => return,
                },
                () = sleep_until(end), if !self.removing => return,
                () = sleep_until(end + NOTE) => return,
            }
        }
    }

    /// Takes from the outbox what there is room for, and sends what may go.
    fn fill(&mut self) {
        if self.may_read() && Instant::now() >= self.look {
            match self.outbox.due(self.read, AHEAD.saturating_sub(self.held), AHEAD_BYTES) {
                Ok(due) => {
                    self.more = !due.is_empty();
                    for change in due {
                        self.read = change.revision;
                        self.held += 1;
                        self.queue(change);
                    }
                }
                Err(error) => {
                    // The handler logs its failures itself.
                    tracing::debug!(%error, "the outbox could not be read");
                    self.look = Instant::now() + BACKOFF.most;
                }
            }
        }
        while self.going.len() < WINDOW {
            let Some(change) = self.ready.pop_front() else { break };
            let line = self.line.clone();
            self.going.push(Box::pin(async move {
                line.announce(&change).await;
                Done::Sent((change.model_type_name, change.key), change.revision)
            }));
        }
    }

    /// Whether there may be something to read, and room for it.
    fn may_read(&self) -> bool {
        self.more && self.held <= AHEAD / 2
    }

    /// Puts `change` behind what is under way for its record, or among what may go.
    fn queue(&mut self, change: Change) {
        let place = (change.model_type_name.clone(), change.key.clone());
        match self.behind.get_mut(&place) {
            Some(waiting) => waiting.push_back(change),
            None => {
                self.behind.insert(place, VecDeque::new());
                self.ready.push_back(change);
            }
        }
    }

    fn note(&mut self, done: Done) {
        match done {
            Done::Sent(place, revision) => {
                self.held -= 1;
                if self.sent.is_empty() {
                    self.linger = Instant::now() + LINGER;
                }
                self.sent.push(revision);
                match self.behind.get_mut(&place).and_then(VecDeque::pop_front) {
                    Some(next) => self.ready.push_back(next),
                    None => {
                        self.behind.remove(&place);
                    }
                }
                if self.sent.len() >= REMOVE && !self.removing {
                    self.remove();
                }
            }
            Done::Removed(revisions, removed) => {
                self.removing = false;
                if let Err(error) = removed {
                    tracing::debug!(%error, "sent entries could not be removed from the outbox");
                    self.sent.extend(revisions);
                    self.linger = Instant::now() + BACKOFF.most;
                }
            }
        }
    }

    /// Begins to remove what was sent from the outbox.
    fn remove(&mut self) {
        self.removing = true;
        let revisions = std::mem::take(&mut self.sent);
        let outbox = self.outbox.clone();
        self.going.push(Box::pin(async move {
            let removed = outbox.sent(revisions.clone()).await;
            Done::Removed(revisions, removed)
        }));
    }
}

/// The way to the bus.
struct Line {
    bus: Arc<dyn Bus>,
    place: Uuid,
    /// Whether the last attempt failed; so that a bus that is away is logged once.
    failing: AtomicBool,
}

impl Line {
    /// Sends until the bus has taken it, or can never take it.
    async fn announce(&self, change: &Change) {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let sent = match message(self.place, change) {
                Ok(message) => self.bus.publish(message).await,
                Err(error) => Err(error),
            };
            let Err(error) = sent else {
                if self.failing.swap(false, Ordering::Relaxed) {
                    tracing::info!("announcements are sent again");
                }
                return;
            };
            if matches!(error.kind(), ErrorKind::TooLarge | ErrorKind::Invalid | ErrorKind::Malformed) {
                tracing::error!(revision = change.revision, %error, "a change can never be announced");
                return;
            }
            if !self.failing.swap(true, Ordering::Relaxed) {
                tracing::warn!(%error, "announcements wait in the outbox and are tried again");
            }
            sleep(BACKOFF.after(attempt)).await;
        }
    }
}

/// The announcement of `change`.
fn message(place: Uuid, change: &Change) -> Result<Message, Error> {
    let model = change
        .record
        .clone()
        .ok_or_else(|| Error::malformed("a change without a record is not announced"))?;
    let event = StorageEvent {
        event: change.event,
        class: change.model_type_name.clone(),
        model,
        revision: Some(change.revision),
    };
    let body = Data::of(&event).map_err(|_| Error::malformed("an announcement cannot be written as JSON"))?;
    Message::with_id(message_id(place, change), Address::Topic(event.key()?), body.text().to_owned())
}
