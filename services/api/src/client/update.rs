//! Changing a record without losing what others change at the same moment.

use std::time::Duration;

use commissaire::{Backoff, Error, Result, RpcError};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::{Guard, StorageClient};
use crate::{
    record::Record,
    storage::{COMPACTED, Versioned},
};

/// How long a change is tried.
const LONGEST: Duration = Duration::from_secs(30);
const BACKOFF: Backoff = Backoff { first: Duration::from_millis(5), most: Duration::from_millis(500) };

impl StorageClient {
    /// Changes the record of this key by `edit`, and answers it as it is stored then. An error of code −20000 if it is not
    /// there.
    ///
    /// When others have changed it meanwhile, `edit` is given what they have made of it, so that it may be called several
    /// times; what it did is stored once. That holds as well when the storage service, its store or the bus fail within:
    /// then the log of changes tells whether it was stored. Tried for 30 s; the error says then whether it may be stored.
    pub async fn update<T: Record>(&self, key: &str, edit: impl FnMut(&mut T)) -> Result<Versioned<T>> {
        self.change(key, None, || self.get_versioned(key), edit).await
    }

    /// As [`update`](Self::update), of a record that was `found` a moment ago: it is looked at again only if others have
    /// changed it since.
    pub async fn update_found<T: Record>(
        &self,
        found: Versioned<T>,
        edit: impl FnMut(&mut T),
    ) -> Result<Versioned<T>> {
        let key = found.record.key().to_owned();
        self.change(&key, Some(found), || self.get_versioned(&key), edit).await
    }

    /// As [`update`](Self::update), and makes the record where there is none: `edit` is given `new` then.
    pub async fn update_or_create<T: Record + Clone>(
        &self,
        new: &T,
        edit: impl FnMut(&mut T),
    ) -> Result<Versioned<T>> {
        let look = || async {
            let found = self.find(new.key()).await?;
            Ok(found.unwrap_or_else(|| Versioned { record: new.clone(), revision: 0 }))
        };
        self.change(new.key(), None, look, edit).await
    }

    /// Looks, edits and saves, until nobody else has saved in between.
    async fn change<T: Record, F>(
        &self,
        key: &str,
        mut found: Option<Versioned<T>>,
        look: impl Fn() -> F,
        mut edit: impl FnMut(&mut T),
    ) -> Result<Versioned<T>>
    where
        F: Future<Output = Result<Versioned<T>>>,
    {
        let until = Instant::now() + LONGEST;
        let mut attempt = 0;
        loop {
            let mut found = match found.take() {
                Some(found) => found,
                None => self.patiently(until, &look).await?,
            };
            edit(&mut found.record);
            match self.swap(key, &found, until).await? {
                Some(revision) => return Ok(Versioned { record: found.record, revision }),
                None if Instant::now() >= until => {
                    return Err(Error::timeout(format_args!("changing {} {key:?}", T::MODEL.name), LONGEST));
                }
                None => {}
            }
            attempt += 1;
            sleep(BACKOFF.after(attempt)).await;
        }
    }

    /// Saves `wanted` in the place of the revision that it has. Its new revision; `None`: another was saved, and this is
    /// not.
    async fn swap<T: Record>(&self, key: &str, wanted: &Versioned<T>, until: Instant) -> Result<Option<u64>> {
        let operation = format!("update {}", Uuid::new_v4().simple());
        let mut doubtful = false;
        let mut attempt = 0;
        loop {
            let guard = Guard::revision(wanted.revision).of(&operation);
            match self.save_guarded(&wanted.record, guard).await {
                Ok(saved) => return Ok(Some(saved.revision)),
                Err(error) if is_conflict(&error) => {
                    if !doubtful {
                        return Ok(None);
                    }
                    // It is stored, or something else is; only the log knows.
                    if is_elsewhere(&wanted.record) {
                        return Err(error.maybe_executed());
                    }
                    let asked = self.patiently(until, || self.landed::<T>(key, wanted.revision, &operation));
                    return asked.await.map_err(Error::maybe_executed);
                }
                Err(error) => {
                    doubtful |= may_be_stored(&error);
                    if !is_temporary(&error) || Instant::now() >= until {
                        return Err(if doubtful { error.maybe_executed() } else { error });
                    }
                }
            }
            attempt += 1;
            sleep(BACKOFF.after(attempt)).await;
        }
    }

    /// The revision in which `operation` has saved the record, if it did since `since`.
    async fn landed<T: Record>(&self, key: &str, mut since: u64, operation: &str) -> Result<Option<u64>> {
        loop {
            let told = self.changes_of::<T>(since).await?;
            let ours = |change: &&crate::storage::Change| {
                change.key == key && change.operation.as_deref() == Some(operation)
            };
            if let Some(change) = told.changes.iter().find(ours) {
                return Ok(Some(change.revision));
            }
            if told.next >= told.latest {
                return Ok(None);
            }
            since = told.next;
        }
    }

    /// Asks until there is an answer, for as long as asking again may help.
    async fn patiently<V, F>(&self, until: Instant, ask: impl Fn() -> F) -> Result<V>
    where
        F: Future<Output = Result<V>>,
    {
        let mut attempt = 0;
        loop {
            match ask().await {
                Err(error) if is_temporary(&error) && Instant::now() < until => {}
                answer => return answer,
            }
            attempt += 1;
            sleep(BACKOFF.after(attempt)).await;
        }
    }
}

fn is_conflict(error: &Error) -> bool {
    let remote = error.remote().filter(|remote| remote.code == RpcError::CONFLICT);
    remote.is_some_and(|remote| remote.data.as_ref().is_some_and(|data| data.get("revision").is_some()))
}

/// Whether the record names the place where it is: then its changes are not those of the place of its model.
fn is_elsewhere<T: Record>(record: &T) -> bool {
    let json = serde_json::to_value(record).unwrap_or_default();
    T::MODEL.field("source").is_some() && json["source"].as_str().is_some_and(|source| !source.is_empty())
}

/// Whether asking again may help: the service, its store or the bus is away or busy.
pub(super) fn is_temporary(error: &Error) -> bool {
    let codes = [RpcError::UNAVAILABLE, RpcError::BUSY];
    error.is_temporary() || error.remote().is_some_and(|remote| codes.contains(&remote.code))
}

/// Whether what was to be saved may be stored. Where its store has failed, the service says so.
fn may_be_stored(error: &Error) -> bool {
    let said = error.remote().filter(|remote| remote.code == RpcError::UNAVAILABLE);
    let said = said.and_then(|remote| remote.data.as_ref()?.get("maybe_executed")?.as_bool());
    said.unwrap_or_else(|| error.may_have_executed())
}

/// Whether the changes that were asked for are not known any more.
pub(super) fn is_compacted(error: &Error) -> bool {
    error.remote().is_some_and(|remote| remote.code == COMPACTED)
}
