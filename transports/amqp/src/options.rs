//! A `bus_uri` as what to connect to and what to ask of it.

use std::{collections::BTreeMap, fs, sync::Arc, sync::atomic::AtomicUsize};

use commissaire::{BusUri, Error, Result};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

use crate::wire::{Dialer, Login};

const PLAIN: &[&str] = &["durability", "nodes", "password_file"];
const TLS: &[&str] = &["durability", "nodes", "password_file", "ca_file", "cert_file", "key_file"];

/// What a `bus_uri` says.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) dialer: Dialer,
    /// Where the broker is, for messages: never a secret.
    pub(crate) place: String,
}

impl Options {
    /// Reads `uri`; every part of it is used or refused. `name` is what to be called in the broker's list.
    pub(crate) fn read(uri: &BusUri, name: &str) -> Result<Self> {
        let secure = uri.scheme() == "amqps";
        let options = uri.options(if secure { TLS } else { PLAIN })?;
        // Every broker that is taken gives the most.
        uri.demanded()?;
        let url = uri.expose();
        let usual = if secure { 5671 } else { 5672 };
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or_else(|| {
            Error::config(format!("bus_uri names no host: write {}://HOST:PORT/VHOST", uri.scheme()))
        })?;
        let mut nodes = vec![(bare(host), url.port().unwrap_or(usual))];
        for node in options.get("nodes").into_iter().flat_map(|nodes| nodes.split(',')) {
            nodes.push(read_node(node, usual)?);
        }
        let place = nodes.iter().map(|(host, port)| format!("{host}:{port}")).collect::<Vec<_>>().join(", ");
        let tls = if secure { Some(Arc::new(tls(&options)?)) } else { None };
        let dialer = Dialer {
            login: login(uri, &options)?,
            nodes,
            tls,
            vhost: vhost(url.path())?,
            name: name.chars().filter(|c| !c.is_control()).take(64).collect(),
            next: AtomicUsize::new(0),
            brokers: Default::default(),
        };
        Ok(Self { dialer, place: format!("rabbitmq at {place}") })
    }
}

fn bare(host: &str) -> String {
    host.trim_start_matches('[').trim_end_matches(']').to_owned()
}

fn read_node(text: &str, usual: u16) -> Result<(String, u16)> {
    // Not shown: it may be anything that was misplaced.
    let wrong = || Error::config("bus_uri's nodes cannot be read: write nodes=HOST:PORT,HOST:PORT");
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().map_err(|_| wrong())?),
        _ => (text, usual),
    };
    if host.is_empty() || host.contains(['@', '/']) {
        return Err(wrong());
    }
    Ok((bare(host), port))
}

/// No path, or `/`, is the virtual host `/`, as everybody expects.
fn vhost(path: &str) -> Result<String> {
    let path = path.strip_prefix('/').unwrap_or(path);
    if path.contains('/') {
        return Err(Error::config(format!(
            "bus_uri's path {path:?} is no virtual host: write '/' in it as %2F"
        )));
    }
    let vhost = BusUri::decoded(path, "path")?;
    if vhost.len() > 255 {
        return Err(Error::config("bus_uri's path is longer than a virtual host can be"));
    }
    Ok(if vhost.is_empty() { "/".to_owned() } else { vhost })
}

fn login(uri: &BusUri, options: &BTreeMap<String, String>) -> Result<Login> {
    let url = uri.expose();
    if url.username().is_empty() && options.contains_key("cert_file") {
        if options.contains_key("password_file") {
            return Err(Error::config("bus_uri has password_file and no user: write amqps://USER@HOST"));
        }
        return Ok(Login::External);
    }
    let password = match (url.password(), options.get("password_file")) {
        (Some(_), Some(_)) => {
            return Err(Error::config("bus_uri has a password and password_file: give one"));
        }
        (Some(password), None) => BusUri::decoded(password, "password")?,
        (None, Some(path)) => {
            let text = String::from_utf8(read_file("password_file", path)?)
                .map_err(|_| Error::config("the file of bus_uri's password_file is not UTF-8"))?;
            text.trim_end_matches(['\r', '\n']).to_owned()
        }
        // Everybody's default, good on the broker's own machine only.
        (None, None) => "guest".to_owned(),
    };
    let user = match url.username() {
        "" => "guest".to_owned(),
        user => BusUri::decoded(user, "user")?,
    };
    Ok(Login::Plain { user, password })
}

/// TLS that verifies the broker's certificate, against `ca_file` or the system's authorities.
fn tls(options: &BTreeMap<String, String>) -> Result<ClientConfig> {
    let unusable = |option: &str| {
        Error::config(format!("the file of bus_uri's {option} cannot be used: it must be PEM"))
    };
    let certificates = |option: &str, path: &str| -> Result<Vec<CertificateDer<'static>>> {
        let pem = read_file(option, path)?;
        let found: Vec<_> =
            CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().map_err(|_| unusable(option))?;
        if found.is_empty() { Err(unusable(option)) } else { Ok(found) }
    };
    let mut roots = RootCertStore::empty();
    match options.get("ca_file") {
        Some(path) => {
            for certificate in certificates("ca_file", path)? {
                roots.add(certificate).map_err(|_| unusable("ca_file"))?;
            }
        }
        // One that cannot be read is one that is not trusted.
        None => drop(roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|_| Error::config("TLS cannot be used in this build"))?
        .with_root_certificates(roots);
    match (options.get("cert_file"), options.get("key_file")) {
        (None, None) => Ok(config.with_no_client_auth()),
        (Some(cert), Some(key)) => {
            let chain = certificates("cert_file", cert)?;
            let key = PrivateKeyDer::from_pem_slice(&read_file("key_file", key)?)
                .map_err(|_| unusable("key_file"))?;
            config
                .with_client_auth_cert(chain, key)
                .map_err(|_| Error::config("bus_uri's cert_file and key_file do not belong together"))
        }
        _ => Err(Error::config("bus_uri has one of cert_file and key_file: give both or none")),
    }
}

fn read_file(option: &str, path: &str) -> Result<Vec<u8>> {
    fs::read(path)
        .map_err(|e| Error::config(format!("bus_uri's {option} {path:?} cannot be read: {}", e.kind())))
}
