//! What a signature covers, and the header that carries it.
//!
//! The header is `1 TIME TTL SIGNATURE`: the version, milliseconds since 1970, milliseconds or `-`, and Base64. The
//! signature is over [`MARK`] and then, each with its length before it, the exchange, the sender's name, the id, the kind
//! and the name of the address, where the reply goes, the correlation, time, TTL, and the SHA-256 of the body. A header
//! is covered as the text that it is, and one that is not there is another thing than an empty one, so no two messages
//! have the same bytes.

use base64ct::{Base64, Encoding};
use sha2::{Digest, Sha256};

use super::{PublicKey, SecretKey};
use crate::message::{Message, header};

/// Keeps these signatures apart from all that the same key may sign elsewhere.
const MARK: &[u8] = b"commissaire message, version 1\0";

/// A signature as it travels.
pub(super) struct Signed {
    /// When it was made, in milliseconds since 1970.
    pub(super) time: u64,
    /// The time to live that the message was sent with, in milliseconds. The header may hold less on arrival.
    pub(super) ttl: Option<u64>,
    signature: [u8; 64],
}

impl Signed {
    /// Signs `message`, which names its sender already.
    pub(super) fn make(key: &SecretKey, exchange: &str, message: &Message, time: u64) -> Self {
        let ttl = ttl_of(message);
        Self { time, ttl, signature: key.sign(&covered(exchange, message, time, ttl)) }
    }

    /// Whether one of `keys` signed `message` in this way.
    pub(super) fn is_of(&self, keys: &[PublicKey], exchange: &str, message: &Message) -> bool {
        // A transport shortens the time to live; nobody may make it longer.
        let shortened = self.ttl.is_none_or(|most| ttl_of(message).is_some_and(|ttl| ttl <= most));
        let bytes = covered(exchange, message, self.time, self.ttl);
        shortened && keys.iter().any(|key| key.verifies(&bytes, &self.signature))
    }

    /// As a header.
    pub(super) fn to_header(&self) -> String {
        let ttl = self.ttl.map_or_else(|| "-".to_owned(), |ttl| ttl.to_string());
        format!("1 {} {ttl} {}", self.time, Base64::encode_string(&self.signature))
    }

    /// Reads a header; what is not one is `None`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(' ');
        let (version, time, ttl) = (parts.next()?, parts.next()?, parts.next()?);
        let mut signature = [0; 64];
        let length = Base64::decode(parts.next()?, &mut signature).ok()?.len();
        if version != "1" || length != 64 || parts.next().is_some() {
            return None;
        }
        let ttl = if ttl == "-" { None } else { Some(ttl.parse().ok()?) };
        Some(Self { time: time.parse().ok()?, ttl, signature })
    }
}

fn ttl_of(message: &Message) -> Option<u64> {
    message.headers().get(header::TTL).and_then(|text| text.parse().ok())
}

fn covered(exchange: &str, message: &Message, time: u64, ttl: Option<u64>) -> Vec<u8> {
    let (headers, address) = (message.headers(), message.address());
    let name = address.name();
    let time = time.to_be_bytes();
    let ttl = ttl.map(u64::to_be_bytes);
    let body = Sha256::digest(message.body());
    let text = |name| headers.get(name).map(str::as_bytes);
    let fields = [
        Some(exchange.as_bytes()),
        text(header::ACTOR),
        text(header::ID),
        Some(address.kind().as_bytes()),
        Some(name.as_bytes()),
        text(header::REPLY),
        text(header::CORRELATION),
        Some(&time[..]),
        ttl.as_ref().map(|ttl| &ttl[..]),
        Some(&body[..]),
    ];
    let mut bytes = Vec::with_capacity(512);
    bytes.extend(MARK);
    for field in fields {
        match field {
            Some(field) => {
                bytes.extend((field.len() as u32).to_be_bytes());
                bytes.extend(field);
            }
            None => bytes.extend(u32::MAX.to_be_bytes()),
        }
    }
    bytes
}
