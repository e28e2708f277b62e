//! Waiting with a bound, and failures that say what was awaited.

use std::{
    fmt,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::task::JoinHandle;

use crate::error::Error;

/// Why a test failed, in words.
pub struct Failure(String);

/// How a scenario, or a step of one, ends.
pub type Outcome<T = ()> = std::result::Result<T, Failure>;

/// Waits until `condition` holds, asking every 10 ms; fails after `limit`, naming `what` it waited for.
pub async fn until(
    what: impl fmt::Display,
    limit: Duration,
    mut condition: impl AsyncFnMut() -> bool,
) -> Outcome {
    let start = Instant::now();
    while !within(&what, limit, condition()).await? {
        if start.elapsed() > limit {
            return Err(Failure::new(format!("waited {limit:?} in vain until {what}")));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// What `future` gives, unless it takes longer than `limit`.
pub async fn within<T>(
    what: impl fmt::Display,
    limit: Duration,
    future: impl Future<Output = T>,
) -> Outcome<T> {
    tokio::time::timeout(limit, future)
        .await
        .map_err(|_| Failure::new(format!("{what}: no end after {limit:?}")))
}

/// A control timer: how late a plain timer of this program fires while a test measures times, so that a busy machine
/// is not taken for a slow bus.
#[derive(Debug)]
pub struct Lateness {
    ticks: Arc<Ticks>,
    ticker: JoinHandle<()>,
}

#[derive(Debug)]
struct Ticks {
    start: Instant,
    /// When the next one is due, and the worst delay of those before, in microseconds.
    due: AtomicU64,
    worst: AtomicU64,
}

impl Ticks {
    const REST: Duration = Duration::from_millis(10);

    /// Notes how late the one is that is due, now at the least.
    fn look(&self) -> u64 {
        let late = micros(self.start.elapsed()).saturating_sub(self.due.load(Ordering::Acquire));
        self.worst.fetch_max(late, Ordering::AcqRel).max(late)
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

impl Lateness {
    /// Begins to measure.
    pub fn watch() -> Self {
        let ticks = Arc::new(Ticks {
            start: Instant::now(),
            due: AtomicU64::new(micros(Ticks::REST)),
            worst: AtomicU64::new(0),
        });
        let ticking = ticks.clone();
        let ticker = tokio::spawn(async move {
            loop {
                ticking.due.store(micros(ticking.start.elapsed() + Ticks::REST), Ordering::Release);
                tokio::time::sleep(Ticks::REST).await;
                ticking.look();
            }
        });
        Self { ticks, ticker }
    }

    /// The worst delay so far, that of a tick included which is overdue: who asks may have been let run before it.
    pub fn worst(&self) -> Duration {
        Duration::from_micros(self.ticks.look())
    }
}

impl Drop for Lateness {
    fn drop(&mut self) {
        self.ticker.abort();
    }
}

impl Failure {
    /// A failure for the reason `why`.
    pub fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }

    /// The same failure, told as part of `what`.
    #[must_use]
    pub fn in_step(self, what: impl fmt::Display) -> Self {
        Self(format!("{what}: {}", self.0))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self(format!("{error:?}"))
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self(error.to_string())
    }
}

impl From<tokio::task::JoinError> for Failure {
    fn from(error: tokio::task::JoinError) -> Self {
        Self(format!("a task of the test ended badly: {error}"))
    }
}

/// Fails with the formatted reason unless the condition holds.
macro_rules! ensure {
    ($holds:expr, $($reason:tt)+) => {
        if !$holds {
            return Err($crate::testkit::Failure::new(format!($($reason)+)));
        }
    };
}
pub(crate) use ensure;
