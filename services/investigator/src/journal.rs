//! What is asked for of a host, in its journal.

use commissaire::Result;
use commissaire_api::{
    Investigation, StorageClient,
    client::request as begin,
    investigator::InvestigateParams,
    record::{Progress, REQUESTED, members},
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
    let mut new = Investigation { address: wanted.address.clone(), ..Investigation::default() };
    begin(&mut new, &Uuid::new_v4().simple().to_string(), wanted);
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
