//! The journal: one record a host, which says what is wanted and how far it is. Whoever works on it writes down each step
//! before it goes on, so that another can take it up where it was.

use commissaire::{Error, Result, time::timestamp};
use commissaire_api::{
    Investigation, StorageClient,
    investigator::InvestigateParams,
    record::{FAILED, FINISHED, IN_PROCESS, Progress, REQUESTED, members},
};
use serde_json::{Map, Value};
use uuid::Uuid;

/// What came of asking for an investigation.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// This run does it.
    Run(String),
    /// Another with other wishes is under way: this one.
    Busy(String),
}

/// Writes down what is wanted, or joins what is under way.
pub(crate) async fn request(storage: &StorageClient, wanted: &InvestigateParams) -> Result<Asked> {
    let new = Investigation {
        address: wanted.address.clone(),
        run: Uuid::new_v4().simple().to_string(),
        status: REQUESTED.to_owned(),
        wanted: members(wanted),
        requested_at: timestamp(),
        ..Investigation::default()
    };
    let mut asked = Asked::Run(new.run.clone());
    storage
        .update_or_create(&new, |record| {
            asked = Asked::Run(new.run.clone());
            if record.run == new.run || record.is_over() || record.run.is_empty() {
                // What a run before has left to be done.
                let left = Progress { due: record.progress().due, ..Progress::default() };
                *record = Investigation { progress: members(&left), ..new.clone() };
            } else if record.wanted == new.wanted {
                asked = Asked::Run(record.run.clone());
            } else if wanted.facts_only && !wanted.trust_new_key && is_whole(&record.wanted) {
                // It finds that out as well.
                asked = Asked::Run(record.run.clone());
            } else if record.status == REQUESTED && is_whole(&new.wanted) && !is_dry(&record.wanted) {
                // Nobody has begun, and it is more than what was wanted.
                record.wanted = new.wanted.clone();
                asked = Asked::Run(record.run.clone());
            } else {
                asked = Asked::Busy(record.run.clone());
            }
        })
        .await?;
    Ok(asked)
}

/// Whether all is wanted.
fn is_whole(wanted: &Map<String, Value>) -> bool {
    ["facts_only", "dry_run"].iter().all(|less| wanted.get(*less) != Some(&Value::Bool(true)))
}

fn is_dry(wanted: &Map<String, Value>) -> bool {
    wanted.get("dry_run") == Some(&Value::Bool(true))
}

/// The journal of a host in the hands of one instance.
#[derive(Debug)]
pub(crate) struct Journal {
    storage: StorageClient,
    holder: String,
    pub(crate) record: Investigation,
    pub(crate) wanted: InvestigateParams,
    pub(crate) progress: Progress,
}

impl Journal {
    /// Takes the journal of `address` for `holder`; `None` if there is nothing to do.
    pub(crate) async fn open(storage: &StorageClient, address: &str, holder: &str) -> Result<Option<Self>> {
        let mut is_mine = false;
        let taken = storage.update::<Investigation>(address, |record| {
            is_mine = !record.is_over() && !record.run.is_empty();
            if is_mine {
                record.holder = holder.to_owned();
                record.status = IN_PROCESS.to_owned();
                if record.started_at.is_empty() {
                    record.started_at = timestamp();
                }
                let mut progress = record.progress();
                progress.attempts += 1;
                record.progress = members(&progress);
            }
        });
        let record = taken.await?.record;
        if !is_mine {
            return Ok(None);
        }
        let wanted = serde_json::from_value(Value::Object(record.wanted.clone()))
            .map_err(|e| Error::malformed(format!("the journal of {address} cannot be read: {e}")))?;
        let progress = record.progress();
        Ok(Some(Self { storage: storage.clone(), holder: holder.to_owned(), record, wanted, progress }))
    }

    /// Writes the progress down. `false`: somebody else has taken the journal.
    pub(crate) async fn write(&mut self) -> Result<bool> {
        let progress = members(&self.progress);
        self.change(|record| record.progress = progress.clone()).await
    }

    /// Writes down that it is over.
    pub(crate) async fn close(&mut self, well: bool) -> Result<bool> {
        let progress = members(&self.progress);
        let status = if well { FINISHED } else { FAILED };
        self.change(|record| {
            record.progress = progress.clone();
            record.status = status.to_owned();
            record.finished_at = timestamp();
        })
        .await
    }

    async fn change(&mut self, edit: impl Fn(&mut Investigation)) -> Result<bool> {
        let (run, holder) = (self.record.run.clone(), self.holder.clone());
        let mut is_mine = false;
        let changed = self.storage.update::<Investigation>(&self.record.address, |record| {
            is_mine = record.run == run && record.holder == holder;
            if is_mine {
                edit(record);
            }
        });
        self.record = changed.await?.record;
        Ok(is_mine)
    }
}
