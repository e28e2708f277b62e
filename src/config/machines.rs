//! How to reach an etcd.

use std::{env, fmt, fs, time::Duration};

use etcd_client::{Certificate, ConnectOptions, Identity, TlsOptions};
use url::Url;

use crate::error::{Error, Result};

/// After this a machine that is silent is asked for a sign of life (etcd forbids less than 5 s).
const SILENCE: Duration = Duration::from_secs(10);
/// Within this it must give it.
const SIGN: Duration = Duration::from_secs(5);

/// The machines of one etcd, and how to speak to them. `Debug` shows no password.
#[derive(Clone)]
pub struct EtcdMachines {
    urls: Vec<String>,
    user: Option<(String, String)>,
    tls: Option<Tls>,
    names: &'static EtcdNames,
}

/// The files that TLS takes. Read whenever a connection is made: certificates are replaced while programs run.
#[derive(Clone)]
struct Tls {
    authority: Option<String>,
    certificate: Option<(String, String)>,
}

/// What the settings of [`EtcdMachines`] are called where they are set, for errors.
#[derive(Debug)]
pub struct EtcdNames {
    /// URLs, with commas between.
    pub machines: &'static str,
    /// The file of a client certificate.
    pub certificate: &'static str,
    /// The file of its key.
    pub key: &'static str,
    /// The file of the authorities that etcd's certificate may come from; the system's without.
    pub authority: &'static str,
    /// A user.
    pub username: &'static str,
    /// Its password.
    pub password: &'static str,
}

static VARIABLES: EtcdNames = EtcdNames {
    machines: "ETCD_MACHINES",
    certificate: "ETCD_TLSPEM",
    key: "ETCD_TLSKEY",
    authority: "ETCD_CACERT",
    username: "ETCD_USERNAME",
    password: "ETCD_PASSWORD",
};

impl EtcdMachines {
    /// Those that the environment names: `ETCD_MACHINES` (URLs with commas between), `ETCD_TLSPEM` and `ETCD_TLSKEY` (a
    /// client certificate and its key), `ETCD_CACERT`, `ETCD_USERNAME` and `ETCD_PASSWORD`.
    pub fn from_env() -> Result<Option<Self>> {
        let variable = |name: &str| {
            Some(env::var_os(name)?.to_string_lossy().into_owned()).filter(|text| !text.is_empty())
        };
        if variable(VARIABLES.machines).is_none() {
            return Ok(None);
        }
        Self::new(&VARIABLES, variable).map(Some)
    }

    /// Those that `setting` names by `names`. Everything that can be seen to be wrong without asking them is an error.
    pub fn new(names: &'static EtcdNames, setting: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let machines = setting(names.machines).unwrap_or_default();
        let urls = machines.split(',').map(str::trim).filter(|url| !url.is_empty());
        let urls = urls.map(|url| names.url(url)).collect::<Result<Vec<_>>>()?;
        if urls.is_empty() {
            return Err(Error::config(format!("{}: names no machine", names.machines)));
        }
        let both = |one: &str, other: &str| match (setting(one), setting(other)) {
            (Some(one), Some(other)) => Ok(Some((one, other))),
            (None, None) => Ok(None),
            (Some(_), None) => Err(Error::config(format!("{one} is set, but {other} is not"))),
            (None, Some(_)) => Err(Error::config(format!("{other} is set, but {one} is not"))),
        };
        let user = both(names.username, names.password)?;
        let certificate = both(names.certificate, names.key)?;
        let authority = setting(names.authority);
        let secure = urls.iter().filter(|url| url.starts_with("https:")).count();
        if secure > 0 && secure < urls.len() {
            return Err(Error::config(format!("{}: either all URLs are https, or none is", names.machines)));
        }
        if secure == 0 && (certificate.is_some() || authority.is_some()) {
            let given = if certificate.is_some() { names.certificate } else { names.authority };
            return Err(Error::config(format!("{given} is set, but no URL of {} is https", names.machines)));
        }
        let tls = (secure > 0).then_some(Tls { authority, certificate });
        let machines = Self { urls, user, tls, names };
        machines.options(Duration::ZERO)?;
        Ok(machines)
    }

    /// Their URLs.
    pub fn urls(&self) -> &[String] {
        &self.urls
    }

    /// How to connect to them, waiting for at most `connect`. Reads the files that TLS takes.
    pub fn options(&self, connect: Duration) -> Result<ConnectOptions> {
        let options = ConnectOptions::new()
            .with_keep_alive(SILENCE, SIGN)
            .with_connect_timeout(connect)
            .with_require_leader(true);
        let options = match &self.user {
            Some((name, password)) => options.with_user(name, password).with_auto_token_refresh(true),
            None => options,
        };
        let Some(Tls { authority, certificate }) = &self.tls else { return Ok(options) };
        let names = self.names;
        let tls = match authority {
            Some(path) => TlsOptions::new().ca_certificate(Certificate::from_pem(pem(
                names.authority,
                path,
                "CERTIFICATE-----",
            )?)),
            None => TlsOptions::new().with_native_roots(),
        };
        let tls = match certificate {
            Some((certificate, key)) => {
                let certificate = pem(names.certificate, certificate, "CERTIFICATE-----")?;
                tls.identity(Identity::from_pem(certificate, pem(names.key, key, "PRIVATE KEY-----")?))
            }
            None => tls,
        };
        Ok(options.with_tls(tls))
    }

    /// What `error` says, down to its cause.
    pub fn told(error: &etcd_client::Error) -> String {
        let mut text = match error {
            // Its own words are debris.
            etcd_client::Error::GRpcStatus(status) => status.message().to_owned(),
            error => error.to_string(),
        };
        let mut cause: Option<&dyn std::error::Error> = match error {
            etcd_client::Error::GRpcStatus(status) => std::error::Error::source(status),
            etcd_client::Error::TransportError(error) => std::error::Error::source(error),
            _ => None,
        };
        while let Some(error) = cause {
            let more = error.to_string();
            if !text.contains(&more) {
                text = format!("{text}: {more}");
            }
            cause = error.source();
        }
        text
    }
}

impl EtcdNames {
    /// One URL.
    fn url(&self, text: &str) -> Result<String> {
        let url =
            Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        let Some(url) = url else {
            return Err(Error::config(format!(
                "{}: must be URLs such as http://127.0.0.1:2379, with commas between",
                self.machines
            )));
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Error::config(format!(
                "{}: a URL names a user; put who is asking into {} and {}",
                self.machines, self.username, self.password
            )));
        }
        // As it was read: in small letters, and with a port only where it is not the usual one.
        Ok(url.as_str().trim_end_matches('/').to_owned())
    }
}

/// The file at `path`, which holds a block that begins with `what`.
fn pem(variable: &str, path: &str, what: &str) -> Result<String> {
    let text = fs::read_to_string(path)
        .map_err(|e| Error::config(format!("{variable}: cannot read {path}: {e}")).because(e))?;
    if text.contains("-----BEGIN ") && text.contains(what) {
        return Ok(text);
    }
    let what = what.trim_end_matches('-').to_lowercase();
    Err(Error::config(format!("{variable}: {path} holds no {what} in PEM")))
}

impl fmt::Debug for EtcdMachines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdMachines").field("urls", &self.urls).finish_non_exhaustive()
    }
}
