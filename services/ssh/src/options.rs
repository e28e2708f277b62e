//! The member `ssh` of the services that log in to hosts.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

/// How hosts are reached. The same members for every service that logs in to hosts.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SshOptions {
    /// The port of hosts whose address names none.
    pub port: u16,
    /// Which host keys are taken.
    pub host_keys: HostKeys,
    /// A file of known hosts in OpenSSH's form. What it says of a host holds under every policy, and so do its
    /// `@cert-authority` and `@revoked` lines.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub known_hosts: Option<PathBuf>,
    /// The socket of an agent whose keys are tried for hosts without a key of their own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<PathBuf>,
    /// The hosts on the way, in their order, to hosts that are not reached directly.
    pub jump: Vec<Jump>,
    /// A file that only its owner can read with the password that sudo asks for, where it asks for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sudo_password_path: Option<PathBuf>,
    /// How long a host may take to take a connection, and then to say who it is, in seconds.
    pub connect_seconds: u64,
    /// How long it may take to let us in, in seconds.
    pub authenticate_seconds: u64,
    /// How many hosts there are connections to at one time.
    pub connections: usize,
    /// How many of them in one network: a /24 of IPv4, a /64 of IPv6, one domain of names.
    pub connections_per_network: usize,
}

/// Which host keys are taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HostKeys {
    /// The first one that a host shows, and from then on no other.
    #[default]
    Pin,
    /// Those that are known beforehand.
    Strict,
    /// Those that an authority has signed.
    Ca,
}

/// A host on the way to others.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Jump {
    /// Its address, with a port where that is not 22.
    pub address: String,
    /// Whom to log in as.
    #[serde(default = "root")]
    pub user: String,
    /// The file of the private key; without one the agent's keys are tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_path: Option<PathBuf>,
    /// Its key as a line of OpenSSH's, where it is not in the file of known hosts. A jump host must be known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_key: Option<String>,
}

impl Default for SshOptions {
    fn default() -> Self {
        Self {
            port: 22,
            host_keys: HostKeys::Pin,
            known_hosts: None,
            agent: None,
            jump: Vec::new(),
            sudo_password_path: None,
            connect_seconds: 10,
            authenticate_seconds: 20,
            connections: 128,
            connections_per_network: 64,
        }
    }
}

impl SshOptions {
    pub(crate) fn connect_limit(&self) -> Duration {
        Duration::from_secs(self.connect_seconds.max(1))
    }

    pub(crate) fn authenticate_limit(&self) -> Duration {
        Duration::from_secs(self.authenticate_seconds.max(1))
    }

    /// The host and the port in `address`: `host`, `host:port`, `[2001:db8::1]:port`, `2001:db8::1`.
    pub(crate) fn host_and_port<'a>(&self, address: &'a str) -> (&'a str, u16) {
        if address.parse::<IpAddr>().is_ok() {
            return (address, self.port);
        }
        if let Some(inner) = address.strip_prefix('[')
            && let Some((host, rest)) = inner.split_once(']')
        {
            return (host, rest.strip_prefix(':').and_then(|port| port.parse().ok()).unwrap_or(self.port));
        }
        match address.rsplit_once(':').map(|(host, port)| (host, port.parse())) {
            Some((host, Ok(port))) => (host, port),
            _ => (address, self.port),
        }
    }
}

fn root() -> String {
    "root".to_owned()
}
