//! Asking an OpenBao: connections, tokens, and what its answers mean.

use std::{fmt, fs, path::PathBuf, sync::Arc, time::Duration};

use commissaire::{Error, Result};
use http_body_util::Full;
use hyper::{
    Method, Request, StatusCode,
    body::Bytes,
    header::{CONTENT_TYPE, HOST},
};
use serde_json::{Value, json};
use tokio::{net::TcpStream, sync::RwLock, time::timeout};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, ServerName, pem::PemObject},
    },
};
use url::Url;
use zeroize::Zeroizing;

use crate::handler::{StoreError, http::exchange};

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(2);
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(5);

const AWAY: &str = "OpenBao does not answer";
const REFUSES: &str = "OpenBao refuses the storage service";
pub(super) const FAILS: &str = "OpenBao fails";

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

/// The way to one OpenBao.
pub(super) struct Wire {
    pub(super) options: OpenBaoOptions,
    tls: Option<TlsConnector>,
    /// The token of a role that has logged in.
    token: RwLock<Option<Zeroizing<String>>>,
}

impl Wire {
    pub(super) fn new(options: OpenBaoOptions) -> Result<Self> {
        let tls = match options.url.scheme() {
            "https" => Some(connector(options.authority.as_ref())?),
            _ => None,
        };
        Ok(Self { options, tls, token: RwLock::default() })
    }

    /// Asks, and once more with another token when the first is not good any more.
    pub(super) async fn ask(
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
                Err(self.failed(status, &said(&answer), "the role logged in", false))
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

    pub(super) fn failed(&self, status: StatusCode, said: &str, when: &str, writes: bool) -> StoreError {
        let told = match status {
            StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED => REFUSES,
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT => AWAY,
            _ => FAILS,
        };
        let why = format!("OpenBao at {} answered {status} ({said}) when {when}", self.options.url);
        tracing::warn!("{why}");
        // A server that fails, or says something else than it should, may have done it.
        let uncertain = writes && (status.is_server_error() || status.is_success());
        StoreError::Failed { told, why, uncertain }
    }
}

/// What it says is wrong. Never holds a secret: these are texts of the server's own.
pub(super) fn said(body: &[u8]) -> String {
    let answer: Value = serde_json::from_slice(body).unwrap_or_default();
    let errors = answer["errors"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let text: String = errors.collect::<Vec<_>>().join("; ");
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(200).collect()
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

impl fmt::Debug for OpenBaoOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenBaoOptions").field("url", &self.url.as_str()).finish_non_exhaustive()
    }
}
