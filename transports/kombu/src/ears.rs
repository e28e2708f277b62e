//! What the server says unasked: which lists have changed. Kombu programs announce nothing, so the server itself is asked to
//! tell of every write to the lists that are read here (`CLIENT TRACKING` with prefixes).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use commissaire::Source;
use redis::{Pipeline, PushInfo, PushKind, Value};
use tokio::sync::Notify;

use crate::{
    link::{DEAF, Tenant},
    names::Names,
    tap::Tap,
    value::{items, text},
    wire::{Fault, Wire, no_error},
};

/// See the module.
#[derive(Debug)]
pub(crate) struct Ears {
    names: Names,
    taps: Mutex<Vec<Arc<Tap>>>,
    /// One change of what is told of at a time.
    changing: tokio::sync::Mutex<Vec<String>>,
    /// Everything was deleted, or the connection is another.
    pub(crate) anew: Notify,
}

impl Ears {
    pub(crate) fn new(names: Names) -> Self {
        Self { names, taps: Mutex::default(), changing: tokio::sync::Mutex::default(), anew: Notify::new() }
    }

    /// All subscriptions.
    pub(crate) fn taps(&self) -> Vec<Arc<Tap>> {
        self.lock().clone()
    }

    /// Hears of `tap` from now on.
    pub(crate) async fn add(&self, tap: &Arc<Tap>, wire: &Wire) -> Result<(), Fault> {
        self.lock().push(tap.clone());
        self.track(wire, false).await
    }

    /// Hears of `tap` no more. The server goes on telling until something else changes.
    pub(crate) fn remove(&self, tap: &Arc<Tap>) {
        self.lock().retain(|known| !Arc::ptr_eq(known, tap));
    }

    /// Something is in `list`: what we write ourselves the server does not tell us.
    pub(crate) fn stir(&self, list: &str) {
        for tap in self.lock().iter() {
            self.tell(tap, list);
        }
    }

    fn tell(&self, tap: &Tap, key: &str) {
        if let Source::Inbox(inbox) = &tap.source {
            let Some((name, _)) = self.names.reply_of(key, inbox) else { return };
            tap.replies.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned());
            tap.news.notify_one();
        } else if tap.lists.first().is_some_and(|list| list == key) {
            tap.news.notify_one();
        } else if tap.lists.iter().any(|list| list == key) {
            tap.stir();
        }
    }

    /// Asks the server to tell of all lists; unless it does already, or `anew`.
    async fn track(&self, wire: &Wire, anew: bool) -> Result<(), Fault> {
        let mut told = self.changing.lock().await;
        // The names of lists that begin with another of them need no line of their own, and may have none.
        let mut wanted: Vec<String> = self.lock().iter().map(|tap| self.names.list(&tap.queue)).collect();
        // Without any it would be all keys.
        wanted.push(self.names.own("v", ""));
        wanted.sort();
        wanted.dedup_by(|next, kept| next.starts_with(kept.as_str()));
        let covered = |name: &String| told.iter().any(|told| name.starts_with(told.as_str()));
        if !anew && wanted.iter().all(covered) {
            return Ok(());
        }
        let mut pipeline = Pipeline::new();
        pipeline.cmd("CLIENT").arg("TRACKING").arg("OFF");
        let on = pipeline.cmd("CLIENT").arg("TRACKING").arg("ON").arg("BCAST").arg("NOLOOP");
        for prefix in &wanted {
            on.arg("PREFIX").arg(prefix);
        }
        for answer in wire.ask_all(&pipeline, DEAF).await? {
            no_error(answer)?;
        }
        *told = wanted;
        drop(told);
        // What changed between the two was not told.
        self.stir_all();
        Ok(())
    }

    /// Anything may be anywhere.
    pub(crate) fn stir_all(&self) {
        self.lock().iter().for_each(|tap| tap.stir());
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Tap>>> {
        self.taps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The tenant of the connection.
#[derive(Debug)]
pub(crate) struct Hearing(pub(crate) Arc<Ears>);

#[async_trait::async_trait]
impl Tenant for Hearing {
    fn heard(&self, push: PushInfo) {
        if push.kind != PushKind::Invalidate {
            return;
        }
        let Some(keys) = push.data.into_iter().next() else { return };
        if matches!(keys, Value::Nil) {
            // FLUSHALL, or FLUSHDB.
            self.0.anew.notify_one();
            return;
        }
        let taps = self.0.lock();
        for key in items(keys).into_iter().filter_map(text) {
            for tap in taps.iter() {
                self.0.tell(tap, &key);
            }
        }
    }

    async fn up(&self, wire: &Wire) -> Result<(), Fault> {
        self.0.track(wire, true).await?;
        self.0.anew.notify_one();
        Ok(())
    }

    fn down(&self) {
        for tap in self.0.taps() {
            tap.consuming(false);
        }
    }
}
