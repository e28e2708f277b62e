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

/// A span of time for people: its largest unit and the next, `7 d`, `1 h 30 min`, `2 s`, `250 ms`.
pub fn span(span: Duration) -> String {
    const UNITS: [(u128, &str); 5] =
        [(86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1000, "s"), (1, "ms")];
    let millis = span.as_millis();
    let first = UNITS.iter().position(|(unit, _)| millis >= *unit).unwrap_or(UNITS.len() - 1);
    let (unit, name) = UNITS[first];
    let mut text = format!("{} {name}", millis / unit);
    // Beside seconds, milliseconds tell nobody anything.
    if let Some((next, name)) = UNITS[..4].get(first + 1)
        && millis % unit >= *next
    {
        text.push_str(&format!(" {} {name}", millis % unit / next));
    }
    text
}

/// So long from now; a time that the clock cannot hold is one that nobody lives to see.
pub(crate) fn from_now(time: Duration) -> Instant {
    const LONG: Duration = Duration::from_secs(100 * 365 * 86_400);
    Instant::now() + time.min(LONG)
}
