//! A subscription as its reader sees it: free places, and what waits for one.

use std::{
    collections::VecDeque,
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use commissaire::{Feed, Place};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::listen::entry::Entry;

/// Collects the free places of one subscription to `source`, so that a reader can count and spend them.
pub(crate) struct Intake<S> {
    source: S,
    state: Mutex<State>,
    closed: CancellationToken,
    /// The reader is blocked at the server for this one, among others.
    pub(crate) listed: AtomicBool,
    /// Somebody wants to know when the next place is free.
    hungry: AtomicBool,
}

struct State {
    /// The subscription's end; gone when nothing more comes.
    feed: Option<Arc<Feed>>,
    places: Vec<Place>,
    /// What came back or came without a place, oldest first.
    back: VecDeque<Entry>,
    /// Since when something waits there.
    since: Option<Instant>,
    /// No more is taken.
    closing: bool,
}

impl<S> Intake<S> {
    pub(crate) fn new(source: S, feed: Feed) -> Arc<Self> {
        Arc::new(Self {
            source,
            state: Mutex::new(State {
                feed: Some(Arc::new(feed)),
                places: Vec::new(),
                back: VecDeque::new(),
                since: None,
                closing: false,
            }),
            closed: CancellationToken::new(),
            listed: AtomicBool::new(false),
            hungry: AtomicBool::new(false),
        })
    }

    pub(crate) fn source(&self) -> &S {
        &self.source
    }

    /// The subscription's end, while more may come.
    pub(crate) fn feed(&self) -> Option<Arc<Feed>> {
        self.lock().feed.clone()
    }

    /// Says whether the subscription really consumes.
    pub(crate) fn consuming(&self, consuming: bool) {
        if let Some(feed) = self.feed() {
            feed.consuming().set(consuming);
        }
    }

    /// Collects places until the consumer closes; `came` is told of each new lot.
    pub(crate) async fn collect(&self, came: impl Fn(bool)) {
        let Some(feed) = self.feed() else { return };
        while let Some(Some(place)) = self.closed.run_until_cancelled(feed.place()).await {
            let mut state = self.lock();
            state.places.push(place);
            while let Some(place) = feed.try_place() {
                state.places.push(place);
            }
            drop(state);
            came(self.hungry.swap(false, Ordering::AcqRel));
        }
    }

    /// How many more may be read.
    pub(crate) fn free(&self) -> usize {
        let state = self.lock();
        if state.closing { 0 } else { state.places.len().saturating_sub(state.back.len()) }
    }

    /// How much room there is, closing or not.
    pub(crate) fn room(&self) -> usize {
        self.lock().places.len()
    }

    /// Asks to be told of the next place.
    pub(crate) fn hunger(&self) {
        self.hungry.store(true, Ordering::Release);
    }

    /// A place to deliver to.
    pub(crate) fn place(&self) -> Option<Place> {
        self.lock().places.pop()
    }

    /// No more is to be read.
    pub(crate) fn close(&self) {
        self.lock().closing = true;
        self.closed.cancel();
    }

    /// Nothing more comes: the subscription ends after what it has.
    pub(crate) fn end(&self) {
        self.close();
        let mut state = self.lock();
        let (feed, places) = (state.feed.take(), mem::take(&mut state.places));
        drop(state);
        drop((feed, places));
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.lock().closing
    }

    /// Keeps `entry` until there is a place; returned when there will be none.
    pub(crate) fn keep(&self, entry: Entry) -> Result<(), Entry> {
        let mut state = self.lock();
        if state.closing || state.feed.as_ref().is_none_or(|feed| feed.is_closed()) {
            return Err(entry);
        }
        let at = state.back.partition_point(|known| known.id < entry.id);
        state.back.insert(at, entry);
        state.since.get_or_insert_with(Instant::now);
        Ok(())
    }

    /// The oldest that waits, with a place for it.
    pub(crate) fn next(&self) -> Option<(Entry, Place)> {
        let mut state = self.lock();
        if state.places.is_empty() {
            return None;
        }
        let entry = state.back.pop_front()?;
        let place = state.places.pop()?;
        state.since = if state.back.is_empty() { None } else { Some(Instant::now()) };
        Some((entry, place))
    }

    /// What waits in vain: all of it once closing, or since before `old`.
    pub(crate) fn stale(&self, old: Instant) -> VecDeque<Entry> {
        let mut state = self.lock();
        if state.closing || state.since.is_some_and(|since| since < old) {
            state.since = None;
            return mem::take(&mut state.back);
        }
        VecDeque::new()
    }

    /// Whether nothing waits for a place.
    pub(crate) fn is_clear(&self) -> bool {
        self.lock().back.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
