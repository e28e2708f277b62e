//! With what one logs in: a private key that lives in memory only, perhaps with a certificate, or an agent's keys.

use std::{fmt, path::Path, sync::Arc};

use base64ct::{Base64, Encoding};
use russh::keys::{Certificate, PrivateKey, decode_secret_key};
use zeroize::Zeroizing;

use crate::failure::{Failure, FailureKind};

/// With what one logs in.
#[derive(Clone)]
pub struct Credentials(pub(crate) Way);

#[derive(Clone)]
pub(crate) enum Way {
    /// A private key, and the certificate over its public half.
    Key(Arc<PrivateKey>, Option<Box<Certificate>>),
    /// The keys that the configured agent holds.
    Agent,
}

impl Credentials {
    /// The key in a record's `ssh_priv_key`: base64 of a private key as `ssh-keygen` writes it (OpenSSH, PKCS#1, PKCS#8),
    /// without a passphrase. Lines of a certificate over it (`…-cert-v01@openssh.com AAAA…`) may follow it. An empty text
    /// is the agent.
    pub fn of_record(address: &str, ssh_priv_key: &str) -> Result<Self, Failure> {
        if ssh_priv_key.is_empty() {
            return Ok(Self(Way::Agent));
        }
        let unsound = |what: &str| {
            let text = format!("the credentials of {address} hold no SSH key that can be used: {what}");
            Failure::new(FailureKind::Authentication, text)
        };
        let packed = Zeroizing::new(
            ssh_priv_key.chars().filter(|letter| !letter.is_ascii_whitespace()).collect::<String>(),
        );
        let bytes = Base64::decode_vec(&packed)
            .map_err(|_| unsound("ssh_priv_key is not base64 (`base64 -w0 KEYFILE` makes it)"))?;
        let bytes = Zeroizing::new(bytes);
        let text = str::from_utf8(&bytes).map_err(|_| unsound("it is not text"))?;
        Self::of_text(text).map_err(unsound)
    }

    /// The key in a file, and the certificate in `FILE-cert.pub` if that is there.
    pub fn of_file(path: &Path) -> Result<Self, Failure> {
        let unusable = |what: String| {
            let text = format!("the key file {} cannot be used: {what}", path.display());
            Failure::new(FailureKind::Authentication, text)
        };
        Self::of_text(&file_text(path).map_err(|e| unusable(e.to_string()))?)
            .map_err(|what| unusable(what.to_owned()))
    }

    fn of_text(text: &str) -> Result<Self, &'static str> {
        let end = text.rfind("-----END ").ok_or("it has no END line")?;
        let end = text[end..].find('\n').map_or(text.len(), |line| end + line);
        let (key, rest) = text.split_at(end);
        // The library's errors may tell what they read.
        let key = decode_secret_key(key, None).map_err(|error| match error {
            russh::keys::Error::KeyIsEncrypted => "it has a passphrase: give one without",
            _ => "it is none that is understood (OpenSSH, PKCS#1, PKCS#8)",
        })?;
        let certificate = rest.lines().map(str::trim).find(|line| !line.is_empty());
        let certificate = certificate
            .map(|line| Certificate::from_openssh(line).map_err(|_| "what follows it is no certificate"))
            .transpose()?;
        if certificate
            .as_ref()
            .is_some_and(|certificate| certificate.public_key() != key.public_key().key_data())
        {
            return Err("the certificate that follows it is over another key");
        }
        Ok(Self(Way::Key(Arc::new(key), certificate.map(Box::new))))
    }
}

/// What a key file holds, with the certificate in `FILE-cert.pub` behind it if that is there: what
/// [`Credentials::of_record`] takes as base64.
pub fn file_text(path: &Path) -> std::io::Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(std::fs::read_to_string(path)?);
    let mut beside = path.as_os_str().to_owned();
    beside.push("-cert.pub");
    match std::fs::read_to_string(&beside) {
        Ok(certificate) => {
            text.push('\n');
            text.push_str(&certificate);
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(text)
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Way::Key(_, None) => "Credentials(key)",
            Way::Key(_, Some(_)) => "Credentials(key with certificate)",
            Way::Agent => "Credentials(agent)",
        })
    }
}
