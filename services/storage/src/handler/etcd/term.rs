//! One reading of the changes that are to be announced, by the service that announces.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use commissaire_api::storage::Change;
use etcd_client::{Compare, CompareOp, Txn, TxnOp};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    Etcd,
    changes::{Step, Told, Watch, size},
    keys::{ANNOUNCED, RELAY},
    signed,
};
use crate::{
    handler::{StoreError, found::Room},
    relay::Outbox,
};

/// How long after it was asked for the lease of who announces surely holds: less than the time that it is given.
const SURE: Duration = Duration::from_secs(4);
/// How many changes wait in memory.
const AHEAD: usize = 1_024;

/// One reading of the changes that are to be announced.
pub(super) struct Term {
    etcd: Arc<Etcd>,
    /// The revision that tells that it is us who announce.
    token: u64,
    held: Arc<Held>,
    watch: tokio::sync::Mutex<Watch>,
    /// The revision up to which changes were compacted before anybody had announced them.
    lost: Option<u64>,
    state: Mutex<State>,
    /// Held while etcd is told up to where all is announced: a later word must not come first.
    noting: tokio::sync::Mutex<()>,
    more: Notify,
    room: Notify,
    ended: CancellationToken,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Change>,
    /// How many changes of a revision are not announced yet.
    unsent: BTreeMap<u64, usize>,
    /// The revision up to which all was read.
    read: u64,
    /// The revision up to which all was announced, as etcd knows it.
    noted: u64,
    deposed: bool,
}

impl Term {
    /// Begins behind what was announced.
    pub(super) async fn begin(
        etcd: Arc<Etcd>,
        token: u64,
        held: Arc<Held>,
        ended: CancellationToken,
    ) -> Result<Self, StoreError> {
        let look = etcd.link.read(|mut client| async move { client.get(ANNOUNCED, None).await }).await?;
        let text = look.kvs().first().and_then(|pair| str::from_utf8(pair.value()).ok());
        let mut announced: u64 = text.and_then(|text| text.parse().ok()).unwrap_or(0);
        let mut lost = None;
        let mut watch = etcd.watch(announced).await?;
        let mut first = Vec::new();
        // etcd says at once whether it knows them still; otherwise this only waits for the first change.
        if let Ok(told) = tokio::time::timeout(Duration::from_millis(250), watch.next()).await {
            match told? {
                Told::Steps(steps) => first = steps,
                Told::Compacted(oldest) => {
                    if !etcd.unchanged(announced, oldest).await? {
                        lost = Some(oldest);
                    }
                    announced = oldest;
                    watch = etcd.watch(announced).await?;
                }
            }
        }
        let state = State { read: announced, noted: announced, ..State::default() };
        let term = Self {
            etcd,
            token,
            held,
            watch: tokio::sync::Mutex::new(watch),
            lost,
            state: Mutex::new(state),
            noting: tokio::sync::Mutex::new(()),
            more: Notify::new(),
            room: Notify::new(),
            ended,
        };
        term.put(first);
        Ok(term)
    }

    /// The revision up to which changes were compacted before anybody had announced them.
    pub(super) fn lost(&self) -> Option<u64> {
        self.lost
    }

    /// Ends when it can tell no more.
    pub(super) fn ended(&self) -> CancellationToken {
        self.ended.clone()
    }

    /// Whether another announces now.
    pub(super) fn is_deposed(&self) -> bool {
        self.state().deposed
    }

    /// Reads what changes, until it ends.
    pub(super) async fn follow(&self) {
        let mut watch = self.watch.lock().await;
        while !self.ended.is_cancelled() {
            let room = self.room.notified();
            if self.state().waiting.len() >= AHEAD {
                tokio::select! {
                    () = room => {}
                    () = self.ended.cancelled() => {}
                }
                continue;
            }
            let told = tokio::select! {
                told = watch.next() => told,
                () = self.ended.cancelled() => break,
            };
            match told {
                Ok(Told::Steps(steps)) => {
                    self.put(steps);
                    // What is not announced, such as secrets, is known to be done as well.
                    self.note().await;
                }
                // It begins again behind what was announced, and finds out what that means.
                Ok(Told::Compacted(_)) | Err(_) => break,
            }
        }
        self.ended.cancel();
    }

    fn put(&self, steps: Vec<Step>) {
        let mut state = self.state();
        for Step { revision, changes } in steps {
            let before = state.waiting.len();
            state.waiting.extend(changes.into_iter().filter(|change| change.record.is_some()));
            let count = state.waiting.len() - before;
            if count > 0 {
                state.unsent.insert(revision, count);
            }
            state.read = revision;
        }
        drop(state);
        self.more.notify_one();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Outbox for Term {
    fn id(&self) -> Uuid {
        self.etcd.id
    }

    fn due(&self, _: u64, most: usize, bytes: usize) -> Result<Vec<Change>, StoreError> {
        // Another may announce by now what is newer.
        if self.held.is_doubtful() {
            self.ended.cancel();
            return Ok(Vec::new());
        }
        let mut state = self.state();
        let mut due: Vec<Change> = Vec::new();
        let mut room = Room::new(most, bytes);
        while let Some(next) = state.waiting.front() {
            let together = due.last().is_some_and(|last| last.revision == next.revision);
            if !room.take(size(next)) && !together {
                break;
            }
            due.extend(state.waiting.pop_front());
        }
        drop(state);
        self.room.notify_one();
        Ok(due)
    }

    async fn more(&self) {
        self.more.notified().await;
    }

    async fn sent(&self, revisions: Vec<u64>) -> Result<(), StoreError> {
        {
            let mut state = self.state();
            for revision in revisions {
                let left = state.unsent.get_mut(&revision).map(|count| {
                    *count = count.saturating_sub(1);
                    *count
                });
                if left == Some(0) {
                    state.unsent.remove(&revision);
                }
            }
        }
        self.note().await;
        Ok(())
    }
}

impl Term {
    /// Notes up to where all is announced. What could not be noted is so with what comes next, and else announced again.
    async fn note(&self) {
        let _alone = self.noting.lock().await;
        let announced = {
            let state = self.state();
            let announced = state.unsent.first_key_value().map_or(state.read, |(first, _)| first - 1);
            if announced <= state.noted {
                return;
            }
            announced
        };
        let txn = Txn::new()
            .when([Compare::mod_revision(RELAY, CompareOp::Equal, signed(self.token))])
            .and_then([TxnOp::put(ANNOUNCED, announced.to_string(), None)]);
        match self.etcd.link.write(|mut client| async move { client.txn(txn).await }).await {
            Ok(answer) if answer.succeeded() => {
                let mut state = self.state();
                state.noted = state.noted.max(announced);
            }
            Ok(_) => {
                self.state().deposed = true;
                self.ended.cancel();
            }
            Err(error) => tracing::debug!(%error, "what was announced could not be noted"),
        }
    }
}

/// For how long the lease of who announces surely holds.
pub(super) struct Held(Mutex<Instant>);

impl Held {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Instant::now()))
    }

    /// It was asked for then, and given.
    pub(super) fn since(&self, asked: Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = asked;
    }

    /// Whether it may be over by now.
    fn is_doubtful(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).elapsed() > SURE
    }
}
