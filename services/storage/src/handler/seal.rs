//! Sealing: what a secret record looks like on the disk.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use commissaire::{Error, Result};
use commissaire_api::sealed::SealKey;
use zeroize::Zeroizing;

use super::master_key;

/// The first byte of what is sealed this way.
const XCHACHA20_POLY1305: u8 = 1;
const NONCE: usize = 24;

/// What the key of a place is sealed for when it is wrapped. No record has an empty model.
const WRAPPED: (&str, &str) = ("", "key");

/// Encrypts the secret records of one place. What is sealed for one record opens for no other.
pub struct Sealer {
    cipher: XChaCha20Poly1305,
    key: Zeroizing<[u8; 32]>,
    wrapped: Vec<u8>,
    dir: PathBuf,
}

impl Sealer {
    /// With `key`, which is wrapped by `master`, the master key in `dir`.
    pub(super) fn new(dir: &Path, key: Zeroizing<[u8; 32]>, master: &[u8; 32]) -> Result<Self> {
        let wrapped = wrap(&key, master)?;
        Ok(Self { cipher: XChaCha20Poly1305::new((&*key).into()), key, wrapped, dir: dir.to_owned() })
    }

    /// With the key that `master`, the master key in `dir`, has wrapped; `None` if another has.
    pub(super) fn unwrap(dir: &Path, wrapped: &[u8], master: &[u8; 32]) -> Option<Self> {
        let opened = open(&XChaCha20Poly1305::new(master.into()), WRAPPED.0, WRAPPED.1, wrapped)?;
        let key = Zeroizing::new(<[u8; 32]>::try_from(opened.as_slice()).ok()?);
        let cipher = XChaCha20Poly1305::new((&*key).into());
        Some(Self { cipher, key, wrapped: wrapped.to_owned(), dir: dir.to_owned() })
    }

    /// The key as it was wrapped when this was opened.
    pub(super) fn wrapped(&self) -> &[u8] {
        &self.wrapped
    }

    /// The key wrapped by the master key that is to be.
    pub(super) fn wrapped_by_next(&self) -> Result<Vec<u8>> {
        wrap(&self.key, &*master_key::next(&self.dir)?)
    }

    /// The folder of the master key.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What is sealed on the bus to the services of this place is opened with it.
    pub fn bus_key(&self) -> SealKey {
        SealKey::of(&*self.key)
    }

    /// `plain` sealed for the record `key` of `model`: a byte for the way, the nonce, the ciphertext with its tag.
    /// `None` when the system gives no random numbers.
    pub(super) fn seal(&self, model: &str, key: &str, plain: &[u8]) -> Option<Vec<u8>> {
        seal(&self.cipher, model, key, plain)
    }

    /// What [`seal`](Self::seal) sealed for the same record; `None` for anything else.
    pub(super) fn open(&self, model: &str, key: &str, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        open(&self.cipher, model, key, sealed)
    }
}

fn wrap(key: &[u8; 32], master: &[u8; 32]) -> Result<Vec<u8>> {
    let wrapped = seal(&XChaCha20Poly1305::new(master.into()), WRAPPED.0, WRAPPED.1, key);
    wrapped.ok_or_else(|| Error::config("the system gives no random numbers"))
}

fn seal(cipher: &XChaCha20Poly1305, model: &str, key: &str, plain: &[u8]) -> Option<Vec<u8>> {
    let mut nonce = [0; NONCE];
    getrandom::fill(&mut nonce).ok()?;
    let bound = bound(model, key);
    let sealed = cipher.encrypt(&XNonce::from(nonce), Payload { msg: plain, aad: bound.as_bytes() }).ok()?;
    let mut out = Vec::with_capacity(1 + NONCE + sealed.len());
    out.push(XCHACHA20_POLY1305);
    out.extend(nonce);
    out.extend(sealed);
    Some(out)
}

fn open(cipher: &XChaCha20Poly1305, model: &str, key: &str, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (way, rest) = sealed.split_first()?;
    let (nonce, ciphertext) = rest.split_first_chunk::<NONCE>()?;
    if *way != XCHACHA20_POLY1305 {
        return None;
    }
    let bound = bound(model, key);
    let opened = cipher.decrypt(&XNonce::from(*nonce), Payload { msg: ciphertext, aad: bound.as_bytes() });
    opened.ok().map(Zeroizing::new)
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer").field("dir", &self.dir).finish_non_exhaustive()
    }
}

/// What binds a sealed record to its place. Neither part can hold a slash.
fn bound(model: &str, key: &str) -> String {
    format!("{model}/{key}")
}
