//! The connection: to the first machine that answers, made anew when it is lost, with every failure in words.

use std::{
    fmt,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use commissaire::config::EtcdMachines;
use etcd_client::{Client, Error as EtcdError};
use tokio::time::{Instant, timeout, timeout_at};

use crate::handler::StoreError;

/// Within this etcd must have answered.
const ANSWER: Duration = Duration::from_secs(5);
/// How long one machine is waited for while others may answer.
const DIAL: Duration = Duration::from_secs(2);
/// The largest answer that is taken, in bytes.
pub(super) const LARGEST: usize = 256 << 20;

const AWAY: &str = "etcd does not answer";
const REFUSES: &str = "etcd refuses the user of the storage service";
const FULL: &str = "etcd has no space left";
const FAILS: &str = "etcd fails";

/// The way to one etcd.
pub(super) struct Link {
    machines: EtcdMachines,
    client: Mutex<Option<Client>>,
    dialling: tokio::sync::Mutex<()>,
    /// Whether the last request failed, so that an etcd that is away is logged once.
    failing: AtomicBool,
}

impl Link {
    pub(super) fn new(machines: EtcdMachines) -> Self {
        Self {
            machines,
            client: Mutex::new(None),
            dialling: tokio::sync::Mutex::default(),
            failing: AtomicBool::new(false),
        }
    }

    /// The machines, for errors.
    pub(super) fn place(&self) -> String {
        format!("etcd {}", self.machines.urls().join(","))
    }

    /// Asks something that changes nothing; of another machine where one has gone.
    pub(super) async fn read<T, F>(&self, ask: impl Fn(Client) -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, EtcdError>>,
    {
        let deadline = Instant::now() + ANSWER;
        loop {
            let client = self.client(deadline).await?;
            match timeout_at(deadline, ask(client)).await {
                Ok(Ok(answer)) => return Ok(self.well(answer)),
                Ok(Err(error)) if is_lost(&error) && Instant::now() < deadline => self.lose(),
                Ok(Err(error)) => return Err(self.failed(&error, false)),
                Err(_) => return Err(self.silent(false)),
            }
        }
    }

    /// Asks for something to be done, once.
    pub(super) async fn write<T, F>(&self, ask: impl FnOnce(Client) -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, EtcdError>>,
    {
        let deadline = Instant::now() + ANSWER;
        let client = self.client(deadline).await?;
        match timeout_at(deadline, ask(client)).await {
            Ok(Ok(answer)) => Ok(self.well(answer)),
            Ok(Err(error)) => Err(self.failed(&error, true)),
            Err(_) => Err(self.silent(true)),
        }
    }

    /// A client whose machine answered when it was made.
    pub(super) async fn client(&self, deadline: Instant) -> Result<Client, StoreError> {
        if let Some(client) = self.known() {
            return Ok(client);
        }
        let Ok(_one) = timeout_at(deadline, self.dialling.lock()).await else {
            return Err(self.silent(false));
        };
        if let Some(client) = self.known() {
            return Ok(client);
        }
        let mut failure = None;
        for url in self.machines.urls() {
            match timeout_at(deadline, timeout(DIAL, self.dial(url))).await {
                Ok(Ok(Ok(client))) => {
                    *self.client.lock().unwrap_or_else(PoisonError::into_inner) = Some(client.clone());
                    return Ok(client);
                }
                Ok(Ok(Err(error))) => failure = Some(error),
                Ok(Err(_)) | Err(_) => {}
            }
        }
        Err(match failure {
            Some(error) => self.failed(&error, false),
            None => self.silent(false),
        })
    }

    async fn dial(&self, url: &str) -> Result<Client, EtcdError> {
        let options = self.machines.options(DIAL).map_err(|e| EtcdError::InvalidArgs(e.to_string()))?;
        let mut client = Client::connect([url], Some(options)).await?;
        // A machine without a leader does not answer this.
        client.get(super::keys::ID, None).await?;
        Ok(client)
    }

    fn known(&self) -> Option<Client> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The next request dials anew.
    pub(super) fn lose(&self) {
        *self.client.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn well<T>(&self, answer: T) -> T {
        if self.failing.swap(false, Ordering::Relaxed) {
            tracing::info!("{} answers again", self.place());
        }
        answer
    }

    fn silent(&self, asked: bool) -> StoreError {
        self.lose();
        self.note(AWAY, &format!("no answer within {} s", ANSWER.as_secs()), asked)
    }

    /// What `error` means for who `asked` for a change.
    pub(super) fn failed(&self, error: &EtcdError, asked: bool) -> StoreError {
        let text = EtcdMachines::told(error);
        if is_lost(error) {
            self.lose();
        }
        match error {
            EtcdError::GRpcStatus(status) => match status.code() as i32 {
                // Invalid argument, failed precondition, out of range.
                3 | 9 | 11 if text.contains("too large") || text.contains("too many") => {
                    StoreError::Unfit(format!("etcd takes no request as large as this: {text}"))
                }
                // What it says to those who give no user, or a wrong one.
                3 if text.contains("user name is empty") || text.contains("authentication failed") => {
                    self.note(REFUSES, &text, false)
                }
                3 | 9 | 11 => self.note(FAILS, &text, false),
                // Permission denied, unauthenticated.
                7 | 16 => self.note(REFUSES, &text, false),
                // Resource exhausted.
                8 => self.note(FULL, &text, false),
                // A connection that was never made has carried nothing.
                _ if is_lost(error) => {
                    let refused = text.contains("tcp connect error") || text.contains("dns error");
                    self.note(AWAY, &text, asked && !refused)
                }
                _ => self.note(FAILS, &text, asked),
            },
            EtcdError::InvalidArgs(_) | EtcdError::InvalidUri(_) => self.note(FAILS, &text, false),
            _ => self.note(AWAY, &text, asked),
        }
    }

    fn note(&self, told: &'static str, why: &str, uncertain: bool) -> StoreError {
        let why = format!("{} {}: {why}", self.place(), told.trim_start_matches("etcd "));
        if !self.failing.swap(true, Ordering::Relaxed) {
            tracing::error!("{why}; callers are told until it answers again");
        }
        StoreError::Failed { told, why, uncertain }
    }
}

/// Whether the connection, or the machine behind it, may have gone.
fn is_lost(error: &EtcdError) -> bool {
    match error {
        // Cancelled, unknown, deadline exceeded, aborted, internal, unavailable.
        EtcdError::GRpcStatus(status) => {
            // A token that was given before users or roles were changed is renewed by dialling anew.
            status.message().contains("revision of auth store is old")
                || matches!(status.code() as i32, 1 | 2 | 4 | 10 | 13 | 14)
        }
        EtcdError::TransportError(_) | EtcdError::IoError(_) | EtcdError::WatchError(_) => true,
        _ => false,
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Link").field(&self.machines).finish()
    }
}
