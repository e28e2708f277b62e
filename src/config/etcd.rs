//! An etcd key as a layer.

use std::{
    env, fmt, fs,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use etcd_client::{Certificate, Client, ConnectOptions, GetResponse, Identity, TlsOptions, WatchOptions};
use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use url::Url;

use super::{Place, json, layer::Layer};
use crate::error::{Error, Result};

/// Within this all machines together must have answered.
const ANSWER: Duration = Duration::from_secs(4);
/// A machine that has not answered within this is not waited for alone.
const NEXT: Duration = Duration::from_millis(800);
/// After this a machine that is silent is asked for a sign of life (etcd forbids less than 5 s).
const SILENCE: Duration = Duration::from_secs(10);
/// Within this it must give it.
const SIGN: Duration = Duration::from_secs(5);
/// How long to wait before a lost watch is taken up again; each time it is lost at once twice as long, up to the second.
const AGAIN: Duration = Duration::from_millis(250);
const SLOWLY: Duration = Duration::from_secs(5);
/// After how many failures in a row that is told.
const TOLD: u32 = 3;

/// The key of one program in etcd, `/commissaire/config/NAME`, and how to reach it: `ETCD_MACHINES` (URLs with commas
/// between, of which the first that answers is used), `ETCD_TLSPEM` and `ETCD_TLSKEY` (a client certificate and its key),
/// `ETCD_CACERT`, `ETCD_USERNAME` and `ETCD_PASSWORD`. `Debug` shows no password.
#[derive(Clone)]
pub struct EtcdKey {
    key: String,
    machines: Vec<String>,
    user: Option<(String, String)>,
    tls: Option<Tls>,
    required: bool,
    /// What it held when it was last read.
    known: Arc<Mutex<Option<Read>>>,
}

/// The files that TLS takes, with the variables that name them. Read whenever a connection is made: certificates are
/// replaced while programs run.
#[derive(Clone)]
struct Tls {
    authority: Option<String>,
    certificate: Option<(String, String)>,
}

/// What a key holds.
#[derive(Clone, PartialEq, Eq)]
struct Read {
    /// Its text, if there is the key, with its revision.
    text: Option<(Vec<u8>, i64)>,
    /// The revision of the store when it was read.
    at: i64,
}

impl EtcdKey {
    /// The key of the program `name`, if `ETCD_MACHINES` says where etcd is. With `required` it must be there and be read.
    pub fn from_env(name: &str, required: bool) -> Result<Option<Self>> {
        let variable = |name: &str| {
            Some(env::var_os(name)?.to_string_lossy().into_owned()).filter(|text| !text.is_empty())
        };
        let Some(machines) = variable("ETCD_MACHINES") else {
            if required {
                return Err(Error::config("--require-etcd: ETCD_MACHINES does not say where etcd is"));
            }
            return Ok(None);
        };
        let machines = machines.split(',').map(str::trim).filter(|machine| !machine.is_empty()).map(machine);
        let machines = machines.collect::<Result<Vec<_>>>()?;
        if machines.is_empty() {
            return Err(Error::config("ETCD_MACHINES: names no machine"));
        }
        let both = |one: &str, other: &str| match (variable(one), variable(other)) {
            (Some(one), Some(other)) => Ok(Some((one, other))),
            (None, None) => Ok(None),
            (Some(_), None) => Err(Error::config(format!("{one} is set, but {other} is not"))),
            (None, Some(_)) => Err(Error::config(format!("{other} is set, but {one} is not"))),
        };
        let user = both("ETCD_USERNAME", "ETCD_PASSWORD")?;
        let certificate = both("ETCD_TLSPEM", "ETCD_TLSKEY")?;
        let authority = variable("ETCD_CACERT");
        let secure = machines.iter().filter(|machine| machine.starts_with("https:")).count();
        if secure > 0 && secure < machines.len() {
            return Err(Error::config("ETCD_MACHINES: either all URLs are https, or none is"));
        }
        if secure == 0 && (certificate.is_some() || authority.is_some()) {
            let variable = if certificate.is_some() { "ETCD_TLSPEM" } else { "ETCD_CACERT" };
            return Err(Error::config(format!("{variable} is set, but no URL of ETCD_MACHINES is https")));
        }
        let tls = (secure > 0).then_some(Tls { authority, certificate });
        let key = format!("/commissaire/config/{name}");
        let key = Self { key, machines, user, tls, required, known: Arc::default() };
        key.options()?;
        Ok(Some(key))
    }

    fn options(&self) -> Result<ConnectOptions> {
        let options = ConnectOptions::new()
            .with_keep_alive(SILENCE, SIGN)
            .with_connect_timeout(ANSWER)
            .with_require_leader(true);
        let options = match &self.user {
            Some((name, password)) => options.with_user(name, password),
            None => options,
        };
        let Some(Tls { authority, certificate }) = &self.tls else { return Ok(options) };
        let tls = match authority {
            Some(path) => TlsOptions::new().ca_certificate(Certificate::from_pem(pem(
                "ETCD_CACERT",
                path,
                "CERTIFICATE-----",
            )?)),
            None => TlsOptions::new().with_native_roots(),
        };
        let tls = match certificate {
            Some((certificate, key)) => {
                let certificate = pem("ETCD_TLSPEM", certificate, "CERTIFICATE-----")?;
                tls.identity(Identity::from_pem(certificate, pem("ETCD_TLSKEY", key, "PRIVATE KEY-----")?))
            }
            None => tls,
        };
        Ok(options.with_tls(tls))
    }

    /// What it sets. Where it cannot be read, that is a warning, and what it set before stays; where it must be read, it
    /// is an error. So is what holds no object, but for the first time.
    pub(super) async fn read(&self) -> Result<Option<Layer>> {
        let first = self.known().is_none();
        match self.get().await {
            Ok((_, read)) => *self.known() = Some(read),
            Err(why) if self.required => {
                return Err(Error::config(format!(
                    "etcd cannot be read, and --require-etcd was said: {why}"
                )));
            }
            Err(why) => {
                let then =
                    if first { "the other layers are used without it" } else { "what it said last holds" };
                tracing::warn!("etcd cannot be read: {why}; {then}");
            }
        }
        let Some(known) = self.known().clone() else { return Ok(None) };
        let why = match known.text {
            None => format!("etcd has no key {}", self.key),
            Some((text, revision)) => match self.layer(&text, revision) {
                Ok(layer) => return Ok(Some(layer)),
                // Somebody is about to change it: what holds now is not to be lost.
                Err(why) if !first => return Err(Error::config(why)),
                Err(why) => why,
            },
        };
        if self.required {
            return Err(Error::config(format!("{why}, and --require-etcd was said")));
        }
        tracing::warn!("{why}: the other layers are used without it");
        Ok(None)
    }

    fn layer(&self, text: &[u8], revision: i64) -> Result<Layer, String> {
        let name = format!("etcd:{}@{revision}", self.key);
        let text = str::from_utf8(text).map_err(|_| format!("{name} is no UTF-8"))?;
        let place = |line, column| Place::Etcd { key: self.key.clone(), revision, line, column };
        json::parse(&name, text, place).map_err(|e| e.to_string())
    }

    /// Returns when it holds something else than was read last, as far as etcd tells: at once where nothing was read yet.
    pub(crate) async fn changed(&self) {
        let (mut pause, mut failures) = (AGAIN, 0);
        loop {
            let began = Instant::now();
            match self.get().await {
                Ok((client, read)) => {
                    if failures >= TOLD {
                        tracing::info!(key = self.key, "etcd can be read again");
                    }
                    failures = 0;
                    let same = self.known().as_ref().is_some_and(|known| known.text == read.text);
                    if !same || self.watch(client, read.at).await {
                        return;
                    }
                }
                Err(why) => {
                    failures += 1;
                    if failures == TOLD {
                        tracing::warn!(
                            "etcd cannot be read: {why}; a change there is noticed when it can again"
                        );
                    }
                }
            }
            pause = if began.elapsed() > SILENCE { AGAIN } else { (pause * 2).min(SLOWLY) };
            sleep(pause).await;
        }
    }

    /// Whether it was written after the revision `at`; else etcd told no more.
    async fn watch(&self, mut client: Client, at: i64) -> bool {
        let from = WatchOptions::new().with_start_revision(at + 1);
        let Ok(mut watch) = client.watch(self.key.as_str(), Some(from)).await else { return false };
        loop {
            match watch.message().await {
                Ok(Some(told)) if told.canceled() => return false,
                Ok(Some(told)) if !told.events().is_empty() => return true,
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => return false,
            }
        }
    }

    /// What the first machine that answers says.
    async fn get(&self) -> Result<(Client, Read), String> {
        let end = Instant::now() + ANSWER;
        let step = NEXT.min(ANSWER / 2 / u32::try_from(self.machines.len()).unwrap_or(u32::MAX));
        let mut rest = self.machines.iter();
        let mut asked = FuturesUnordered::new();
        let mut failed = Vec::new();
        loop {
            asked.extend(rest.next().map(|machine| self.ask(machine, end)));
            let next = if rest.len() > 0 { Instant::now() + step } else { end + ANSWER };
            tokio::select! {
                answer = asked.next() => match answer {
                    Some(Ok(answer)) => return Ok(answer),
                    Some(Err(why)) => failed.push(why),
                    None => return Err(failed.join("; ")),
                },
                () = sleep_until(next) => {}
            }
        }
    }

    async fn ask(&self, machine: &str, end: Instant) -> Result<(Client, Read), String> {
        let options = self.options().map_err(|error| error.to_string())?;
        let answer = timeout_at(end, async {
            let mut client = Client::connect([machine], Some(options)).await?;
            let answer = client.get(self.key.as_str(), None).await?;
            Ok::<_, etcd_client::Error>((client, Read::from(&answer)))
        });
        match answer.await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(format!("{machine}: {}", told(&error))),
            Err(_) => Err(format!("{machine}: no answer within {} s", ANSWER.as_secs())),
        }
    }

    fn known(&self) -> MutexGuard<'_, Option<Read>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl From<&GetResponse> for Read {
    fn from(answer: &GetResponse) -> Self {
        let text = answer.kvs().first().map(|pair| (pair.value().to_vec(), pair.mod_revision()));
        Self { text, at: answer.header().map_or(0, etcd_client::ResponseHeader::revision) }
    }
}

/// One URL of `ETCD_MACHINES`.
fn machine(text: &str) -> Result<String> {
    let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    let Some(url) = url else {
        return Err(Error::config(
            "ETCD_MACHINES: must be URLs such as http://127.0.0.1:2379, with commas between",
        ));
    };
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Error::config(
            "ETCD_MACHINES: a URL names a user; put who is asking into ETCD_USERNAME and ETCD_PASSWORD",
        ));
    }
    // As it was read: in small letters, and with a port only where it is not the usual one.
    Ok(url.as_str().trim_end_matches('/').to_owned())
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

/// What `error` says, down to its cause.
fn told(error: &etcd_client::Error) -> String {
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

impl fmt::Debug for EtcdKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdKey")
            .field("key", &self.key)
            .field("machines", &self.machines)
            .finish_non_exhaustive()
    }
}
