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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        address::{Address, Key},
        message::MessageId,
    };

    fn message() -> Message {
        let id = MessageId(uuid::Uuid::from_u128(7));
        let address = Address::Service(Key::new("calc.add").unwrap());
        Message::with_id(id, address, "{}").unwrap().with(header::ACTOR, "anna").unwrap()
    }

    fn key() -> SecretKey {
        SecretKey::read("commissaire-secret-key-1 AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=").unwrap()
    }

    /// Programs of different releases share a bus: what is signed may not change.
    #[test]
    fn the_bytes_are_these() {
        let bytes = covered("bus", &message(), 258, Some(3));
        let mut expected = b"commissaire message, version 1\0\0\0\0\x03bus\0\0\0\x04anna".to_vec();
        expected.extend(b"\0\0\0\x2400000000-0000-0000-0000-000000000007");
        expected.extend(b"\0\0\0\x07service\0\0\0\x08calc.add\xff\xff\xff\xff\xff\xff\xff\xff");
        expected.extend(b"\0\0\0\x08\0\0\0\0\0\0\x01\x02\0\0\0\x08\0\0\0\0\0\0\0\x03\0\0\0\x20");
        expected.extend(Sha256::digest("{}"));
        assert_eq!(bytes, expected);
        let header = Signed::make(&key(), "bus", &message(), 258).to_header();
        assert_eq!(header, GOLDEN);
        let public = key().public();
        assert!(Signed::parse(GOLDEN).unwrap().is_of(&[public], "bus", &message()));
    }

    /// As OpenSSL signs the same bytes with the same key.
    const GOLDEN: &str =
        "1 258 - H+EaLjbXnMny2FxeFxzRt38Zi1lef+LiMoG8Zfh7i/zXz3x4YloBKP8l3DNFWz0yT6MdagGBN3+SxDykxPLIDg==";

    #[test]
    fn absent_and_empty_and_neighbouring_fields_are_told_apart() {
        let bytes = |message: &Message, exchange| covered(exchange, message, 1, None);
        let with = |name, value: &str| message().with(name, value).unwrap();
        let all = [
            bytes(&message(), "bus"),
            bytes(&message(), "busa"),
            bytes(&with(header::ACTOR, "aanna"), "bus"),
            bytes(&with(header::REPLY, ""), "bus"),
            bytes(&with(header::CORRELATION, ""), "bus"),
            bytes(&with(header::REPLY, "a"), "bus"),
            bytes(&with(header::CORRELATION, "a"), "bus"),
            covered("bus", &message(), 1, Some(0)),
            covered("bus", &message(), 0, Some(1)),
        ];
        let different: std::collections::HashSet<_> = all.iter().collect();
        assert_eq!(different.len(), all.len());
    }
}
