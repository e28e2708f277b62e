//! An etcd key as a layer.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use etcd_client::{Client, GetResponse, WatchOptions};
use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::{EtcdMachines, Place, json, layer::Layer};
use crate::error::{Error, Result};

/// Within this all machines together must have answered.
const ANSWER: Duration = Duration::from_secs(4);
/// A machine that has not answered within this is not waited for alone.
const NEXT: Duration = Duration::from_millis(800);
/// A watch that lasted so long was no failure.
const LASTED: Duration = Duration::from_secs(10);
/// How long to wait before a lost watch is taken up again; each time it is lost at once twice as long, up to the second.
const AGAIN: Duration = Duration::from_millis(250);
const SLOWLY: Duration = Duration::from_secs(5);
/// After how many failures in a row that is told.
const TOLD: u32 = 3;

/// The key of one program in etcd, `/commissaire/config/NAME`, and the machines that have it, of which the first that
/// answers is used.
#[derive(Debug, Clone)]
pub struct EtcdKey {
    key: String,
    machines: EtcdMachines,
    required: bool,
    /// What it held when it was last read.
    known: Arc<Mutex<Option<Read>>>,
}

/// What a key holds.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Read {
    /// Its text, if there is the key, with its revision.
    text: Option<(Vec<u8>, i64)>,
    /// The revision of the store when it was read.
    at: i64,
}

impl EtcdKey {
    /// The key of the program `name`, if `ETCD_MACHINES` says where etcd is. With `required` it must be there and be read.
    pub fn from_env(name: &str, required: bool) -> Result<Option<Self>> {
        let Some(machines) = EtcdMachines::from_env()? else {
            if required {
                return Err(Error::config("--require-etcd: ETCD_MACHINES does not say where etcd is"));
            }
            return Ok(None);
        };
        Ok(Some(Self {
            key: format!("/commissaire/config/{name}"),
            machines,
            required,
            known: Arc::default(),
        }))
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
            pause = if began.elapsed() > LASTED { AGAIN } else { (pause * 2).min(SLOWLY) };
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
        let urls = self.machines.urls();
        let step = NEXT.min(ANSWER / 2 / u32::try_from(urls.len()).unwrap_or(u32::MAX));
        let mut rest = urls.iter();
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
        let options = self.machines.options(ANSWER).map_err(|error| error.to_string())?;
        let answer = timeout_at(end, async {
            let mut client = Client::connect([machine], Some(options)).await?;
            let answer = client.get(self.key.as_str(), None).await?;
            Ok::<_, etcd_client::Error>((client, Read::from(&answer)))
        });
        match answer.await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(format!("{machine}: {}", EtcdMachines::told(&error))),
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
