//! Dialling: TCP, TLS, and who we say that we are.

use std::{
    fmt, io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use commissaire::{Error, ErrorKind, Result};
use rustls::{AlertDescription, CertificateError, ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::{connection::Connection, handshake::shake};

pub(super) type Reading = Box<dyn AsyncRead + Send + Unpin>;
pub(super) type Writing = Box<dyn AsyncWrite + Send + Unpin>;

/// The most that one dial may take, to the end of the handshake.
const DIAL: Duration = Duration::from_secs(5);

/// Makes connections. Holds the password.
pub(crate) struct Dialer {
    /// Hosts and ports of the broker's nodes.
    pub(crate) nodes: Vec<(String, u16)>,
    pub(crate) tls: Option<Arc<ClientConfig>>,
    pub(crate) login: Login,
    pub(crate) vhost: String,
    /// What the connection is called in the broker's list.
    pub(crate) name: String,
    /// The node to try next.
    pub(crate) next: AtomicUsize,
}

/// How to log in.
pub(crate) enum Login {
    Plain {
        user: String,
        password: String,
    },
    /// By the certificate that the connection was made with.
    External,
}

impl Dialer {
    /// Tries the nodes one after the other, each once.
    pub(crate) async fn dial_any(&self) -> Result<Connection> {
        let mut last = None;
        for _ in 0..self.nodes.len() {
            match self.dial().await {
                Ok(connection) => return Ok(connection),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| Error::config("bus_uri names no host: write amqp://HOST:PORT/VHOST")))
    }

    /// Tries one node, the next one each time; bounded.
    pub(crate) async fn dial(&self) -> Result<Connection> {
        let at = self.next.fetch_add(1, Ordering::Relaxed) % self.nodes.len().max(1);
        let Some((host, port)) = self.nodes.get(at) else {
            return Err(Error::config("bus_uri names no host"));
        };
        let place = format!("rabbitmq at {host}:{port}");
        let dialled = match timeout(DIAL, self.connect(&place, host, *port)).await {
            Ok(dialled) => dialled,
            Err(_) => Err(Error::unavailable(format!("connecting to {place}: no answer within {DIAL:?}"))),
        };
        if dialled.is_ok() {
            // The next one goes there too.
            self.next.store(at, Ordering::Relaxed);
        }
        dialled
    }

    async fn connect(&self, place: &str, host: &str, port: u16) -> Result<Connection> {
        let failed = |error: io::Error| self.failed(place, &error);
        let stream = TcpStream::connect((host, port)).await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let Some(tls) = &self.tls else {
            let (reading, writing) = stream.into_split();
            return shake(self, place, Box::new(reading), Box::new(writing)).await;
        };
        let name = ServerName::try_from(host.to_owned()).map_err(|_| {
            Error::config(format!("bus_uri names host {host:?}: no certificate can be for it"))
        })?;
        let stream = TlsConnector::from(tls.clone()).connect(name, stream).await.map_err(failed)?;
        let (reading, writing) = tokio::io::split(stream);
        shake(self, place, Box::new(reading), Box::new(writing)).await
    }

    /// Why a connection to `place` could not be made.
    pub(super) fn failed(&self, place: &str, error: &io::Error) -> Error {
        let forbidden = |why: &str| Error::new(ErrorKind::Forbidden, format!("connecting to {place}: {why}"));
        if let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            return match tls {
                rustls::Error::InvalidCertificate(why) => forbidden(match why {
                    CertificateError::UnknownIssuer => {
                        "its certificate is of an unknown authority: give ca_file"
                    }
                    CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                        "its certificate is for another name"
                    }
                    CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                        "its certificate has expired"
                    }
                    CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                        "its certificate is not valid yet"
                    }
                    _ => "its certificate was refused",
                }),
                rustls::Error::AlertReceived(
                    AlertDescription::CertificateRequired | AlertDescription::HandshakeFailure,
                ) => forbidden("it wants a certificate of ours: give cert_file and key_file"),
                rustls::Error::AlertReceived(_) => forbidden("it refused our certificate or our TLS"),
                _ => Error::unavailable(format!(
                    "connecting to {place}: it does not speak TLS there: check the port"
                )),
            };
        }
        let closed =
            [io::ErrorKind::UnexpectedEof, io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe];
        let nameless = self.tls.as_ref().is_some_and(|tls| !tls.client_auth_cert_resolver.has_certs());
        if nameless && closed.contains(&error.kind()) {
            // Its alert may have been lost with the connection.
            return forbidden(
                "it closed the connection at once, as one that wants a certificate of ours: give cert_file and key_file",
            );
        }
        let why = match error.kind() {
            io::ErrorKind::ConnectionRefused => "nothing listens there",
            io::ErrorKind::TimedOut => "no answer in time",
            kind if closed.contains(&kind) => "it closed the connection at once",
            _ => "the connection could not be made",
        };
        Error::unavailable(format!("connecting to {place}: {why}: check bus_uri and that the broker runs"))
    }
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialer").field("nodes", &self.nodes).finish_non_exhaustive()
    }
}
