//! A `bus_uri` as what to connect to and what to ask of it.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use async_nats::{ConnectOptions, ServerAddr};
use commissaire::{BusUri, Durability, Error, Result};

use crate::names::is_prefix;

/// What a `bus_uri` says.
pub(crate) struct Options {
    /// Who to be and what to trust. Holds the secrets.
    pub(crate) connect: ConnectOptions,
    pub(crate) servers: Vec<ServerAddr>,
    /// Where the servers are, for messages: never a secret.
    pub(crate) place: String,
    /// What our inboxes stand below.
    pub(crate) prefix: String,
    /// The least that stored messages must survive.
    pub(crate) demand: Durability,
}

const PLACE: &[&str] = &["durability", "servers", "inbox_prefix"];
const WHO: &[&str] = &["nkey_file", "creds_file", "password_file"];
const TLS: &[&str] = &["ca_file", "cert_file", "key_file"];

impl Options {
    /// Reads `uri`; every part of it is used or refused.
    pub(crate) fn read(uri: &BusUri) -> Result<Self> {
        let options = uri.options(&[PLACE, WHO, TLS].concat())?;
        let get = |name: &str| options.get(name).map(String::as_str);
        let demand = uri.demanded()?;
        let url = uri.expose();
        let scheme = uri.scheme();
        let host = url
            .host_str()
            .filter(|host| !host.is_empty())
            .ok_or_else(|| Error::config(format!("bus_uri names no host: write {scheme}://HOST:PORT")))?;
        if !matches!(url.path(), "" | "/") {
            return Err(Error::config(format!("bus_uri has a path: write {scheme}://HOST:PORT")));
        }
        let mut places = vec![format!("{host}:{}", url.port().unwrap_or(4222))];
        places.extend(get("servers").into_iter().flat_map(|list| list.split(',')).map(str::to_owned));
        let servers = places.iter().map(|place| server(scheme, place)).collect::<Result<_>>()?;
        let prefix = get("inbox_prefix").unwrap_or("_INBOX").to_owned();
        if !is_prefix(&prefix) {
            return Err(Error::config(format!(
                "bus_uri has inbox_prefix={prefix:?}: write _INBOX or _INBOX_NAME, the name of letters, digits, '_' and \
                 '-'"
            )));
        }
        let connect = credentials(uri, ConnectOptions::new(), &get)?;
        let connect = tls(scheme, connect, &get)?;
        Ok(Self { connect, servers, place: format!("NATS at {}", places.join(", ")), prefix, demand })
    }
}

/// One server of the list, `HOST` or `HOST:PORT`.
fn server(scheme: &str, place: &str) -> Result<ServerAddr> {
    let wrong = || Error::config(format!("bus_uri's servers has {place:?}: write HOST:PORT,HOST:PORT"));
    // A user here would be a secret in every message.
    if place.is_empty() || place.contains(['@', '/', '?', '#', ' ']) {
        return Err(Error::config(
            "bus_uri's servers has an entry that is not HOST:PORT: users stand before the host",
        ));
    }
    format!("{scheme}://{place}").parse().map_err(|_| wrong())
}

fn credentials<'a>(
    uri: &BusUri,
    mut connect: ConnectOptions,
    get: &impl Fn(&str) -> Option<&'a str>,
) -> Result<ConnectOptions> {
    let url = uri.expose();
    let user = BusUri::decoded(url.username(), "user")?;
    let mut ways = 0;
    match (url.password(), get("password_file")) {
        (Some(_), Some(_)) => {
            return Err(Error::config("bus_uri has a password and a password_file: give one"));
        }
        (Some(password), None) => {
            connect = connect.user_and_password(user, BusUri::decoded(password, "password")?);
            ways += 1;
        }
        (None, Some(path)) => {
            let password = secret("password_file", path)?;
            connect = if user.is_empty() {
                connect.token(password)
            } else {
                connect.user_and_password(user, password)
            };
            ways += 1;
        }
        (None, None) if !user.is_empty() => {
            connect = connect.token(user);
            ways += 1;
        }
        (None, None) => {}
    }
    if let Some(path) = get("nkey_file") {
        connect = connect.nkey(secret("nkey_file", path)?);
        ways += 1;
    }
    if let Some(path) = get("creds_file") {
        connect = connect
            .credentials(&secret("creds_file", path)?)
            // The library's own text may quote what it was given.
            .map_err(|_| Error::config("the file of bus_uri's creds_file holds no NATS credentials"))?;
        ways += 1;
    }
    if ways > 1 {
        return Err(Error::config(
            "bus_uri says in more than one way who to be: give one of user, token, nkey_file and creds_file",
        ));
    }
    Ok(connect)
}

fn tls<'a>(
    scheme: &str,
    mut connect: ConnectOptions,
    get: &impl Fn(&str) -> Option<&'a str>,
) -> Result<ConnectOptions> {
    // Whichever provider the program has chosen already stays.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let file = |name: &str| {
        let path = get(name)?;
        Some(pem(name, path).map(|()| PathBuf::from(path)))
    };
    let (ca, cert, key) =
        (file("ca_file").transpose()?, file("cert_file").transpose()?, file("key_file").transpose()?);
    if scheme != "tls" && (ca.is_some() || cert.is_some() || key.is_some()) {
        return Err(Error::config(
            "bus_uri has options for TLS: write tls:// so that nothing is sent without it",
        ));
    }
    if let Some(ca) = ca {
        connect = connect.add_root_certificates(ca);
    }
    match (cert, key) {
        (Some(cert), Some(key)) => connect = connect.add_client_certificate(cert, key),
        (None, None) => {}
        _ => return Err(Error::config("bus_uri has one of cert_file and key_file: give both or none")),
    }
    Ok(connect.require_tls(scheme == "tls"))
}

/// Whether `path` holds a certificate or a key in PEM. It is read again with every connection.
fn pem(option: &str, path: &str) -> Result<()> {
    let text = fs::read(path).map_err(|e| unreadable(option, path, &e))?;
    let begin: &[u8] = if option == "key_file" { b"-----BEGIN " } else { b"-----BEGIN CERTIFICATE-----" };
    if !text.windows(begin.len()).any(|bytes| bytes == begin) {
        return Err(Error::config(format!("the file of bus_uri's {option} cannot be used: it must be PEM")));
    }
    Ok(())
}

fn secret(option: &str, path: &str) -> Result<String> {
    let text = fs::read_to_string(Path::new(path)).map_err(|e| unreadable(option, path, &e))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

fn unreadable(option: &str, path: &str, error: &std::io::Error) -> Error {
    Error::config(format!("bus_uri's {option} {path:?} cannot be read: {}", error.kind()))
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options").field("place", &self.place).field("demand", &self.demand).finish()
    }
}
