//! Custodia: a keeper of secrets on the same machine, asked by HTTP over its Unix socket.
//!
//! A record is the JSON at `/secrets/hosts/KEY`, as the first Commissaire had it. Custodia knows neither revisions nor
//! transactions, and a secret that is there must be deleted before another is put in its place. So the new one is put into
//! `/secrets/hosts-pending/` first: whoever finds none under the key looks there, and so does who comes after a crash.
//! A revision is made of the secret itself: the same text has the same. Between writers of one service
//! `expected_revision` is exact; of two services that write at one moment the last wins, as with Custodia itself.

use std::{
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use async_trait::async_trait;
use commissaire::Error;
use commissaire_api::model::Model;
use http_body_util::Full;
use hyper::{
    Method, Request, StatusCode,
    body::Bytes,
    header::{ACCEPT, CONTENT_TYPE, HOST},
};
use sha2::{Digest, Sha256};
use tokio::{net::UnixStream, sync::RwLock, time::timeout};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{
    Content, Handler, Query, Rows, StoreError, Stored, Transaction, Write,
    found::page,
    http::{encoded, exchange},
};

/// Where Custodia is when nobody says so.
pub const SOCKET: &str = "/var/run/custodia/custodia.sock";
/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(1);
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(5);
/// How often a secret is looked for, or written, that another service may be replacing.
const LOOKS: usize = 10;
/// How often it must have been found nowhere.
const SURE: usize = 2;

const OCTETS: &str = "application/octet-stream";
const SECRETS: &str = "/secrets/hosts/";
const PENDING: &str = "/secrets/hosts-pending/";

const AWAY: &str = "Custodia does not answer";
const REFUSES: &str = "Custodia refuses the storage service";
const FAILS: &str = "Custodia fails";

/// A Custodia.
pub struct Custodia {
    socket: PathBuf,
    /// Writers have it alone, so that no reader of ours looks between deleting and putting.
    turn: RwLock<()>,
}

impl Custodia {
    /// The Custodia that listens on `socket`. It need not be there yet.
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned(), turn: RwLock::default() }
    }

    /// What is at `path`.
    async fn read(&self, path: &str) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
        let (status, body) = self.ask(Method::GET, path, None).await?;
        match status {
            StatusCode::OK => Ok(Some(body)),
            StatusCode::NOT_FOUND => Ok(None),
            // Custodia 0.5 says so of a secret that is not there.
            StatusCode::INTERNAL_SERVER_ERROR => {
                let (container, key) = path.rsplit_once('/').unwrap_or_default();
                match self.keys(&format!("{container}/")).await?.iter().any(|known| encoded(known) == key) {
                    true => Err(self.failed(status, "GET")),
                    false => Ok(None),
                }
            }
            status => Err(self.failed(status, "GET")),
        }
    }

    /// The names in a container.
    async fn keys(&self, container: &str) -> Result<Vec<String>, StoreError> {
        let (status, body) = self.ask(Method::GET, container, None).await?;
        match status {
            StatusCode::OK => {
                let names: Result<Vec<String>, _> = serde_json::from_slice(&body);
                let names = names.map_err(|_| self.failed(status, "a list of"))?;
                // A name with a slash is a container.
                Ok(names.into_iter().filter(|name| !name.contains('/')).collect())
            }
            StatusCode::NOT_FOUND => Ok(Vec::new()),
            status => Err(self.failed(status, "GET")),
        }
    }

    /// Puts what was not there, and makes the container if there is none. `false`: there was something.
    async fn put(&self, container: &str, key: &str, json: &[u8]) -> Result<bool, StoreError> {
        let path = format!("{container}{}", encoded(key));
        for _ in 0..2 {
            match self.ask(Method::PUT, &path, Some(json)).await?.0 {
                status if status.is_success() => return Ok(true),
                StatusCode::CONFLICT => return Ok(false),
                StatusCode::NOT_FOUND => match self.ask(Method::POST, container, None).await?.0 {
                    status if status.is_success() || status == StatusCode::CONFLICT => {}
                    status => return Err(self.failed(status, "POST")),
                },
                status => return Err(self.failed(status, "PUT")),
            }
        }
        Err(self.failed(StatusCode::NOT_FOUND, "PUT"))
    }

    /// Deletes what is there. `false`: there was nothing.
    async fn delete(&self, path: &str) -> Result<bool, StoreError> {
        match self.ask(Method::DELETE, path, None).await?.0 {
            status if status.is_success() => Ok(true),
            StatusCode::NOT_FOUND => Ok(false),
            status => Err(self.failed(status, "DELETE")),
        }
    }

    /// The secret `key`, wherever it is.
    async fn find(&self, key: &str) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
        let (path, pending) = paths(key);
        let mut nowhere = 0;
        for _ in 0..LOOKS {
            if let Some(json) = self.read(&path).await? {
                return Ok(Some(json));
            }
            if let Some(json) = self.read(&pending).await? {
                return Ok(Some(json));
            }
            // Nowhere; or another service moves it from here to there, always when one looks away.
            let listed = async |container| Ok(self.keys(container).await?.iter().any(|known| known == key));
            if listed(SECRETS).await? || listed(PENDING).await? {
                continue;
            }
            nowhere += 1;
            if nowhere == SURE {
                return Ok(None);
            }
        }
        Err(self.failed(StatusCode::CONFLICT, "GET"))
    }

    /// Puts `json` in the place of what is there.
    async fn replace(&self, key: &str, json: &[u8]) -> Result<(), StoreError> {
        let (path, pending) = paths(key);
        for _ in 0..LOOKS {
            if self.put(SECRETS, key, json).await? {
                self.delete(&pending).await?;
                return Ok(());
            }
            // What another has left there is older than this, or written at the same moment.
            if !self.put(PENDING, key, json).await? {
                self.delete(&pending).await?;
                self.put(PENDING, key, json).await?;
            }
            self.delete(&path).await?;
        }
        Err(self.failed(StatusCode::CONFLICT, "PUT"))
    }

    async fn remove(&self, key: &str) -> Result<(), StoreError> {
        let (path, pending) = paths(key);
        // In this order: else what is pending would take its place.
        self.delete(&pending).await?;
        self.delete(&path).await?;
        Ok(())
    }

    async fn write(&self, write: &Write) -> Result<(), StoreError> {
        match &write.content {
            Content::Record(json) => self.replace(&write.key, json).await,
            Content::Nothing => self.remove(&write.key).await,
        }
    }

    /// Asks once.
    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&[u8]>,
    ) -> Result<(StatusCode, Zeroizing<Vec<u8>>), StoreError> {
        let asked = method != Method::GET;
        let failed = |why: String, uncertain: bool| {
            let why = format!("Custodia at {}: {why}", self.socket.display());
            tracing::debug!("{why}");
            StoreError::Failed { told: AWAY, why, uncertain }
        };
        let stream = timeout(CONNECT, UnixStream::connect(&self.socket)).await;
        let stream = stream
            .map_err(|_| failed(format!("no connection within {} s", CONNECT.as_secs()), false))?
            .map_err(|e| failed(e.to_string(), false))?;
        let body = Full::new(Bytes::copy_from_slice(body.unwrap_or_default()));
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "localhost")
            .header("REMOTE_USER", "commissaire")
            .header(ACCEPT, if path.ends_with('/') { "application/json" } else { OCTETS })
            .header(CONTENT_TYPE, OCTETS)
            .body(body)
            .map_err(|e| failed(e.to_string(), false))?;
        let answer = timeout(ANSWER, exchange(stream, request)).await;
        answer
            .map_err(|_| failed(format!("no answer within {} s", ANSWER.as_secs()), asked))?
            .map_err(|e| failed(e.to_string(), asked))
    }

    fn failed(&self, status: StatusCode, what: &str) -> StoreError {
        let told = match status {
            StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED => REFUSES,
            _ => FAILS,
        };
        let why = format!("Custodia at {} answers {status} to {what} of a secret", self.socket.display());
        tracing::warn!("{why}");
        StoreError::Failed { told, why, uncertain: what != "GET" && status.is_server_error() }
    }
}

/// Where the secret `key` is, and where one is that is to take its place.
fn paths(key: &str) -> (String, String) {
    (format!("{SECRETS}{}", encoded(key)), format!("{PENDING}{}", encoded(key)))
}

/// The revision of a secret with this text: from 1, and the same for the same text.
fn revision(json: &[u8]) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&Sha256::digest(json)[..8]);
    // Numbers beyond are no whole numbers to some readers of JSON.
    (u64::from_be_bytes(first) >> 11).max(1)
}

#[async_trait]
impl Handler for Custodia {
    fn id(&self) -> Uuid {
        // It says nothing of itself: it is this machine's.
        Uuid::from_u128(0xc057_0d1a_0000_8000_8000_0000_0000_0000)
    }

    fn is_shared(&self) -> bool {
        true
    }

    async fn get(&self, _: &'static Model, keys: &[String]) -> Result<Vec<Option<Stored>>, StoreError> {
        let _turn = self.turn.read().await;
        let mut all = Vec::with_capacity(keys.len());
        for key in keys {
            let found = self.find(key).await?;
            all.push(found.map(|json| Stored { revision: revision(&json), json }));
        }
        Ok(all)
    }

    async fn list(&self, model: &'static Model, query: Query) -> Result<Rows, StoreError> {
        let mut keys = self.keys(SECRETS).await?;
        keys.extend(self.keys(PENDING).await?);
        keys.sort();
        keys.dedup();
        page(self, model, keys, &query).await
    }

    async fn commit(&self, transaction: Transaction) -> Result<Vec<u64>, StoreError> {
        let Transaction { writes, fence, quiet_if_unchanged, .. } = transaction;
        if fence.is_some() {
            return Err(StoreError::Unfit("secrets in Custodia cannot be written under a lease".to_owned()));
        }
        let _turn = self.turn.write().await;
        let mut before = Vec::with_capacity(writes.len());
        let mut missing = Vec::new();
        let mut conflict = None;
        for write in &writes {
            let found = self.find(&write.key).await?;
            let current = found.as_ref().map_or(0, |json| revision(json));
            match (&write.content, write.expected) {
                (Content::Nothing, _) if found.is_none() => missing.push(write.key.clone()),
                (_, Some(expected)) if expected != current => {
                    conflict =
                        conflict.or(Some(StoreError::Conflict { key: write.key.clone(), revision: current }));
                }
                _ => {}
            }
            before.push(found);
        }
        if !missing.is_empty() {
            return Err(StoreError::Missing(missing));
        }
        if let Some(conflict) = conflict {
            return Err(conflict);
        }
        let mut revisions = Vec::with_capacity(writes.len());
        for (at, write) in writes.iter().enumerate() {
            let unchanged = match (&write.content, &before[at]) {
                (Content::Record(json), Some(before)) => {
                    quiet_if_unchanged && before.as_slice() == json.as_slice()
                }
                _ => false,
            };
            if !unchanged && let Err(error) = self.write(write).await {
                return Err(self.undo(&writes[..=at], &before, error).await);
            }
            revisions.push(match &write.content {
                Content::Record(json) => revision(json),
                Content::Nothing => 0,
            });
        }
        Ok(revisions)
    }

    async fn broken(&self) -> Error {
        std::future::pending().await
    }
}

impl Custodia {
    /// Puts back what was before, after `error`, which says then whether that has succeeded.
    async fn undo(
        &self,
        writes: &[Write],
        before: &[Option<Zeroizing<Vec<u8>>>],
        error: StoreError,
    ) -> StoreError {
        let StoreError::Failed { told, why, mut uncertain } = error else { return error };
        // What may still arrive may come behind what is put back.
        for (write, before) in writes.iter().zip(before) {
            let back = match before {
                Some(json) => self.replace(&write.key, json).await,
                None => self.remove(&write.key).await,
            };
            if back.is_err() {
                uncertain = true;
                break;
            }
        }
        StoreError::Failed { told, why, uncertain }
    }
}

impl fmt::Debug for Custodia {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Custodia").field("socket", &self.socket).finish_non_exhaustive()
    }
}
