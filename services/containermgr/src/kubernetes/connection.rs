//! The connection to an API server: made of files and secrets that may be replaced at any time.

use std::{
    fs,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use kube::{
    Client, Config, Error,
    config::{KubeConfigOptions, KubeconfigError},
};
use tokio::time::timeout;

use super::{ANSWER, fault, refusal};
use crate::{
    fault::Fault,
    options::{Options, wrong},
};

/// How long it may take to connect.
const CONNECT: Duration = Duration::from_secs(5);

/// What is asked goes through a client, which is made anew when a file that it was made of has changed, and when the server
/// does not know it any more.
#[derive(Debug)]
pub(super) struct Connection {
    name: String,
    options: Options,
    made: Mutex<Option<Made>>,
}

#[derive(Clone)]
struct Made {
    client: Client,
    of: Vec<(PathBuf, Option<SystemTime>)>,
}

impl Connection {
    pub(super) fn new(name: &str, options: Options) -> Self {
        if options.insecure_skip_tls_verify {
            tracing::warn!(
                container_manager = name,
                "insecure_skip_tls_verify: whoever stands in the way can take its token, and its nodes"
            );
        }
        Self { name: name.to_owned(), options, made: Mutex::new(None) }
    }

    /// Asks once; a second time where the server does not know us, for what we are known by may have been replaced.
    pub(super) async fn ask<T, F>(&self, ask: impl Fn(Client) -> F) -> Result<T, Fault>
    where
        F: Future<Output = kube::Result<T>>,
    {
        let client = self.client(false).await?;
        match answer(ask(client)).await {
            Err(Asked::Unknown) => {
                tracing::debug!(
                    container_manager = self.name,
                    "it does not know us: credentials are read again"
                );
                let again = self.client(true).await?;
                answer(ask(again)).await.map_err(Asked::fault)
            }
            answer => answer.map_err(Asked::fault),
        }
    }

    /// The client; `anew`: whatever there is.
    async fn client(&self, anew: bool) -> Result<Client, Fault> {
        let of: Vec<_> = self.options.files().map(|path| (path.to_owned(), changed(path))).collect();
        let known = self.lock().clone().filter(|made| !anew && made.of == of);
        if let Some(made) = known {
            return Ok(made.client);
        }
        let client = self.connect().await?;
        *self.lock() = Some(Made { client: client.clone(), of });
        Ok(client)
    }

    async fn connect(&self) -> Result<Client, Fault> {
        let kubeconfig = self.options.as_kubeconfig()?;
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
        let mut config = config.map_err(|error| unusable(&error))?;
        // It would wait for minutes where a pod may not leave yet.
        config.default_retry = false;
        config.connect_timeout = Some(CONNECT);
        (config.read_timeout, config.write_timeout) = (Some(ANSWER), Some(ANSWER));
        config.reset_reader_on_write = true;
        Client::try_from(config).map_err(|error| fault(&error))
    }

    fn lock(&self) -> MutexGuard<'_, Option<Made>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What comes of asking, in time.
async fn answer<T>(asked: impl Future<Output = kube::Result<T>>) -> Result<T, Asked> {
    match timeout(ANSWER + CONNECT, asked).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(Error::Api(status))) if status.code == 401 => Err(Asked::Unknown),
        Ok(Err(error)) => Err(Asked::Fault(fault(&error))),
        Err(_) => Err(Asked::Fault(refusal::silent())),
    }
}

/// How asking went wrong.
enum Asked {
    /// The server does not know who we are.
    Unknown,
    Fault(Fault),
}

impl Asked {
    fn fault(self) -> Fault {
        match self {
            Self::Unknown => refusal::unknown(),
            Self::Fault(fault) => fault,
        }
    }
}

/// When a file was changed last; `None`: it is not there.
fn changed(path: &std::path::Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|about| about.modified()).ok()
}

/// Why options cannot be used. Of some errors the text may quote what was given, or what is in a file.
fn unusable(error: &KubeconfigError) -> Fault {
    match error {
        KubeconfigError::LoadClientCertificate(_)
        | KubeconfigError::LoadClientKey(_)
        | KubeconfigError::LoadCertificateAuthority(_)
        | KubeconfigError::CurrentContextNotSet
        | KubeconfigError::MissingClusterUrl => wrong(refusal::chain(error)),
        _ => wrong("the kubeconfig cannot be used: is its current context whole?".to_owned()),
    }
}

impl std::fmt::Debug for Made {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Made").field("of", &self.of).finish_non_exhaustive()
    }
}
