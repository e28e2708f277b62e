//! Health and metrics over HTTP, for supervisors and for Prometheus.

use std::{
    convert::Infallible,
    fs, io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode, body::Incoming, server::conn::http1, service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    task::JoinHandle,
};

use super::services::Held;
use crate::{
    connection::{Connection, ConnectionWatch},
    error::{Error, Result},
    metrics::Metrics,
};

/// How long a client may take to send the head of its request.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);

/// What is known of the services of one program.
#[derive(Clone)]
pub struct Health {
    metrics: Metrics,
    connection: Arc<Mutex<ConnectionWatch>>,
    watched: Arc<Mutex<Vec<(&'static str, Held)>>>,
}

/// The HTTP server; dropping it ends it.
#[derive(Debug)]
pub struct Admin {
    task: JoinHandle<()>,
    socket: Option<PathBuf>,
}

impl Health {
    /// Knows no service yet, and so is not ready.
    pub(super) fn new(metrics: Metrics, connection: ConnectionWatch) -> Self {
        Self { metrics, connection: Arc::new(Mutex::new(connection)), watched: Arc::default() }
    }

    /// Knows no service any more, and is about this connection from now on.
    pub(super) fn begin_again(&self, connection: ConnectionWatch) {
        *self.connection.lock().unwrap_or_else(PoisonError::into_inner) = connection;
        self.watched.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Watches `instance` under `name`; one that was taken out is not ready.
    pub(super) fn watch(&self, name: &'static str, instance: Held) {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner).push((name, instance));
    }

    /// Each service, and whether it really consumes.
    pub fn services(&self) -> Vec<(&'static str, bool)> {
        let watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let ready = |instance: &Held| {
            instance.lock().unwrap_or_else(PoisonError::into_inner).as_ref().is_some_and(|one| one.is_ready())
        };
        watched.iter().map(|(name, instance)| (*name, ready(instance))).collect()
    }

    /// Whether the bus is connected now, and if not, why. Also brings the gauge up to date.
    pub fn connection(&self) -> Connection {
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner).now();
        self.metrics.set_connected(connection == Connection::Up);
        connection
    }

    fn answer(&self, request: &Request<Incoming>) -> (StatusCode, &'static str, String) {
        const TEXT: &str = "text/plain; charset=utf-8";
        if request.method() != Method::GET {
            return (StatusCode::METHOD_NOT_ALLOWED, TEXT, "GET only\n".into());
        }
        match request.uri().path() {
            "/healthz" => (StatusCode::OK, TEXT, "alive\n".into()),
            "/readyz" => {
                let (services, connection) = (self.services(), self.connection());
                let mut ready = !services.is_empty() && connection == Connection::Up;
                let mut lines = match connection {
                    Connection::Up => "bus connected\n".to_owned(),
                    Connection::Down { why } => format!("bus not connected: {why}\n"),
                };
                if services.is_empty() {
                    lines.push_str("starting\n");
                }
                for (name, consuming) in services {
                    ready &= consuming;
                    lines.push_str(name);
                    lines.push_str(if consuming { " consuming\n" } else { " not consuming\n" });
                }
                let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
                (status, TEXT, lines)
            }
            "/metrics" => {
                // Both bring the gauges up to date.
                self.services();
                self.connection();
                let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
                (StatusCode::OK, kind, self.metrics.render())
            }
            _ => (StatusCode::NOT_FOUND, TEXT, "there are /healthz, /readyz and /metrics\n".into()),
        }
    }
}

impl Admin {
    /// Serves `health` on `place`: `ADDRESS:PORT`, or the path of a socket (with a `/` in it), which gets mode 0600.
    pub async fn serve(place: &str, health: Health) -> Result<Self> {
        let failed = |e: io::Error| Error::config(format!("cannot serve --admin {place}: {e}")).because(e);
        if place.contains('/') {
            let path = PathBuf::from(place);
            let listener = bind_socket(&path).map_err(failed)?;
            let task = tokio::spawn(async move {
                loop {
                    match listener.accept().await {
                        Ok((stream, _)) => drop(tokio::spawn(converse(stream, health.clone()))),
                        Err(error) => rest_after(&error).await,
                    }
                }
            });
            return Ok(Self { task, socket: Some(path) });
        }
        let listener = TcpListener::bind(place).await.map_err(failed)?;
        let task = tokio::spawn(async move {
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => drop(tokio::spawn(converse(stream, health.clone()))),
                    Err(error) => rest_after(&error).await,
                }
            }
        });
        Ok(Self { task, socket: None })
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        self.task.abort();
        if let Some(socket) = &self.socket {
            let _ = fs::remove_file(socket);
        }
    }
}

/// Replaces a socket that nobody serves.
fn bind_socket(path: &PathBuf) -> io::Result<UnixListener> {
    use std::os::unix::fs::PermissionsExt;
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(io::Error::from(io::ErrorKind::AddrInUse));
    }
    if fs::symlink_metadata(path)
        .is_ok_and(|meta| std::os::unix::fs::FileTypeExt::is_socket(&meta.file_type()))
    {
        fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

async fn rest_after(error: &io::Error) {
    tracing::warn!(%error, "cannot accept a connection on the admin address");
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
}

async fn converse(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, health: Health) {
    let service = service_fn(move |request: Request<Incoming>| {
        let (status, kind, body) = health.answer(&request);
        let mut response = Response::new(Full::new(Bytes::from(body)));
        *response.status_mut() = status;
        response
            .headers_mut()
            .insert(hyper::header::CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
        std::future::ready(Ok::<_, Infallible>(response))
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(PATIENCE).keep_alive(false);
    if let Err(error) = server.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "an admin connection ended in disorder");
    }
}

impl std::fmt::Debug for Health {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.services()).finish()
    }
}
