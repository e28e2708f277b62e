//! The storage service in terms of the record types.

mod journal;
mod lease;
mod runs;
mod secret;
mod update;
mod watch;

use std::sync::{Arc, Mutex};

use commissaire::{Client, Result, RpcError};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::{
    record::Record,
    sealed::{PublicSealKey, SealKey},
    storage::{
        Changes, ChangesOutput, ChangesParams, Data, Delete, DeleteParams, Expected, Fence, List, ListParams,
        MAX_PAGE, Page, SaveParams, Versioned,
    },
};

pub use journal::{Entry, Journal, Journalled, request};
pub use lease::HeldLease;
pub use runs::{Ending, Runs, Stops};
pub use watch::{Seen, Watch};

/// Calls the storage service with records as their types. Cheap to clone.
///
/// ```no_run
/// # async fn example(client: commissaire::Client) -> commissaire::Result<()> {
/// use commissaire_api::{Host, StorageClient, client::Guard};
/// let storage = StorageClient::new(client);
/// // Whoever else changes it at the same moment, no change is lost.
/// storage.update::<Host>("10.0.0.7", |host| host.status = "active".into()).await?;
/// // The same by hand: fails with code 409 when somebody else has saved it meanwhile.
/// if let Some(found) = storage.find::<Host>("10.0.0.7").await? {
///     let host = Host { status: "active".into(), ..found.record };
///     storage.save_guarded(&host, Guard::revision(found.revision)).await?;
/// }
/// # Ok(()) }
/// ```
///
/// Secret records travel sealed, both ways.
#[derive(Debug, Clone)]
pub struct StorageClient {
    client: Client,
    /// To whom to seal, once that is known.
    seal_key: Arc<Mutex<Option<PublicSealKey>>>,
}

/// Under which conditions to write.
#[derive(Debug, Clone, Default)]
pub struct Guard {
    /// The revision that the record must have; 0: it must not be there.
    pub expected_revision: Option<u64>,
    /// The lease that must be ours.
    pub fence: Option<Fence>,
    /// The caller's name for what this belongs to, for the log of changes.
    pub operation: Option<String>,
}

impl Guard {
    /// The record must have this revision; 0: it must not be there.
    pub fn revision(expected: u64) -> Self {
        Self { expected_revision: Some(expected), ..Self::default() }
    }

    /// The same guard, and this lease must be ours.
    #[must_use]
    pub fn under(self, fence: Fence) -> Self {
        Self { fence: Some(fence), ..self }
    }

    /// The same guard, and this is what it belongs to.
    #[must_use]
    pub fn of(self, operation: impl Into<String>) -> Self {
        Self { operation: Some(operation.into()), ..self }
    }
}

impl StorageClient {
    /// Over `client`, with its deadline and its layers.
    pub fn new(client: Client) -> Self {
        Self { client, seal_key: Arc::default() }
    }

    /// The record of this key; an error of code −20000 if it is not there.
    pub async fn get<T: Record>(&self, key: &str) -> Result<T> {
        Ok(self.get_versioned(key).await?.record)
    }

    /// The record of this key and its revision; `None` if it is not there.
    pub async fn find<T: Record>(&self, key: &str) -> Result<Option<Versioned<T>>> {
        match self.get_versioned(key).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.remote().is_some_and(|remote| remote.code == RpcError::STORAGE_LOOKUP) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// The record of this key and its revision; an error of code −20000 if it is not there.
    pub async fn get_versioned<T: Record>(&self, key: &str) -> Result<Versioned<T>> {
        self.ask::<T, _>(by_key::<T>(key)?).await
    }

    /// Saves a record, whatever there was before. Answers it as it is stored.
    pub async fn save<T: Record>(&self, record: &T) -> Result<T> {
        Ok(self.save_guarded(record, Guard::default()).await?.record)
    }

    /// Saves a record if `guard` allows; else an error of code 409, and nothing is changed.
    pub async fn save_guarded<T: Record>(&self, record: &T, guard: Guard) -> Result<Versioned<T>> {
        let params = SaveParams {
            expected_revision: guard.expected_revision.map(Expected::One),
            fence: guard.fence,
            operation: guard.operation,
            ..saving::<T>(data(record)?)
        };
        self.store::<T, _>(params).await
    }

    /// Saves all records or none. They must fit one message together.
    pub async fn save_all<T: Record>(&self, records: &[T]) -> Result<Vec<Versioned<T>>> {
        self.store::<T, _>(saving::<T>(data(&records)?)).await
    }

    /// Deletes the record of this key; an error of code −20000 if it is not there.
    pub async fn delete<T: Record>(&self, key: &str) -> Result<()> {
        self.delete_guarded::<T>(key, Guard::default()).await
    }

    /// Deletes the record of this key if `guard` allows; else an error of code 409.
    pub async fn delete_guarded<T: Record>(&self, key: &str, guard: Guard) -> Result<()> {
        let params = DeleteParams {
            model_type_name: name::<T>(),
            model_json_data: by_key::<T>(key)?,
            expected_revision: guard.expected_revision.map(Expected::One),
            fence: guard.fence,
            operation: guard.operation,
        };
        self.client.call(Delete, &params).await
    }

    /// The records of these keys with their revisions, in their order, from one answer: an error of code −20000 names
    /// those that are not there.
    pub async fn get_many<T: Record>(&self, keys: &[&str]) -> Result<Vec<Versioned<T>>> {
        let field = T::MODEL.key.unwrap_or_default();
        let keys = keys.iter().map(|key| Map::from_iter([(field.to_owned(), Value::from(*key))]));
        self.ask::<T, _>(data(&keys.collect::<Vec<_>>())?).await
    }

    /// All records of a type, sorted by key, fetched page by page.
    pub async fn list<T: Record>(&self) -> Result<Vec<T>> {
        Ok(self.list_versioned().await?.0.into_iter().map(|versioned| versioned.record).collect())
    }

    /// All records of a type with their revisions, and the revision from which [`changes`](Self::changes) tells all that
    /// happened since the list was begun.
    pub async fn list_versioned<T: Record>(&self) -> Result<(Vec<Versioned<T>>, u64)> {
        let mine = secret::is_secret::<T>().then(SealKey::random);
        let mut params = ListParams {
            model_type_name: name::<T>(),
            with_revision: true,
            limit: Some(MAX_PAGE),
            seal_to: mine.as_ref().map(|mine| mine.public().clone()),
            ..ListParams::default()
        };
        let mut records = Vec::new();
        let mut revision = None;
        loop {
            let answer = self.client.call(List, &params).await?;
            let page: Page<Versioned<T>> = secret::opened::<T, _>("storage.list", mine.as_ref(), &answer)?;
            records.extend(page.records);
            let revision = *revision.get_or_insert(page.revision);
            match page.next {
                None => return Ok((records, revision)),
                next => params.after = next,
            }
        }
    }

    /// The changes of records of a type after the revision `since`, as many as fit one answer: ask again from its `next`
    /// until that is its `latest`. An error of code 410 when they are not all known any more: then list anew, or let
    /// [`watch`](Self::watch) do all that.
    pub async fn changes_of<T: Record>(&self, since: u64) -> Result<ChangesOutput> {
        let params = ChangesParams { since, model_type_name: Some(name::<T>()), limit: None };
        self.client.call(Changes, &params).await
    }

    /// The changes of the first place after the revision `since`, as many as fit one answer: ask again from its `next` until that is its
    /// `latest`. An error of code 410 when they are not all known any more: then list anew.
    pub async fn changes(&self, since: u64) -> Result<ChangesOutput> {
        self.client.call(Changes, &ChangesParams { since, ..ChangesParams::default() }).await
    }
}

fn name<T: Record>() -> String {
    T::MODEL.name.to_owned()
}

/// A save of these, whatever there was before.
fn saving<T: Record>(records: Data) -> SaveParams {
    SaveParams {
        model_type_name: name::<T>(),
        model_json_data: records,
        with_revision: true,
        expected_revision: None,
        fence: None,
        operation: None,
        quiet_if_unchanged: false,
        seal_to: None,
    }
}

fn by_key<T: Record>(key: &str) -> Result<Data> {
    let field = T::MODEL.key.unwrap_or_default();
    data(&Map::from_iter([(field.to_owned(), Value::from(key))]))
}

fn data(value: &impl serde::Serialize) -> Result<Data> {
    Data::of(value)
        .map_err(|e| commissaire::Error::malformed("the record cannot be written as JSON").because(e))
}

/// The answer as what the contract says. The parser's error is not kept: it may quote the record.
fn read<T: DeserializeOwned>(method: &str, answer: &Data) -> Result<T> {
    let error =
        |_| commissaire::Error::malformed(format!("the answer of {method} is not what its contract says"));
    answer.to().map_err(|e: serde_json::Error| error(e).maybe_executed())
}
