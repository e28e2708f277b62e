//! Journals: a record says what is wanted and how far it is. Whoever works on it writes down each step before it goes on, so
//! that another can take it up where it was.

use commissaire::{Error, Result, time::timestamp};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use super::StorageClient;
use crate::{
    record::{CANCELLED, FAILED, FINISHED, IN_PROCESS, REQUESTED, Record, members},
    storage::Versioned,
};

/// A record that is the journal of the last run of something.
pub trait Journalled: Record + Clone {
    /// What may be asked for.
    type Wanted: Serialize + DeserializeOwned + Send;
    /// What is written down on the way.
    type Progress: Serialize + DeserializeOwned + Default + Send;

    /// What all journals have.
    fn entry(&mut self) -> Entry<'_>;

    /// Notes that a run was begun, or taken up.
    fn begun(progress: &mut Self::Progress);
}

/// What all journals have.
#[derive(Debug)]
pub struct Entry<'a> {
    /// Which run this is; empty: there was none.
    pub run: &'a mut String,
    /// `requested`, `in_process`, `finished`, `failed` or `cancelled`.
    pub status: &'a mut String,
    /// The instance that works on it, or did.
    pub holder: &'a mut String,
    /// What was asked for.
    pub wanted: &'a mut Map<String, Value>,
    /// What was done.
    pub progress: &'a mut Map<String, Value>,
    /// When it was asked for.
    pub requested_at: &'a mut String,
    /// When it was begun.
    pub started_at: &'a mut String,
    /// When it was over.
    pub finished_at: &'a mut String,
}

impl Entry<'_> {
    /// Whether it is over.
    pub fn is_over(&self) -> bool {
        [FINISHED, FAILED, CANCELLED].contains(&self.status.as_str())
    }

    /// Whether a run is wanted, or under way.
    pub fn is_open(&self) -> bool {
        !self.run.is_empty() && !self.is_over()
    }
}

/// A journal in the hands of one instance.
#[derive(Debug)]
pub struct Journal<T: Journalled> {
    storage: StorageClient,
    /// As it was stored last.
    stored: Versioned<T>,
    run: String,
    holder: String,
    /// What was asked for.
    pub wanted: T::Wanted,
    /// What was done; [`write`](Self::write) writes it down.
    pub progress: T::Progress,
}

impl<T: Journalled> Journal<T> {
    /// Takes the journal of `key` for `holder`; `None` if there is nothing to do.
    pub async fn open(storage: &StorageClient, key: &str, holder: &str) -> Result<Option<Self>> {
        let mut is_open = false;
        let taken = storage.update::<T>(key, |record| {
            let entry = record.entry();
            is_open = entry.is_open();
            if is_open {
                holder.clone_into(entry.holder);
                IN_PROCESS.clone_into(entry.status);
                if entry.started_at.is_empty() {
                    *entry.started_at = timestamp();
                }
                let mut progress = read::<T::Progress>(entry.progress);
                T::begun(&mut progress);
                *entry.progress = members(&progress);
            }
        });
        let mut stored = taken.await?;
        if !is_open {
            return Ok(None);
        }
        let entry = stored.record.entry();
        let wanted = serde_json::from_value(Value::Object(entry.wanted.clone()))
            .map_err(|e| Error::malformed(format!("the journal of {key} cannot be read: {e}")))?;
        let progress = read::<T::Progress>(entry.progress);
        let run = entry.run.clone();
        Ok(Some(Self { storage: storage.clone(), stored, run, holder: holder.to_owned(), wanted, progress }))
    }

    /// Which run it is.
    pub fn run(&self) -> &str {
        &self.run
    }

    /// Writes the progress down. `false`: somebody else has taken the journal.
    pub async fn write(&mut self) -> Result<bool> {
        self.change(None).await
    }

    /// Writes down that it is over. `false`: somebody else has taken the journal.
    pub async fn close(&mut self, well: bool) -> Result<bool> {
        self.end(if well { FINISHED } else { FAILED }).await
    }

    /// Writes down that it is over with this status. `false`: somebody else has taken the journal.
    pub async fn end(&mut self, status: &str) -> Result<bool> {
        self.change(Some(status)).await
    }

    async fn change(&mut self, end: Option<&str>) -> Result<bool> {
        let progress = members(&self.progress);
        let mut is_mine = false;
        // Others change it only to take it, or to tell whoever works on it something.
        let changed = self.storage.update_found(self.stored.clone(), |record| {
            let entry = record.entry();
            is_mine = *entry.run == self.run && *entry.holder == self.holder;
            if !is_mine {
                return;
            }
            entry.progress.clone_from(&progress);
            if let Some(status) = end {
                status.clone_into(entry.status);
                *entry.finished_at = timestamp();
            }
        });
        self.stored = changed.await?;
        Ok(is_mine)
    }
}

/// Makes of `record` the journal of a new run that nobody has begun.
pub fn request<T: Journalled>(record: &mut T, run: &str, wanted: &T::Wanted) {
    let entry = record.entry();
    run.clone_into(entry.run);
    REQUESTED.clone_into(entry.status);
    *entry.wanted = members(wanted);
    *entry.requested_at = timestamp();
    entry.progress.clear();
    for text in [entry.holder, entry.started_at, entry.finished_at] {
        text.clear();
    }
}

/// What was written down; of what cannot be read nothing is left.
fn read<T: DeserializeOwned + Default>(progress: &Map<String, Value>) -> T {
    serde_json::from_value(Value::Object(progress.clone())).unwrap_or_default()
}
