//! OpenBao, or another server of Vault's protocol: secrets in a key-value engine of version 2.
//!
//! A record is the secret `PATH/hosts/KEY`, a member for each field. Every write says which version it replaces, so that
//! no writer's change is lost; a revision is the time at which a version was made, in microseconds. Who deletes a record
//! deletes all its versions.

use std::{fmt, fs, path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use commissaire::{Error, Result};
use commissaire_api::model::Model;
use http_body_util::Full;
use hyper::{
    Method, Request, StatusCode,
    body::Bytes,
    header::{CONTENT_TYPE, HOST},
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value, json};
use tokio::{
    net::TcpStream,
    sync::{Mutex, RwLock},
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, ServerName, pem::PemObject},
    },
};
use url::Url;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{
    Content, Handler, Query, Rows, StoreError, Stored, Transaction, Write, found::Room, http::exchange,
};

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(2);
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(5);
/// How often a record is written anew that another has changed meanwhile.
const TRIES: usize = 16;
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

const AWAY: &str = "OpenBao does not answer";
const REFUSES: &str = "OpenBao refuses the storage service";
const FAILS: &str = "OpenBao fails";

/// How to reach an OpenBao, and what to use there. `Debug` shows no secret.
#[derive(Clone)]
pub struct OpenBaoOptions {
    /// Where it is.
    pub url: Url,
    /// Who asks.
    pub login: Login,
    /// Where the engine is, `secret`.
    pub mount: String,
    /// Below what in the engine, `commissaire`.
    pub path: String,
    /// The name space, where there are some.
    pub namespace: Option<String>,
    /// The file of the authorities that its certificate may come from; without, the system's.
    pub authority: Option<PathBuf>,
}

/// Who asks an OpenBao.
#[derive(Clone)]
pub enum Login {
    /// Who has this token.
    Token(Zeroizing<String>),
    /// A program with this role.
    AppRole {
        /// The role.
        role: String,
        /// Its secret.
        secret: Zeroizing<String>,
    },
}

/// An OpenBao.
pub struct OpenBao {
    options: OpenBaoOptions,
    tls: Option<TlsConnector>,
    /// The token of a role that has logged in.
    token: RwLock<Option<Zeroizing<String>>>,
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
        let tls = match options.url.scheme() {
            "https" => Some(connector(options.authority.as_ref())?),
            _ => None,
        };
        Ok(Self { options, tls, token: RwLock::default(), turn: Mutex::default() })
    }

    fn path(&self, kind: &str, key: &str) -> String {
        let OpenBaoOptions { mount, path, .. } = &self.options;
        let key = utf8_percent_encode(key, PATH);
        format!("/v1/{mount}/{kind}/{path}/hosts/{key}")
    }

    async fn find(&self, key: &str) -> Result<Option<Version>, StoreError> {
        let (status, body) = self.ask(Method::GET, &self.path("data", key), None).await?;
        match status {
            StatusCode::OK => {
                let odd = || self.failed(status, "with something else", "a secret was asked for");
                let mut answer: Value = serde_json::from_slice(&body).map_err(|_| odd())?;
                let mut data = answer["data"].take();
                let revision = revision(&data["metadata"]).ok_or_else(odd)?;
                let number = data["metadata"]["version"].as_u64().ok_or_else(odd)?;
                let json = serde_json::to_vec(&data["data"].take()).map_err(|_| odd())?;
                Ok(Some(Version { number, stored: Stored { revision, json: Zeroizing::new(json) } }))
            }
            StatusCode::NOT_FOUND => Ok(None),
            status => Err(self.failed(status, &said(&body), "a secret was asked for")),
        }
    }

    /// Puts `json` in the place of the version `number`, 0 for none. Its revision; `None`: that is not the version.
    async fn put(&self, key: &str, number: u64, json: &[u8]) -> Result<Option<u64>, StoreError> {
        let record: Value =
            serde_json::from_slice(json).map_err(|_| StoreError::Damaged { key: key.to_owned() })?;
        let body = json!({"data": record, "options": {"cas": number}});
        let body = Zeroizing::new(serde_json::to_vec(&body).unwrap_or_default());
        let (status, answer) = self.ask(Method::POST, &self.path("data", key), Some(&body)).await?;
        let told = said(&answer);
        match status {
            StatusCode::OK => {
                let answer: Value = serde_json::from_slice(&answer).unwrap_or_default();
                let odd = || self.failed(status, "with something else", "a secret was written");
                revision(&answer["data"]).map(Some).ok_or_else(odd)
            }
            StatusCode::BAD_REQUEST if told.contains("check-and-set") => Ok(None),
            status => Err(self.failed(status, &told, "a secret was written")),
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
                    let (status, body) = self.ask(Method::DELETE, &path, None).await?;
                    if !status.is_success() {
                        return Err(self.failed(status, &said(&body), "a secret was deleted"));
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
        let why = format!("OpenBao at {}: {} is written by others all the time", self.options.url, write.key);
        Err(StoreError::Failed { told: FAILS, why, uncertain: false })
    }

    /// The number of the last version of a secret whose versions were deleted one by one, by others.
    async fn deleted(&self, key: &str) -> Result<u64, StoreError> {
        let (status, body) = self.ask(Method::GET, &self.path("metadata", key), None).await?;
        match status {
            StatusCode::OK => {
                let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
                Ok(answer["data"]["current_version"].as_u64().unwrap_or(0))
            }
            // Who may not look is told so when he writes.
            _ => Ok(0),
        }
    }

    /// Asks, and once more with another token when the first is not good any more.
    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&[u8]>,
    ) -> Result<(StatusCode, Zeroizing<Vec<u8>>), StoreError> {
        let (token, new) = self.token().await?;
        let answer = self.send(method.clone(), path, Some(&token), body).await?;
        if answer.0 != StatusCode::FORBIDDEN || new || matches!(self.options.login, Login::Token(_)) {
            return Ok(answer);
        }
        *self.token.write().await = None;
        let (token, _) = self.token().await?;
        self.send(method, path, Some(&token), body).await
    }

    /// The token to ask with, and whether it was made just now.
    async fn token(&self) -> Result<(Zeroizing<String>, bool), StoreError> {
        let (role, secret) = match &self.options.login {
            Login::Token(token) => return Ok((token.clone(), false)),
            Login::AppRole { role, secret } => (role, secret),
        };
        if let Some(token) = &*self.token.read().await {
            return Ok((token.clone(), false));
        }
        let mut known = self.token.write().await;
        if let Some(token) = &*known {
            return Ok((token.clone(), false));
        }
        let body = json!({"role_id": role, "secret_id": **secret});
        let body = Zeroizing::new(serde_json::to_vec(&body).unwrap_or_default());
        let (status, answer) = self.send(Method::POST, "/v1/auth/approle/login", None, Some(&body)).await?;
        let read: Value = serde_json::from_slice(&answer).unwrap_or_default();
        match read["auth"]["client_token"].as_str() {
            Some(token) if status == StatusCode::OK => {
                let token = Zeroizing::new(token.to_owned());
                *known = Some(token.clone());
                Ok((token, true))
            }
            _ => {
                let status = if status == StatusCode::BAD_REQUEST { StatusCode::FORBIDDEN } else { status };
                Err(self.failed(status, &said(&answer), "the role logged in"))
            }
        }
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: Option<&[u8]>,
    ) -> Result<(StatusCode, Zeroizing<Vec<u8>>), StoreError> {
        let url = &self.options.url;
        let asked = method != Method::GET;
        let failed = |why: String, uncertain: bool| {
            let why = format!("OpenBao at {url}: {why}");
            tracing::debug!("{why}");
            StoreError::Failed { told: AWAY, why, uncertain }
        };
        let host = url.host_str().unwrap_or_default().to_owned();
        let port = url.port_or_known_default().unwrap_or(8200);
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, format!("{host}:{port}"))
            .header("X-Vault-Request", "true")
            .header(CONTENT_TYPE, "application/json");
        if let Some(token) = token {
            request = request.header("X-Vault-Token", token);
        }
        if let Some(namespace) = &self.options.namespace {
            request = request.header("X-Vault-Namespace", namespace);
        }
        let body = Full::new(Bytes::copy_from_slice(body.unwrap_or_default()));
        let request = request.body(body).map_err(|_| failed("a setting cannot be sent".to_owned(), false))?;
        let unbracketed = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let connect = async {
            let stream = TcpStream::connect((unbracketed.as_str(), port)).await?;
            stream.set_nodelay(true)?;
            Ok::<_, std::io::Error>(stream)
        };
        let stream = timeout(CONNECT, connect).await;
        let stream = stream
            .map_err(|_| failed(format!("no connection within {} s", CONNECT.as_secs()), false))?
            .map_err(|e| failed(e.to_string(), false))?;
        let answer = timeout(ANSWER, async {
            match &self.tls {
                None => exchange(stream, request).await.map_err(|e| failed(e.to_string(), asked)),
                Some(tls) => {
                    let name = ServerName::try_from(unbracketed.clone());
                    let name = name.map_err(|e| failed(e.to_string(), false))?;
                    let stream = tls.connect(name, stream).await.map_err(|e| failed(e.to_string(), false))?;
                    exchange(stream, request).await.map_err(|e| failed(e.to_string(), asked))
                }
            }
        });
        answer.await.map_err(|_| failed(format!("no answer within {} s", ANSWER.as_secs()), asked))?
    }

    fn failed(&self, status: StatusCode, said: &str, when: &str) -> StoreError {
        let told = match status {
            StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED => REFUSES,
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT => AWAY,
            _ => FAILS,
        };
        let why = format!("OpenBao at {} answered {status} ({said}) when {when}", self.options.url);
        tracing::warn!("{why}");
        StoreError::Failed { told, why, uncertain: false }
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

/// What it says is wrong. Never holds a secret: these are texts of the server's own.
fn said(body: &[u8]) -> String {
    let answer: Value = serde_json::from_slice(body).unwrap_or_default();
    let errors = answer["errors"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let text: String = errors.collect::<Vec<_>>().join("; ");
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(200).collect()
}

fn is_same(one: &[u8], other: &[u8]) -> bool {
    let read = |json| serde_json::from_slice::<Map<String, Value>>(json).ok();
    read(one).is_some_and(|one| Some(one) == read(other))
}

fn connector(authority: Option<&PathBuf>) -> Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    match authority {
        None => drop(roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
        Some(path) => {
            let wrong =
                |why: String| Error::config(format!("certificate_ca_path: {}: {why}", path.display()));
            let text = fs::read(path).map_err(|e| wrong(e.to_string()))?;
            for certificate in CertificateDer::pem_slice_iter(&text) {
                let certificate = certificate.map_err(|e| wrong(e.to_string()))?;
                roots.add(certificate).map_err(|e| wrong(e.to_string()))?;
            }
            if roots.is_empty() {
                return Err(wrong("holds no certificate in PEM".to_owned()));
            }
        }
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::config(format!("TLS: {e}")))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

#[async_trait]
impl Handler for OpenBao {
    fn id(&self) -> Uuid {
        Uuid::nil()
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
        let (status, body) = self.ask(Method::GET, &path, None).await?;
        let mut keys: Vec<String> = match status {
            StatusCode::OK => {
                let mut answer: Value = serde_json::from_slice(&body).unwrap_or_default();
                serde_json::from_value(answer["data"]["keys"].take()).unwrap_or_default()
            }
            StatusCode::NOT_FOUND => Vec::new(),
            status => return Err(self.failed(status, &said(&body), "secrets were listed")),
        };
        keys.sort();
        let (mut rows, mut more) = (Vec::new(), false);
        let mut room = Room::new(query.most, query.bytes);
        for key in keys {
            let wanted =
                key.starts_with(&query.prefix) && query.after.as_ref().is_none_or(|after| key > *after);
            if !wanted || key.ends_with('/') {
                continue;
            }
            let found = self.get(model, std::slice::from_ref(&key)).await?.pop().flatten();
            let Some(stored) = found else { continue };
            if !room.take(stored.json.len()) {
                more = true;
                break;
            }
            rows.push((key, stored));
        }
        Ok(Rows { rows, more, latest: 0 })
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
            back &= self.write(&undo, false).await.is_ok();
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

impl fmt::Debug for OpenBaoOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenBaoOptions").field("url", &self.url.as_str()).finish_non_exhaustive()
    }
}

impl fmt::Debug for OpenBao {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OpenBao").field(&self.options).finish()
    }
}
