//! What a `bus_uri` of these schemes may say.

use commissaire::{BusUri, Result};
use commissaire_redis_link::address::{Address, Way};

const COMMON: &[&str] = &["durability"];
const UNIX: &[&str] = &["durability", "db", "user", "password_file"];
const TLS: &[&str] = &["durability", "ca_file", "cert_file", "key_file"];

/// Reads `uri`; every part of it is used or refused.
pub(crate) fn read(uri: &BusUri) -> Result<Address> {
    let (way, known) = match uri.scheme() {
        "redis+unix" => (Way::Socket, UNIX),
        "rediss" => (Way::Tls, TLS),
        _ => (Way::Tcp, COMMON),
    };
    Address::read(uri, way, &uri.options(known)?)
}
