//! Whether the host that answers is the one that is meant.

use std::{
    borrow::Cow,
    time::{SystemTime, UNIX_EPOCH},
};

use commissaire::{Error, Result};
use russh::{
    Preferred,
    keys::{
        Algorithm, Certificate, HashAlg, PublicKey, PublicKeyOrCertificate, ssh_key::certificate::CertType,
    },
};

use crate::{
    failure::{Failure, FailureKind},
    known_hosts::{Known, covers},
    options::{HostKeys, SshOptions},
};

/// Which host keys are taken.
#[derive(Debug)]
pub(crate) struct Trust {
    policy: HostKeys,
    known: Known,
}

/// What is known of one host.
#[derive(Debug, Clone)]
pub(crate) struct Expected {
    address: String,
    name: String,
    policy: HostKeys,
    /// Whether the keys are those of the file.
    is_written: bool,
    keys: Vec<PublicKey>,
    authorities: Vec<PublicKey>,
    revoked: Vec<PublicKey>,
}

impl Trust {
    pub(crate) fn new(options: &SshOptions) -> Result<Self> {
        let known = options.known_hosts.as_deref().map(Known::read).transpose()?.unwrap_or_default();
        Ok(Self { policy: options.host_keys, known })
    }

    /// What is known of `host`, with the keys that were pinned for it, as lines of OpenSSH's.
    pub(crate) fn of(
        &self,
        address: &str,
        host: &str,
        port: u16,
        pinned: &[String],
    ) -> Result<Expected, Failure> {
        let said = self.known.of(host, port);
        let owned = |keys: Vec<&PublicKey>| keys.into_iter().cloned().collect::<Vec<_>>();
        let mut keys = owned(said.keys);
        let is_written = !keys.is_empty();
        // What an operator has written down wins over what was once seen, and an authority is to say who is who.
        if keys.is_empty() && self.policy != HostKeys::Ca {
            let read = |line: &String| {
                PublicKey::from_openssh(line).map_err(|_| {
                    let text = format!("the host key that is stored for {address} is none: {line:?}");
                    Failure::new(FailureKind::HostKey, text)
                })
            };
            keys = pinned.iter().map(read).collect::<Result<_, _>>()?;
        }
        Ok(Expected {
            address: address.to_owned(),
            name: host.to_owned(),
            policy: self.policy,
            is_written,
            keys,
            authorities: owned(said.authorities),
            revoked: owned(said.revoked),
        })
    }
}

impl Expected {
    /// A host that must be known, with this key beside those of the file.
    pub(crate) fn strictly(mut self, key: Option<&str>) -> Result<Self> {
        self.policy = HostKeys::Strict;
        if let Some(line) = key {
            let key = PublicKey::from_openssh(line);
            self.keys.push(key.map_err(|e| {
                Error::config(format!(
                    "ssh.jump: the host_key of {} is no line of OpenSSH's: {e}",
                    self.address
                ))
            })?);
        }
        Ok(self)
    }

    /// What to ask the host for: a key of a kind that is known, so that another kind which it has as well is not taken
    /// for a change.
    pub(crate) fn preferred(&self) -> Preferred {
        let mut key = Preferred::DEFAULT.key.to_vec();
        let is_known =
            |algorithm: &Algorithm| self.keys.iter().any(|known| is_same_kind(&known.algorithm(), algorithm));
        key.sort_by_key(|algorithm| !is_known(algorithm));
        let host_key_certificates =
            if self.authorities.is_empty() { Cow::Borrowed(&[][..]) } else { Cow::Owned(key.clone()) };
        Preferred { key: Cow::Owned(key), host_key_certificates, ..Preferred::DEFAULT }
    }

    /// Whether `offered` is taken; its key, as a line of OpenSSH's, if it was not known and is to be pinned.
    pub(crate) fn check(&self, offered: &PublicKeyOrCertificate) -> Result<Option<String>, Failure> {
        let key = offered.public_key();
        let shown = key.fingerprint(HashAlg::Sha256);
        let refuse = |text: String| Err(Failure::new(FailureKind::HostKey, text));
        let is = |known: &PublicKey| known.key_data() == key.key_data();
        let address = &self.address;
        if self.revoked.iter().any(is) {
            return refuse(format!(
                "{address} shows host key {shown}, which ssh.known_hosts says is revoked"
            ));
        }
        if let Some(certificate) = offered.certificate() {
            return match self.certified(certificate) {
                Ok(()) => Ok(None),
                Err(_) if self.keys.iter().any(is) => Ok(None),
                Err(why) => refuse(format!("{address} shows a host certificate that is not good: {why}")),
            };
        }
        if self.keys.iter().any(is) {
            return Ok(None);
        }
        if let Some(known) = self.keys.first() {
            let known = known.fingerprint(HashAlg::Sha256);
            let then = if self.is_written {
                "ssh.known_hosts must say so".to_owned()
            } else {
                format!("`commissaire host trust {address}` takes the new key")
            };
            return refuse(format!(
                "the host key of {address} has changed: it was {known} and is {shown}. Either the host was installed anew (then \
                 {then}), or somebody else answers in its place"
            ));
        }
        if !self.authorities.is_empty() {
            return refuse(format!(
                "{address} shows host key {shown} without a certificate, and ssh.known_hosts names an authority for it"
            ));
        }
        match self.policy {
            HostKeys::Pin => key.to_openssh().map(Some).map_err(|_| {
                Failure::new(
                    FailureKind::HostKey,
                    format!("the host key of {address} cannot be written down"),
                )
            }),
            HostKeys::Strict => refuse(format!(
                "the host key of {address}, {shown}, is not known: add it to ssh.known_hosts, or give it with `commissaire host \
                 add --host-key`"
            )),
            HostKeys::Ca => refuse(format!(
                "{address} shows host key {shown} without a certificate: ssh.host_keys is \"ca\""
            )),
        }
    }

    fn certified(&self, certificate: &Certificate) -> Result<(), String> {
        if certificate.cert_type() != CertType::Host {
            return Err("it is one of a user".to_owned());
        }
        let authorities: Vec<_> =
            self.authorities.iter().map(|key| key.fingerprint(HashAlg::Sha256)).collect();
        let authority = certificate.signature_key().fingerprint(HashAlg::Sha256);
        if !authorities.contains(&authority) {
            return Err(format!("no @cert-authority line of ssh.known_hosts is of its signer, {authority}"));
        }
        let revoked = |known: &PublicKey| known.key_data() == certificate.signature_key();
        if self.revoked.iter().any(revoked) {
            return Err(format!("its signer, {authority}, is revoked"));
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        if now < certificate.valid_after() || now >= certificate.valid_before() {
            return Err("it is not valid at this time".to_owned());
        }
        certificate.validate_at(now, &authorities).map_err(|_| "its signature is wrong".to_owned())?;
        if !certificate.critical_options().is_empty() {
            return Err("it has options that are not understood".to_owned());
        }
        let principals = certificate.valid_principals();
        if !principals.iter().any(|principal| covers(principal.as_bytes(), self.name.as_bytes())) {
            return Err(format!("it is for {}, not for {}", principals.join(", "), self.name));
        }
        Ok(())
    }
}

/// A host key as it is kept, in a line of OpenSSH's or of a file of known hosts.
pub fn host_key(line: &str) -> std::result::Result<String, String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let from =
        words.iter().position(|word| word.starts_with("ssh-") || word.starts_with("ecdsa-")).unwrap_or(0);
    let key = words[from..].iter().take(2).copied().collect::<Vec<_>>().join(" ");
    PublicKey::from_openssh(&key).map_err(|_| "it is none: `ssh-ed25519 AAAA…` is one".to_owned())?;
    Ok(key)
}

/// Whether keys of both are of one kind; of RSA there are several ways to sign.
fn is_same_kind(a: &Algorithm, b: &Algorithm) -> bool {
    a == b || matches!((a, b), (Algorithm::Rsa { .. }, Algorithm::Rsa { .. }))
}
