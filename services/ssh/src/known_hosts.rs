//! The file of known hosts, in OpenSSH's form: plain, hashed, with patterns and markers.
//!
//! The form is that of `sshd(8)`, section SSH_KNOWN_HOSTS FILE FORMAT.

use std::path::Path;

use commissaire::{Error, Result};
use ring::hmac;
use russh::keys::{
    PublicKey,
    ssh_key::known_hosts::{Entry, HostPatterns, KnownHosts, Marker},
};

/// What is known of hosts beforehand.
#[derive(Debug, Default)]
pub(crate) struct Known(Vec<Entry>);

/// What the file says of one host.
#[derive(Debug, Default)]
pub(crate) struct Said<'a> {
    /// Its keys.
    pub(crate) keys: Vec<&'a PublicKey>,
    /// Who may sign its keys.
    pub(crate) authorities: Vec<&'a PublicKey>,
    /// Keys that are never taken.
    pub(crate) revoked: Vec<&'a PublicKey>,
}

impl Known {
    /// The file. A line that cannot be read is an error that names it: a key that is silently left out would be pinned
    /// anew.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let shown = path.display();
        let text = std::fs::read_to_string(path)
            .map_err(|e| Error::config(format!("ssh.known_hosts {shown} cannot be read: {e}")))?;
        let mut entries = Vec::new();
        for (at, line) in text.lines().enumerate() {
            for entry in KnownHosts::new(line) {
                entries.push(entry.map_err(|e| {
                    Error::config(format!("{shown}:{}: is no line of known hosts: {e}", at + 1))
                })?);
            }
        }
        Ok(Self(entries))
    }

    /// What it says of `host` on `port`.
    pub(crate) fn of(&self, host: &str, port: u16) -> Said<'_> {
        let name = host.to_ascii_lowercase();
        let name = if port == 22 { name } else { format!("[{name}]:{port}") };
        let mut said = Said::default();
        for entry in self.0.iter().filter(|entry| matches(entry.host_patterns(), &name)) {
            match entry.marker() {
                None => said.keys.push(entry.public_key()),
                Some(Marker::CertAuthority) => said.authorities.push(entry.public_key()),
                Some(Marker::Revoked) => said.revoked.push(entry.public_key()),
            }
        }
        said
    }
}

fn matches(patterns: &HostPatterns, name: &str) -> bool {
    match patterns {
        HostPatterns::HashedName { salt, hash } => {
            let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, salt);
            hmac::verify(&key, name.as_bytes(), hash).is_ok()
        }
        HostPatterns::Patterns(patterns) => {
            let mut found = false;
            for pattern in patterns {
                let pattern = pattern.to_ascii_lowercase();
                match pattern.strip_prefix('!') {
                    Some(not) if covers(not.as_bytes(), name.as_bytes()) => return false,
                    Some(_) => {}
                    None => found |= covers(pattern.as_bytes(), name.as_bytes()),
                }
            }
            found
        }
    }
}

/// Whether the pattern, in which `*` is anything and `?` one character, is `name`.
pub(crate) fn covers(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern.split_first(), name.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => {
            covers(rest, name) || name.split_first().is_some_and(|(_, name)| covers(pattern, name))
        }
        (Some((b'?', rest)), Some((_, name))) => covers(rest, name),
        (Some((a, rest)), Some((b, name))) => a == b && covers(rest, name),
        _ => false,
    }
}
