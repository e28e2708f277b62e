//! Sealing: what a secret record looks like on the disk.

use std::fmt;

use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use zeroize::Zeroizing;

/// The first byte of what is sealed this way.
const XCHACHA20_POLY1305: u8 = 1;
const NONCE: usize = 24;

/// Encrypts secret records with the master key. What is sealed for one record opens for no other.
pub(super) struct Sealer(XChaCha20Poly1305);

impl Sealer {
    /// With this master key.
    pub(super) fn new(key: &[u8; 32]) -> Self {
        Self(XChaCha20Poly1305::new(key.into()))
    }

    /// `plain` sealed for the record `key` of `model`: a byte for the way, the nonce, the ciphertext with its tag.
    /// `None` when the system gives no random numbers.
    pub(super) fn seal(&self, model: &str, key: &str, plain: &[u8]) -> Option<Vec<u8>> {
        let mut nonce = [0; NONCE];
        getrandom::fill(&mut nonce).ok()?;
        let bound = bound(model, key);
        let sealed =
            self.0.encrypt(&XNonce::from(nonce), Payload { msg: plain, aad: bound.as_bytes() }).ok()?;
        let mut out = Vec::with_capacity(1 + NONCE + sealed.len());
        out.push(XCHACHA20_POLY1305);
        out.extend(nonce);
        out.extend(sealed);
        Some(out)
    }

    /// What [`seal`](Self::seal) sealed for the same record; `None` for anything else.
    pub(super) fn open(&self, model: &str, key: &str, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (way, rest) = sealed.split_first()?;
        let (nonce, ciphertext) = rest.split_first_chunk::<NONCE>()?;
        if *way != XCHACHA20_POLY1305 {
            return None;
        }
        let bound = bound(model, key);
        let opened =
            self.0.decrypt(&XNonce::from(*nonce), Payload { msg: ciphertext, aad: bound.as_bytes() }).ok()?;
        Some(Zeroizing::new(opened))
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealer")
    }
}

/// What binds a sealed record to its place. Neither part can hold a slash.
fn bound(model: &str, key: &str) -> String {
    format!("{model}/{key}")
}
