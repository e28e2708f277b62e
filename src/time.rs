//! Times as text: UTC, ISO 8601 with microseconds and no zone, as all records of Commissaire write them.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use tokio::time::Instant;

/// The time now, `2026-11-22T12:00:00.000000`.
pub fn timestamp() -> String {
    format_time(SystemTime::now())
}

/// `time` as text.
pub fn format_time(time: SystemTime) -> String {
    Timestamp::try_from(time).unwrap_or_default().strftime("%Y-%m-%dT%H:%M:%S%.6f").to_string()
}

/// So long from now; a time that the clock cannot hold is one that nobody lives to see.
pub(crate) fn from_now(time: Duration) -> Instant {
    const LONG: Duration = Duration::from_secs(100 * 365 * 86_400);
    Instant::now() + time.min(LONG)
}
