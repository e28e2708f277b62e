//! A `bus_uri` as what to connect to and what to ask of it.

use std::{collections::BTreeMap, fmt, fs, path::PathBuf};

use commissaire::{BusUri, Durability, Error, Result};
use redis::{
    Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion,
    RedisConnectionInfo, TlsCertificates, io::tcp::TcpSettings,
};

use crate::link::DEAF;

/// Where a `bus_uri` leads to.
pub struct Address {
    /// How to reach the server. Holds the password.
    pub client: Client,
    /// Where the server is, for messages: never a secret.
    pub place: String,
    /// The least that stored messages must survive.
    pub demand: Durability,
}

/// How a server is reached, as the scheme says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// TCP.
    Tcp,
    /// TLS over TCP.
    Tls,
    /// A Unix socket.
    Socket,
}

impl Address {
    /// Reads `uri`, whose query was read as `options`; every part of it is used or refused.
    pub fn read(uri: &BusUri, way: Way, options: &BTreeMap<String, String>) -> Result<Self> {
        let demand = uri.demanded()?;
        let (url, scheme) = (uri.expose(), uri.scheme());
        if url.fragment().is_some() {
            return Err(Error::config("bus_uri has a part behind '#': write %23 in a password"));
        }
        let (address, db) = match way {
            Way::Socket => {
                if url.has_host() && url.host_str().is_some_and(|host| !host.is_empty()) {
                    return Err(Error::config(format!(
                        "bus_uri names a host: write {scheme}:///path/to.sock"
                    )));
                }
                let path = PathBuf::from(BusUri::decoded(url.path(), "path")?);
                let db = options.get("db").map(String::as_str).unwrap_or_default();
                (ConnectionAddr::Unix(path), db.to_owned())
            }
            Way::Tcp | Way::Tls => {
                let host = url.host_str().filter(|host| !host.is_empty()).ok_or_else(|| {
                    Error::config(format!("bus_uri names no host: write {scheme}://HOST:PORT/DB"))
                })?;
                let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
                let port = url.port().unwrap_or(6379);
                let address = if way == Way::Tls {
                    ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
                } else {
                    ConnectionAddr::Tcp(host, port)
                };
                (address, url.path().trim_start_matches('/').to_owned())
            }
        };
        let db: i64 =
            match db.as_str() {
                "" => 0,
                text => text.parse().ok().filter(|db| (0..1 << 16).contains(db)).ok_or_else(|| {
                    Error::config(format!("bus_uri names database {text:?}: write a number"))
                })?,
            };
        let mut settings = RedisConnectionInfo::default()
            .set_db(db)
            .set_protocol(ProtocolVersion::RESP3)
            .set_skip_set_lib_name();
        if !url.username().is_empty() {
            settings = settings.set_username(BusUri::decoded(url.username(), "user")?);
        }
        if let Some(password) = url.password() {
            settings = settings.set_password(BusUri::decoded(password, "password")?);
        }
        // A URI without a host cannot hold a user.
        if let Some(user) = options.get("user") {
            settings = settings.set_username(user);
        }
        if let Some(path) = options.get("password_file") {
            let password = String::from_utf8(read_file("password_file", path)?)
                .map_err(|_| Error::config("the file of bus_uri's password_file is not UTF-8"))?;
            settings = settings.set_password(password.trim_end_matches(['\r', '\n']));
        }
        let place = match &address {
            ConnectionAddr::Unix(path) => format!("redis at {}", path.display()),
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
                format!("redis at {host}:{port}")
            }
            _ => "redis".to_owned(),
        };
        let info = address
            .into_connection_info()
            .map_err(|_| Error::config("bus_uri cannot be used as an address of redis"))?
            .set_tcp_settings(TcpSettings::default().set_nodelay(true).set_user_timeout(DEAF))
            .set_redis_settings(settings);
        let file = |name: &str| options.get(name).map(|path| read_file(name, path)).transpose();
        let client = if way == Way::Tls {
            tls_client(info, file("ca_file")?, file("cert_file")?, file("key_file")?)?
        } else {
            // The library's own text may quote what it was given.
            Client::open(info).map_err(|_| Error::config(format!("{place} cannot be used as an address")))?
        };
        Ok(Self { client, place, demand })
    }
}

/// A client that verifies the server's certificate, against `ca` or the system's authorities.
fn tls_client(
    info: ConnectionInfo,
    ca: Option<Vec<u8>>,
    cert: Option<Vec<u8>>,
    key: Option<Vec<u8>>,
) -> Result<Client> {
    // Whichever provider the program has chosen already stays.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client_tls = match (cert, key) {
        (Some(client_cert), Some(client_key)) => Some(ClientTlsConfig { client_cert, client_key }),
        (None, None) => None,
        _ => return Err(Error::config("bus_uri has one of cert_file and key_file: give both or none")),
    };
    let unusable = || {
        Error::config(
            "the files of bus_uri's ca_file, cert_file and key_file cannot be used: they must be PEM",
        )
    };
    // The library would take a file without any for one that trusts nobody.
    let begin = b"-----BEGIN CERTIFICATE-----";
    if ca.as_ref().is_some_and(|pem| !pem.windows(begin.len()).any(|bytes| bytes == begin)) {
        return Err(unusable());
    }
    Client::build_with_tls(info, TlsCertificates { client_tls, root_cert: ca }).map_err(|_| unusable())
}

fn read_file(option: &str, path: &str) -> Result<Vec<u8>> {
    fs::read(path)
        .map_err(|e| Error::config(format!("bus_uri's {option} {path:?} cannot be read: {}", e.kind())))
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Address").field("place", &self.place).field("demand", &self.demand).finish()
    }
}
