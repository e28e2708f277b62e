//! Dialling: TCP, TLS, and who we say that we are.

use std::{
    collections::HashMap,
    fmt, io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use commissaire::{Error, ErrorKind, Result};
use lapin::{
    AsyncTcpStream, ConnectionProperties,
    uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo, SASLMechanism},
};
use rustls::{AlertDescription, CertificateError, ClientConfig, pki_types::ServerName};
use tokio::{
    io::AsyncReadExt,
    net::{TcpStream, lookup_host},
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::{connection::Connection, fault::Fault, start};

/// For how long a server is heard out that may want a certificate.
const REFUSAL: Duration = Duration::from_millis(100);
/// In seconds; twice that without a word and the other is taken for dead.
const HEARTBEAT: u16 = 6;

/// The largest frame: lapin keeps room for 32 of them each way on each connection, 8 MiB of what RabbitMQ offers.
const FRAME: u32 = 16 * 1024;

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
    /// Product and version of the nodes that were asked.
    pub(crate) brokers: Mutex<HashMap<String, String>>,
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
        let known = self.brokers.lock().unwrap_or_else(PoisonError::into_inner).get(place).cloned();
        let broker = match known {
            Some(broker) => broker,
            None => {
                let broker = self.ask(place, host, port).await?;
                let mut brokers = self.brokers.lock().unwrap_or_else(PoisonError::into_inner);
                brokers.entry(place.to_owned()).or_insert(broker).clone()
            }
        };
        let failed: Arc<Mutex<Option<Error>>> = Arc::default();
        let (tls, noted, dialled) = (self.tls.clone(), failed.clone(), place.to_owned());
        let connect = async move |uri: AMQPUri, runtime| {
            let authority = uri.authority;
            let made = async {
                let mut refused = io::ErrorKind::NotFound.into();
                for place in lookup_host((authority.host.as_str(), authority.port)).await? {
                    match AsyncTcpStream::connect(&runtime, place).await {
                        Err(error) => refused = error,
                        Ok(stream) => {
                            return match &tls {
                                Some(tls) => stream.into_rustls(&tls.clone().into(), &authority.host).await,
                                None => Ok(stream),
                            };
                        }
                    }
                }
                Err(refused)
            };
            made.await.map_err(|error: io::Error| {
                *noted.lock().unwrap_or_else(PoisonError::into_inner) = Some(failed_to(&dialled, &error));
                lapin::Error::from(error)
            })
        };
        let runtime =
            lapin::runtime::default_runtime().map_err(|_| Error::config("amqp needs a tokio runtime"))?;
        let properties = ConnectionProperties::default().with_connection_name(self.name.as_str().into());
        let made = lapin::Connection::connector(self.uri(host, port), runtime, connect, properties).await;
        let noted = failed.lock().unwrap_or_else(PoisonError::into_inner).take();
        match made {
            Ok(connection) => Ok(Connection::start(connection, broker)),
            Err(error) => Err(noted.unwrap_or_else(|| self.refused(place, &error))),
        }
    }

    /// What lapin is told. Holds the password.
    fn uri(&self, host: &str, port: u16) -> AMQPUri {
        let (username, password, mechanism) = match &self.login {
            Login::Plain { user, password } => (user.clone(), password.clone(), SASLMechanism::Plain),
            Login::External => (String::new(), String::new(), SASLMechanism::External),
        };
        AMQPUri {
            scheme: AMQPScheme::AMQP,
            authority: AMQPAuthority {
                userinfo: AMQPUserInfo { username, password },
                host: host.to_owned(),
                port,
            },
            vhost: self.vhost.clone(),
            query: AMQPQueryString {
                heartbeat: Some(HEARTBEAT),
                frame_max: Some(FRAME),
                auth_mechanism: Some(mechanism),
                ..Default::default()
            },
        }
    }

    /// Asks the node at `place` who it is.
    async fn ask(&self, place: &str, host: &str, port: u16) -> Result<String> {
        let failed = |error: io::Error| failed_to(place, &error);
        let stream = TcpStream::connect((host, port)).await.map_err(failed)?;
        let Some(tls) = &self.tls else { return start::ask(self, place, stream).await };
        let name = ServerName::try_from(host.to_owned()).map_err(|_| {
            Error::config(format!("bus_uri names host {host:?}: no certificate can be for it"))
        })?;
        let mut stream = TlsConnector::from(tls.clone()).connect(name, stream).await.map_err(failed)?;
        // A server that wants a certificate, or another, says so only now, and nobody hears it who speaks first.
        if let Ok(heard) = timeout(REFUSAL, stream.read_u8()).await {
            return Err(failed(heard.err().unwrap_or_else(|| io::ErrorKind::InvalidData.into())));
        }
        start::ask(self, place, stream).await
    }

    /// Why the broker would not have us. Its texts name user and virtual host, never the password.
    fn refused(&self, place: &str, error: &lapin::Error) -> Error {
        match Fault::of(error) {
            Fault::Refused { code: 403, .. } => Error::new(
                ErrorKind::Forbidden,
                format!(
                    "connecting to {place}: it refused the user, the password or the certificate of bus_uri"
                ),
            ),
            Fault::Refused { code: 530, text } if text.contains("not found") => Error::config(format!(
                "connecting to {place}: it has no virtual host {:?}: check the path of bus_uri",
                self.vhost
            )),
            Fault::Refused { code: 530, .. } => Error::new(
                ErrorKind::Forbidden,
                format!(
                    "connecting to {place}: it refuses this user on virtual host {:?}: give the user permissions there",
                    self.vhost
                ),
            ),
            Fault::Refused { code, .. } => Error::unavailable(format!(
                "connecting to {place}: it closed the connection with code {code}"
            )),
            _ => failed_to(place, &io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// Why a connection to `place` could not be made.
pub(super) fn failed_to(place: &str, error: &io::Error) -> Error {
    let forbidden = |why: &str| Error::new(ErrorKind::Forbidden, format!("connecting to {place}: {why}"));
    if let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        return match tls {
            rustls::Error::InvalidCertificate(why) => forbidden(match why {
                CertificateError::UnknownIssuer => "its certificate is of an unknown authority: give ca_file",
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                    "its certificate is for another name: write that host into bus_uri"
                }
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                    "its certificate has expired: renew it"
                }
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                    "its certificate is not valid yet"
                }
                _ => "its certificate was refused",
            }),
            rustls::Error::AlertReceived(
                AlertDescription::CertificateRequired | AlertDescription::HandshakeFailure,
            ) => forbidden("it wants a certificate of ours: give cert_file and key_file"),
            rustls::Error::AlertReceived(_) => forbidden(
                "it refused our TLS, or wants another certificate of ours: see cert_file and key_file",
            ),
            _ => Error::unavailable(format!(
                "connecting to {place}: it does not speak TLS there: check the port"
            )),
        };
    }
    let why = match error.kind() {
        io::ErrorKind::ConnectionRefused => "nothing listens there",
        io::ErrorKind::TimedOut => "no answer in time",
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
            "it closed the connection at once"
        }
        _ => "the connection could not be made",
    };
    Error::unavailable(format!("connecting to {place}: {why}: check bus_uri and that the broker runs"))
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialer").field("nodes", &self.nodes).finish_non_exhaustive()
    }
}
