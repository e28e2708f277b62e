//! Keys: made once, kept in files, one half shown.

use std::{
    fmt,
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
    str::FromStr,
};

use base64ct::{Base64, Encoding};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::error::{Error, Result};

/// How the line in a key file begins.
const MARK: &str = "commissaire-secret-key-1 ";
/// The most bytes that a key file is read for.
const MOST: u64 = 4096;

/// The secret half of an Ed25519 key. It never shows itself, and is wiped from memory at its end.
#[derive(Clone)]
pub struct SecretKey(SigningKey);

/// The half that others know: 32 bytes, as text in Base64.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

impl SecretKey {
    /// A new key, from the random numbers of the operating system.
    pub fn generate() -> Result<Self> {
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *seed)
            .map_err(|e| Error::unavailable("the system gives no random numbers for a key").because(e))?;
        Ok(Self(SigningKey::from_bytes(&seed)))
    }

    /// Reads a key file. It must be a file that only its owner can read or write.
    pub fn load(path: &Path) -> Result<Self> {
        let failed = |e: io::Error| {
            Error::config(format!("cannot read the key file {}: {e}", path.display())).because(e)
        };
        let file = File::open(path).map_err(failed)?;
        let meta = file.metadata().map_err(failed)?;
        if !meta.is_file() || meta.mode() & 0o077 != 0 {
            return Err(Error::config(format!(
                "key file {} must be a file that only its owner can read (its mode is {:04o}): chmod 600 it, and make a \
                 new key if others could read it",
                path.display(),
                meta.mode() & 0o7777
            )));
        }
        let mut text = Zeroizing::new(String::with_capacity(MOST as usize));
        file.take(MOST).read_to_string(&mut text).map_err(failed)?;
        Self::read(&text).ok_or_else(|| {
            let what = "is no key file: make one with `commissaire key new FILE`";
            Error::config(format!("{} {what}", path.display()))
        })
    }

    /// Writes a key file of mode 0600. A file that is there is never overwritten.
    pub fn save(&self, path: &Path) -> Result<()> {
        let failed = |e: io::Error| {
            Error::config(format!("cannot write the key file {}: {e}", path.display())).because(e)
        };
        let mut seed = Zeroizing::new([0; 64]);
        let seed = Base64::encode(self.0.as_bytes(), &mut *seed)
            .map_err(|e| Error::malformed("the key cannot be written").because(e))?;
        let line = Zeroizing::new(format!("{MARK}{seed}\n"));
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
        let written = file.write_all(line.as_bytes()).and_then(|()| file.sync_all());
        written.inspect_err(|_| drop(std::fs::remove_file(path))).map_err(failed)
    }

    /// The half that others know.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    /// A secret of this key's own for `purpose`: always the same, and telling nothing of the key or of other purposes.
    pub fn derive(&self, purpose: &str) -> Zeroizing<[u8; 32]> {
        let hash = Sha256::new().chain_update("commissaire derived 1 ").chain_update(purpose);
        Zeroizing::new(hash.chain_update(self.0.as_bytes()).finalize().into())
    }

    pub(super) fn sign(&self, bytes: &[u8]) -> [u8; 64] {
        self.0.sign(bytes).to_bytes()
    }

    pub(super) fn read(text: &str) -> Option<Self> {
        let mut seed = Zeroizing::new([0; 32]);
        let text = text.trim_end().strip_prefix(MARK)?;
        (Base64::decode(text, &mut *seed).ok()?.len() == 32).then(|| Self(SigningKey::from_bytes(&seed)))
    }
}

impl PublicKey {
    /// Whether `signature` over `bytes` was made with the secret half.
    pub(super) fn verifies(&self, bytes: &[u8], signature: &[u8; 64]) -> bool {
        self.0.verify_strict(bytes, &Signature::from_bytes(signature)).is_ok()
    }
}

impl FromStr for PublicKey {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut bytes = [0; 32];
        let decoded = Base64::decode(text.trim(), &mut bytes).is_ok_and(|decoded| decoded.len() == 32);
        let key = decoded.then(|| VerifyingKey::from_bytes(&bytes).ok()).flatten();
        key.filter(|key| !key.is_weak()).map(Self).ok_or_else(|| {
            let what = "a public key is 44 characters of Base64, as `commissaire key show FILE` prints it";
            Error::config(what)
        })
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&Base64::encode_string(self.0.as_bytes()))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}
