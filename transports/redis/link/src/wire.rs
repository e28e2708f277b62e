//! One connection to the server: asks, and tells "not sent" from "unknown".

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use commissaire::{Error, ErrorKind};
use redis::{Cmd, Pipeline, RedisError, Value, aio::MultiplexedConnection};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::{script::Scripts, value::millis};

/// A connection that is up, or was. Cheap to clone; all clones share it.
#[derive(Clone)]
pub struct Wire {
    connection: MultiplexedConnection,
    down: CancellationToken,
    heard: Arc<AtomicU64>,
    /// When it was made, if it took the place of one that was lost.
    again: Option<Instant>,
    /// The server's time in ms, and when it was asked for.
    clock: Arc<Mutex<Option<(Instant, i64)>>>,
    scripts: Scripts,
}

/// Why an answer is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The connection was down before anything was sent.
    NotSent,
    /// The connection broke before the answer came.
    Lost,
    /// The answer did not come in time.
    Late,
    /// The server refused; nothing was done.
    Refused {
        /// The first word of its answer, `OOM`.
        code: String,
        /// The key of the bus that it is about, where it says so.
        key: Option<String>,
    },
}

impl Wire {
    pub(crate) fn new(connection: MultiplexedConnection, down: CancellationToken, scripts: Scripts) -> Self {
        Self { connection, down, heard: Arc::default(), again: None, clock: Arc::default(), scripts }
    }

    /// Asks for the server's time.
    pub async fn set_clock(&self, limit: Duration) -> Result<(), Fault> {
        let asked = Instant::now();
        let time = millis(self.ask(&redis::cmd("TIME"), limit).await?);
        *self.clock.lock().unwrap_or_else(PoisonError::into_inner) = time.map(|time| (asked, time));
        Ok(())
    }

    /// The server's time in ms, reckoned from when it was last asked for: late by at most what that took, never early,
    /// unless the server's clock was set since.
    pub fn clock(&self) -> Option<i64> {
        let (asked, time) = (*self.clock.lock().unwrap_or_else(PoisonError::into_inner))?;
        time.checked_add(i64::try_from(asked.elapsed().as_millis()).ok()?)
    }

    /// Whether the server's time was not asked for since `age` ago.
    pub fn clock_is_older(&self, age: Duration) -> bool {
        let clock = *self.clock.lock().unwrap_or_else(PoisonError::into_inner);
        clock.is_none_or(|(asked, _)| asked.elapsed() > age)
    }

    /// The same connection, known to take the place of one that was lost just now.
    pub fn made_again(mut self) -> Self {
        self.again = Some(Instant::now());
        self
    }

    /// Whether it took the place of a lost one less than `age` ago.
    pub fn is_new_again(&self, age: Duration) -> bool {
        self.again.is_some_and(|made| made.elapsed() < age)
    }

    /// Asks one thing. The answer is never an error of the server's. Scripts that it has forgotten are loaded again.
    pub async fn ask(&self, command: &Cmd, limit: Duration) -> Result<Value, Fault> {
        match self.ask_once(command, limit).await {
            Err(fault) if fault.is("NOSCRIPT") => {
                self.load(limit).await?;
                self.ask_once(command, limit).await
            }
            answer => answer,
        }
    }

    async fn ask_once(&self, command: &Cmd, limit: Duration) -> Result<Value, Fault> {
        let mut connection = self.connection.clone();
        let answer = self.bounded(limit, connection.send_packed_command(command)).await?;
        no_error(answer)
    }

    /// Asks many things at once. Each answer may be an error: see [`no_error`].
    pub async fn ask_all(&self, pipeline: &Pipeline, limit: Duration) -> Result<Vec<Value>, Fault> {
        if pipeline.is_empty() {
            return Ok(Vec::new());
        }
        let mut connection = self.connection.clone();
        self.bounded(limit, connection.send_packed_commands(pipeline, 0, pipeline.len())).await
    }

    /// Hands all scripts to the server again, after it was told to forget them.
    pub async fn load(&self, limit: Duration) -> Result<(), Fault> {
        self.ask_all(&self.scripts.loading(), limit).await.map(drop)
    }

    /// The digests that the server gave to the scripts, in their order.
    pub fn digests(&self) -> &[String] {
        self.scripts.digests()
    }

    /// Listens to `names`, as channels or as globs; returns when the server has confirmed.
    pub async fn listen(&self, globs: bool, names: &[String], limit: Duration) -> Result<(), Fault> {
        if names.is_empty() {
            return Ok(());
        }
        let mut connection = self.connection.clone();
        match globs {
            true => self.bounded(limit, connection.psubscribe(names)).await,
            false => self.bounded(limit, connection.subscribe(names)).await,
        }
    }

    /// Listens to `names` no longer.
    pub async fn unlisten(&self, globs: bool, names: &[String], limit: Duration) -> Result<(), Fault> {
        if names.is_empty() {
            return Ok(());
        }
        let mut connection = self.connection.clone();
        match globs {
            true => self.bounded(limit, connection.punsubscribe(names)).await,
            false => self.bounded(limit, connection.unsubscribe(names)).await,
        }
    }

    /// How many answers have come.
    pub fn heard(&self) -> u64 {
        self.heard.load(Ordering::Relaxed)
    }

    /// Gives the connection up; whoever waits on it is told.
    pub fn cut(&self) {
        self.down.cancel();
    }

    /// Resolves when the connection is down.
    pub async fn down(&self) {
        self.down.cancelled().await;
    }

    /// Whether both are the same connection.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.heard, &other.heard)
    }

    /// Whether the connection is down.
    pub fn is_down(&self) -> bool {
        self.down.is_cancelled()
    }

    async fn bounded<T>(
        &self,
        limit: Duration,
        asking: impl Future<Output = Result<T, RedisError>>,
    ) -> Result<T, Fault> {
        if self.down.is_cancelled() {
            return Err(Fault::NotSent);
        }
        let answer = timeout(limit, async {
            tokio::select! {
                biased;
                answer = asking => Some(answer),
                () = self.down.cancelled() => None,
            }
        });
        match answer.await {
            Ok(Some(Ok(answer))) => {
                self.heard.fetch_add(1, Ordering::Relaxed);
                Ok(answer)
            }
            Ok(Some(Err(error))) => Err(self.fault(&error)),
            Ok(None) => Err(Fault::Lost),
            Err(_) => Err(Fault::Late),
        }
    }

    fn fault(&self, error: &RedisError) -> Fault {
        let fault = Fault::from(error);
        if fault == Fault::Lost {
            self.down.cancel();
        }
        fault
    }
}

/// The answer, or the fault that it is.
pub fn no_error(answer: Value) -> Result<Value, Fault> {
    match answer {
        Value::ServerError(error) => Err(Fault::from(&RedisError::from(error))),
        answer => Ok(answer),
    }
}

impl Fault {
    /// Whether the server refused with this code.
    pub fn is(&self, wanted: &str) -> bool {
        matches!(self, Self::Refused { code, .. } if code == wanted)
    }

    /// Names the key that it is about, if it is about one of the wrong type.
    pub fn about(mut self, name: &str) -> Self {
        if let Self::Refused { code, key: key @ None } = &mut self
            && code == "WRONGTYPE"
        {
            *key = Some(name.to_owned());
        }
        self
    }

    /// Whether waiting may help: the server is loading, or has another's slow script to end.
    pub fn passes(&self) -> bool {
        ["LOADING", "BUSY", "MASTERDOWN", "TRYAGAIN"].iter().any(|code| self.is(code))
    }

    /// Whether the server refused, and would again: it has the script, and is neither loading nor busy.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Refused { .. }) && !self.passes() && !self.is("NOSCRIPT")
    }

    /// As an error of `what`, which says what was tried.
    pub fn into_error(self, what: &str) -> Error {
        match self {
            Self::NotSent => Error::unavailable(format!("{what}: not connected to redis")),
            Self::Lost => {
                Error::unavailable(format!("{what}: the connection to redis broke")).maybe_executed()
            }
            Self::Late => Error::new(ErrorKind::Timeout, format!("{what}: redis did not answer in time"))
                .maybe_executed(),
            Self::Refused { code, key: Some(key) } if code == "WRONGTYPE" => Error::new(
                ErrorKind::Topology,
                format!(
                    "{what}: key {key:?} is not of the type that the bus needs: delete it, or use another database"
                ),
            ),
            Self::Refused { code, .. } => {
                let (kind, why) = match code.as_str() {
                    "OOM" => (ErrorKind::Full, "redis is out of memory (maxmemory)"),
                    "NOPERM" => (ErrorKind::Forbidden, "redis forbids it to this user: see its ACL"),
                    "NOAUTH" | "WRONGPASS" => {
                        (ErrorKind::Forbidden, "redis refused the credentials of bus_uri")
                    }
                    "READONLY" => {
                        (ErrorKind::Unavailable, "this redis is a read-only replica: name the primary")
                    }
                    "MISCONF" => (ErrorKind::Unavailable, "redis cannot write to its disk: see its log"),
                    "LOADING" => (ErrorKind::Unavailable, "redis is still loading its data"),
                    "WRONGTYPE" => {
                        (ErrorKind::Topology, "a key of the bus holds something else: use another database")
                    }
                    _ => (ErrorKind::Unavailable, "redis refused it"),
                };
                Error::new(kind, format!("{what}: {why} ({code})"))
            }
        }
    }
}

impl From<&RedisError> for Fault {
    fn from(error: &RedisError) -> Self {
        // Scripts wrap errors of their commands: the code stays the first word.
        match error.code() {
            Some(code) => {
                let code: String = code.chars().filter(char::is_ascii_alphanumeric).take(32).collect();
                let key = error.detail().and_then(|detail| detail.split_whitespace().next());
                Self::Refused { code, key: key.filter(|key| key.starts_with("bus:{")).map(str::to_owned) }
            }
            None => Self::Lost,
        }
    }
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire").field("down", &self.is_down()).finish_non_exhaustive()
    }
}
