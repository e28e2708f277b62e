//! OpenBao, or another server of Vault's protocol: secrets in a key-value engine of version 2.
//!
//! A record is the secret `PATH/hosts/KEY`, a member for each field. Every write says which version it replaces, so that
//! no writer's change is lost; a revision is the time at which a version was made, in microseconds. Who deletes a record
//! deletes all its versions.

mod wire;

use std::fmt;

use async_trait::async_trait;
use commissaire::{Error, Result};
use commissaire_api::model::Model;
use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::Mutex;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{
    Content, Handler, Query, Rows, StoreError, Stored, Transaction, Write, found::page, hashed_id,
    http::encoded, transaction::is_same,
};
use wire::{FAILS, Wire, said};
pub use wire::{Login, OpenBaoOptions};

/// How often a record is written anew that another has changed meanwhile.
const TRIES: usize = 16;

/// An OpenBao.
pub struct OpenBao {
    wire: Wire,
    /// Writers of one service wait for each other, rather than to begin anew.
    turn: Mutex<()>,
}

/// A version of a secret.
struct Version {
    number: u64,
    stored: Stored,
}

impl OpenBao {
    /// The OpenBao of these options. It need not be there yet.
    pub fn new(options: OpenBaoOptions) -> Result<Self> {
        Ok(Self { wire: Wire::new(options)?, turn: Mutex::default() })
    }

    fn path(&self, kind: &str, key: &str) -> String {
        let OpenBaoOptions { mount, path, .. } = &self.wire.options;
        let key = encoded(key);
        format!("/v1/{mount}/{kind}/{path}/hosts/{key}")
    }

    async fn find(&self, key: &str) -> Result<Option<Version>, StoreError> {
        let (status, body) = self.wire.ask(Method::GET, &self.path("data", key), None).await?;
        match status {
            StatusCode::OK => {
                let odd = || self.wire.failed(status, "with something else", "a secret was asked for", false);
                let mut answer: Value = serde_json::from_slice(&body).map_err(|_| odd())?;
                let metadata = &answer["data"]["metadata"];
                let revision = revision(metadata).ok_or_else(odd)?;
                let number = metadata["version"].as_u64().ok_or_else(odd)?;
                let record = answer.pointer_mut("/data/data").map(Value::take).ok_or_else(odd)?;
                let json = serde_json::to_vec(&record).map_err(|_| odd())?;
                Ok(Some(Version { number, stored: Stored { revision, json: Zeroizing::new(json) } }))
            }
            // With errors it is the engine that is not there.
            StatusCode::NOT_FOUND if said(&body).is_empty() => Ok(None),
            status => Err(self.wire.failed(status, &said(&body), "a secret was asked for", false)),
        }
    }

    /// Puts `json` in the place of the version `number`, 0 for none. Its revision; `None`: that is not the version.
    async fn put(&self, key: &str, number: u64, json: &[u8]) -> Result<Option<u64>, StoreError> {
        let record: Value =
            serde_json::from_slice(json).map_err(|_| StoreError::Damaged { key: key.to_owned() })?;
        let body = json!({"data": record, "options": {"cas": number}});
        let body = Zeroizing::new(serde_json::to_vec(&body).unwrap_or_default());
        let (status, answer) = self.wire.ask(Method::POST, &self.path("data", key), Some(&body)).await?;
        let told = said(&answer);
        match status {
            StatusCode::OK => {
                let answer: Value = serde_json::from_slice(&answer).unwrap_or_default();
                let odd = || self.wire.failed(status, "with something else", "a secret was written", true);
                revision(&answer["data"]).map(Some).ok_or_else(odd)
            }
            StatusCode::BAD_REQUEST if told.contains("check-and-set") => Ok(None),
            status => Err(self.wire.failed(status, &told, "a secret was written", true)),
        }
    }

    /// Carries out one write. What was there before; `expected` and existence are looked at again with each try.
    async fn write(&self, write: &Write, quiet: bool) -> Result<(u64, Option<Stored>), StoreError> {
        for _ in 0..TRIES {
            let before = self.find(&write.key).await?;
            check(write, before.as_ref())?;
            let (number, before) = match before {
                Some(Version { number, stored }) => (number, Some(stored)),
                None => (self.deleted(&write.key).await?, None),
            };
            match &write.content {
                Content::Nothing => {
                    let path = self.path("metadata", &write.key);
                    let (status, body) = self.wire.ask(Method::DELETE, &path, None).await?;
                    if !status.is_success() {
                        return Err(self.wire.failed(status, &said(&body), "a secret was deleted", true));
                    }
                    return Ok((0, before));
                }
                Content::Record(json) => {
                    if quiet
                        && let Some(stored) = before.as_ref().filter(|stored| is_same(&stored.json, json))
                    {
                        return Ok((stored.revision, before));
                    }
                    if let Some(revision) = self.put(&write.key, number, json).await? {
                        return Ok((revision, before));
                    }
                }
            }
        }
        let why =
            format!("OpenBao at {}: {} is written by others all the time", self.wire.options.url, write.key);
        Err(StoreError::Failed { told: FAILS, why, uncertain: false })
    }

    /// The number of the last version of a secret whose versions were deleted one by one, by others.
    async fn deleted(&self, key: &str) -> Result<u64, StoreError> {
        let (status, body) = self.wire.ask(Method::GET, &self.path("metadata", key), None).await?;
        match status {
            StatusCode::OK => {
                let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
                Ok(answer["data"]["current_version"].as_u64().unwrap_or(0))
            }
            StatusCode::NOT_FOUND => Ok(0),
            // Who may not look may write what is new all the same.
            StatusCode::FORBIDDEN => Ok(0),
            status => Err(self.wire.failed(status, &said(&body), "a secret was asked for", false)),
        }
    }
}

/// Whether `write` may be done where there is `found`.
fn check(write: &Write, found: Option<&Version>) -> Result<(), StoreError> {
    let current = found.map_or(0, |version| version.stored.revision);
    match (&write.content, write.expected) {
        (Content::Nothing, _) if found.is_none() => Err(StoreError::Missing(vec![write.key.clone()])),
        (_, Some(expected)) if expected != current => {
            Err(StoreError::Conflict { key: write.key.clone(), revision: current })
        }
        _ => Ok(()),
    }
}

/// When a version was made, in microseconds since 1970.
fn revision(metadata: &Value) -> Option<u64> {
    let made: jiff::Timestamp = metadata["created_time"].as_str()?.parse().ok()?;
    u64::try_from(made.as_microsecond()).ok()
}

#[async_trait]
impl Handler for OpenBao {
    fn id(&self) -> Uuid {
        let OpenBaoOptions { url, mount, path, namespace, .. } = &self.wire.options;
        hashed_id(Sha256::new().chain_update(format!("{url} {mount} {path} {namespace:?}")))
    }

    fn is_shared(&self) -> bool {
        true
    }

    async fn get(&self, _: &'static Model, keys: &[String]) -> Result<Vec<Option<Stored>>, StoreError> {
        let mut all = Vec::with_capacity(keys.len());
        for key in keys {
            all.push(self.find(key).await?.map(|version| version.stored));
        }
        Ok(all)
    }

    async fn list(&self, model: &'static Model, query: Query) -> Result<Rows, StoreError> {
        let path = format!("{}?list=true", self.path("metadata", ""));
        let (status, body) = self.wire.ask(Method::GET, &path, None).await?;
        let mut keys: Vec<String> = match status {
            StatusCode::OK => {
                let mut answer: Value = serde_json::from_slice(&body).unwrap_or_default();
                let keys = answer.pointer_mut("/data/keys").map(Value::take).unwrap_or_default();
                serde_json::from_value(keys).unwrap_or_default()
            }
            StatusCode::NOT_FOUND => Vec::new(),
            status => return Err(self.wire.failed(status, &said(&body), "secrets were listed", false)),
        };
        keys.sort();
        keys.retain(|key| !key.ends_with('/'));
        page(self, model, keys, &query).await
    }

    async fn commit(&self, transaction: Transaction) -> Result<Vec<u64>, StoreError> {
        let Transaction { writes, fence, quiet_if_unchanged, .. } = transaction;
        if fence.is_some() {
            return Err(StoreError::Unfit("secrets in OpenBao cannot be written under a lease".to_owned()));
        }
        let _turn = self.turn.lock().await;
        let mut missing = Vec::new();
        for write in &writes {
            match check(write, self.find(&write.key).await?.as_ref()) {
                Err(StoreError::Missing(keys)) => missing.extend(keys),
                Err(error) if missing.is_empty() => return Err(error),
                _ => {}
            }
        }
        if !missing.is_empty() {
            return Err(StoreError::Missing(missing));
        }
        let mut done: Vec<(u64, Option<Stored>)> = Vec::with_capacity(writes.len());
        for write in &writes {
            match self.write(write, quiet_if_unchanged).await {
                Ok(one) => done.push(one),
                Err(error) => return Err(self.undo(&writes, done, error).await),
            }
        }
        Ok(done.into_iter().map(|(revision, _)| revision).collect())
    }

    async fn broken(&self) -> Error {
        std::future::pending().await
    }
}

impl OpenBao {
    /// Puts back what was before the writes that are done, after `error`, which says then whether that has succeeded.
    async fn undo(
        &self,
        writes: &[Write],
        done: Vec<(u64, Option<Stored>)>,
        error: StoreError,
    ) -> StoreError {
        let mut back = true;
        for (write, (revision, before)) in writes.iter().zip(done) {
            let content = before.map_or(Content::Nothing, |stored| Content::Record(stored.json));
            let undo =
                Write { model: write.model, key: write.key.clone(), expected: Some(revision), content };
            back = self.write(&undo, false).await.is_ok();
            if !back {
                break;
            }
        }
        match error {
            StoreError::Failed { told, why, uncertain } => {
                StoreError::Failed { told, why, uncertain: uncertain || !back }
            }
            error if back => error,
            error => StoreError::Failed { told: FAILS, why: error.to_string(), uncertain: true },
        }
    }
}

impl fmt::Debug for OpenBao {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OpenBao").field(&self.wire.options).finish()
    }
}
