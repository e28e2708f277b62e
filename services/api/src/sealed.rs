//! Secret records on the bus: sealed, so that nobody who reads the bus, or the files of its broker, reads them.
//!
//! HPKE ([RFC 9180](https://www.rfc-editor.org/rfc/rfc9180)) in base mode, of X25519, HKDF-SHA256 and
//! ChaCha20-Poly1305. What is saved is sealed to the key of the storage service, which `storage.store` tells; what is
//! answered, to a key that the caller has made for this one call. What is sealed for one method, model and moment opens
//! for no other. Whoever can *write* the bus could give out a key of his own: against that calls are signed.

use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64ct::{Base64, Encoding};
use hpke::{
    Deserializable, Kem, OpModeR, OpModeS, Serializable, aead::ChaCha20Poly1305, kdf::HkdfSha256,
    kem::X25519HkdfSha256, single_shot_open, single_shot_seal,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::model::Model;

/// How long what is sealed may be on its way.
const LONGEST: Duration = Duration::from_secs(60);
/// How far the clocks of two machines may be apart.
const SKEW: Duration = Duration::from_secs(300);
const KEY: usize = 32;

/// The key of one who opens. `Debug` shows nothing of it.
pub struct SealKey {
    private: <X25519HkdfSha256 as Kem>::PrivateKey,
    public: PublicSealKey,
}

/// The key of one to whom is sealed. As JSON it is base64.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicSealKey([u8; KEY]);

/// Something sealed, in the place of a record or of a list of them. `Debug` shows its size only.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sealed {
    /// What it is, in base64: the encapsulated key and the ciphertext.
    pub sealed: String,
    /// The beginning of the hash of the key that opens it.
    pub key_id: String,
    /// Until when it can be opened, in seconds since 1970; of an archive 0.
    pub until: u64,
}

/// What something is sealed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To be saved.
    Save,
    /// To be read by who asked.
    Answer,
    /// To be kept in a file, for as long as that may be.
    Archive,
}

/// Why something cannot be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unopened {
    /// It is for another key.
    OtherKey,
    /// It is too old, or the clocks are too far apart.
    Expired,
    /// It is not what was sealed, or not for this.
    Broken,
}

impl SealKey {
    /// A new one.
    pub fn random() -> Self {
        let (private, public) = X25519HkdfSha256::gen_keypair();
        Self::new(private, &public)
    }

    /// The one that belongs to this secret: always the same. Has as much entropy as the secret.
    pub fn of(secret: &[u8]) -> Self {
        let seed = Zeroizing::new(<[u8; KEY]>::from(
            Sha256::new().chain_update("commissaire seal key 1").chain_update(secret).finalize(),
        ));
        let (private, public) = X25519HkdfSha256::derive_keypair(&*seed);
        Self::new(private, &public)
    }

    fn new(
        private: <X25519HkdfSha256 as Kem>::PrivateKey,
        public: &<X25519HkdfSha256 as Kem>::PublicKey,
    ) -> Self {
        let mut bytes = [0; KEY];
        public.write_exact(&mut bytes);
        Self { private, public: PublicSealKey(bytes) }
    }

    /// To be given to those who seal.
    pub fn public(&self) -> &PublicSealKey {
        &self.public
    }

    /// What was sealed for `purpose` and a record, or records, of `model`.
    pub fn open(
        &self,
        purpose: Purpose,
        model: &Model,
        sealed: &Sealed,
    ) -> Result<Zeroizing<Vec<u8>>, Unopened> {
        if sealed.key_id != self.public.id() {
            return Err(Unopened::OtherKey);
        }
        let bytes = Base64::decode_vec(&sealed.sealed).map_err(|_| Unopened::Broken)?;
        let (key, ciphertext) = bytes.split_at_checked(KEY).ok_or(Unopened::Broken)?;
        let key = <X25519HkdfSha256 as Kem>::EncappedKey::from_bytes(key).map_err(|_| Unopened::Broken)?;
        let about = about(purpose, model, sealed.until);
        let opened = single_shot_open::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
            &OpModeR::Base,
            &self.private,
            &key,
            about.as_bytes(),
            ciphertext,
            b"",
        );
        let opened = Zeroizing::new(opened.map_err(|_| Unopened::Broken)?);
        // Only what is genuine is worth to be told about its age.
        let now = now();
        let latest = now + (LONGEST + SKEW).as_secs();
        if purpose == Purpose::Archive {
            return Ok(opened);
        }
        if sealed.until.saturating_add(SKEW.as_secs()) < now || sealed.until > latest {
            return Err(Unopened::Expired);
        }
        Ok(opened)
    }
}

impl PublicSealKey {
    /// `plain` sealed for `purpose`; it is a record, or records, of `model`.
    pub fn seal(&self, purpose: Purpose, model: &Model, plain: &[u8]) -> Option<Sealed> {
        let until = match purpose {
            Purpose::Archive => 0,
            Purpose::Save | Purpose::Answer => now() + LONGEST.as_secs(),
        };
        let about = about(purpose, model, until);
        let key = <X25519HkdfSha256 as Kem>::PublicKey::from_bytes(&self.0).ok()?;
        let (key, ciphertext) = single_shot_seal::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
            &OpModeS::Base,
            &key,
            about.as_bytes(),
            plain,
            b"",
        )
        .ok()?;
        let bytes = [&*key.to_bytes(), &ciphertext].concat();
        Some(Sealed { sealed: Base64::encode_string(&bytes), key_id: self.id(), until })
    }

    /// The beginning of its hash.
    fn id(&self) -> String {
        Sha256::digest(self.0)[..8].iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// What is bound to what is sealed.
fn about(purpose: Purpose, model: &Model, until: u64) -> String {
    let purpose = match purpose {
        Purpose::Save => "save",
        Purpose::Answer => "answer",
        Purpose::Archive => "archive",
    };
    format!("commissaire 1 storage {purpose} {} {until}", model.name)
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

impl fmt::Display for PublicSealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from(self.clone()))
    }
}

impl TryFrom<String> for PublicSealKey {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let mut bytes = [0; KEY];
        match Base64::decode(&text, &mut bytes) {
            Ok(decoded) if decoded.len() == KEY => Ok(Self(bytes)),
            _ => Err("a key to seal to has 32 bytes in base64"),
        }
    }
}

impl From<PublicSealKey> for String {
    fn from(key: PublicSealKey) -> Self {
        Base64::encode_string(&key.0)
    }
}

impl fmt::Display for Unopened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OtherKey => "it is sealed to another key: ask for that of the service anew",
            Self::Expired => "it was sealed too long ago: are the clocks of the machines right?",
            Self::Broken => "it cannot be opened: it was sealed for something else, or was changed",
        })
    }
}

impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealKey({})", self.public.id())
    }
}

impl fmt::Debug for PublicSealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicSealKey({})", self.id())
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealed({} bytes for {})", self.sealed.len(), self.key_id)
    }
}
