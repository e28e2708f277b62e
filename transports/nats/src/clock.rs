//! The server's time, as far as a client can know it. Ages of calls and the rest of retries are measured by it, so that
//! clients need not agree on theirs.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use async_nats::HeaderMap;
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{fault::Fault, link::Link};

/// The server's time at one moment of ours: never later than it was.
#[derive(Debug)]
pub(crate) struct Clock(Mutex<(Instant, Duration)>);

impl Clock {
    /// Our own time, until the server's is known.
    pub(crate) fn new() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(Mutex::new((Instant::now(), now)))
    }

    /// The server's time now, since 1970.
    pub(crate) fn now(&self) -> Duration {
        let (at, time) = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        time + at.elapsed()
    }

    /// Stores a word on the server and reads when it was stored.
    pub(crate) async fn set(&self, link: &Link, deadline: Instant) -> Result<(), Fault> {
        let subject = link.names.tick().into();
        let seq = link.store(&subject, None, HeaderMap::new(), &Bytes::new(), deadline).await?;
        let stored = Instant::now();
        let asked = format!("STREAM.MSG.GET.{}", link.names.record_stream());
        let answer = match link.api(&asked, &json!({ "seq": seq }), deadline).await {
            Ok(answer) => answer,
            // Another client's word took its place, which tells the time as well.
            Err(fault) if fault.is_absent() => return Ok(()),
            Err(fault) => return Err(fault),
        };
        let time = answer["message"]["time"].as_str().and_then(parse);
        let time = time.ok_or_else(|| Fault::Odd("a time of storing".to_owned()))?;
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = (stored, time);
        Ok(())
    }
}

/// A span as a whole number of milliseconds.
pub(crate) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// A time of the server in JSON, since 1970.
pub(crate) fn time(value: &Value) -> Option<Duration> {
    value.as_str().and_then(parse)
}

/// Reads RFC 3339 in UTC, `2026-11-23T00:39:10.127165285Z`. A time before 1970 is none.
fn parse(text: &str) -> Option<Duration> {
    let (date, clock) = text.strip_suffix('Z')?.split_once('T')?;
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let (year, month, day) = three(date, '-', [4, 2, 2])?;
    let (hour, minute, second) = three(clock, ':', [2, 2, 2])?;
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let most = match month {
        2 => 28 + u64::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if !(1970..=9999).contains(&year) || !(1..=most).contains(&day) || hour > 23 || minute > 59 || second > 59
    {
        return None;
    }
    let digits = (1..=9).contains(&fraction.len()) && fraction.bytes().all(|byte| byte.is_ascii_digit());
    let nanos = digits.then(|| format!("{fraction:0<9}"))?.parse().ok()?;
    // Days since 1970 in the Gregorian calendar: years begin in March, so that the leap day is the last.
    let year = if month <= 2 { year - 1 } else { year };
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = year * 365 + year / 4 - year / 100 + year / 400 + of_year - 719_468;
    Some(Duration::new(((days * 24 + hour) * 60 + minute) * 60 + second, nanos))
}

/// Three numbers of so many digits between signs.
fn three(text: &str, sign: char, digits: [usize; 3]) -> Option<(u64, u64, u64)> {
    let mut parts = text.split(sign);
    let numbers = digits.map(|digits| {
        let part = parts.next().filter(|part| part.len() == digits)?;
        let plain = part.bytes().all(|byte| byte.is_ascii_digit());
        plain.then(|| part.parse().ok()).flatten()
    });
    let [one, two, three] = numbers;
    parts.next().is_none().then_some((one?, two?, three?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_the_server_are_read() {
        let at = |seconds, nanos| Some(Duration::new(seconds, nanos));
        assert_eq!(parse("1970-01-01T00:00:00Z"), at(0, 0));
        assert_eq!(parse("2026-11-23T00:39:10.127165285Z"), at(1_795_394_350, 127_165_285));
        assert_eq!(parse("2024-02-29T23:59:59.5Z"), at(1_709_251_199, 500_000_000));
        for wrong in [
            "0001-01-01T00:00:00Z",
            "",
            "Z",
            "2026-11-23",
            "2026-11-23T00:00:00+01:00",
            "2026-02-29T00:00:00Z",
            "9223372036854775807-01-01T00:00:00Z",
            "2026-11-23T00:00:9223372036854775807Z",
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
