//! The records of durable subscriptions: what they want, and how long they may be idle. The time when a record was last
//! written is the time when the subscription was last read.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_nats::HeaderMap;
use bytes::Bytes;
use commissaire::{Key, Pattern, Token};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::Instant;

use crate::{bus::Core, clock, declare::Stream, fault::Fault, js::delete, publish::store};

/// The longest that a reader reads without saying so again.
const MOST_BEAT: Duration = Duration::from_secs(3600);

/// How often a reader says that it reads, of a subscription that may be removed after `expiry` without one.
pub(crate) fn beat(expiry: Duration) -> Duration {
    (expiry / 10).clamp(Duration::from_millis(100), MOST_BEAT)
}

/// What a record says.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) patterns: Vec<String>,
    /// In seconds.
    pub(crate) expires: f64,
    /// When it was written, in milliseconds of the server's time: an older one that is seen later counts no more.
    #[serde(default)]
    pub(crate) at: u64,
}

/// A record as it is on the server.
#[derive(Debug, Clone)]
pub(crate) struct Written {
    pub(crate) record: Record,
    pub(crate) seq: u64,
    /// How long ago it was written.
    pub(crate) age: Duration,
}

/// The patterns that hold now: those of whoever subscribed last, in whichever process.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) name: Token,
    /// And when the record was written that says so.
    known: Mutex<(u64, Arc<[Pattern]>)>,
}

impl Wanted {
    pub(crate) fn new(name: Token, patterns: Vec<Pattern>) -> Self {
        Self { name, known: Mutex::new((0, patterns.into())) }
    }

    pub(crate) fn patterns(&self) -> Arc<[Pattern]> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).1.clone()
    }

    pub(crate) fn matches(&self, key: &Key) -> bool {
        self.patterns().iter().any(|pattern| pattern.matches(key))
    }

    /// Takes over what a record says, if all of it can be read.
    pub(crate) fn take(&self, payload: &[u8]) {
        let Ok(record) = serde_json::from_slice::<Record>(payload) else { return };
        let read: Option<Vec<Pattern>> = record.patterns.iter().map(|text| Pattern::new(text).ok()).collect();
        if let Some(read) = read.filter(|read| !read.is_empty()) {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            if record.at >= known.0 {
                *known = (record.at, read.into());
            }
        }
    }

    /// Writes the record: somebody reads the subscription now.
    pub(crate) async fn write(&self, core: &Core, deadline: Instant) -> Result<(), Fault> {
        let at = clock::millis(core.clock.now());
        let patterns = {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.0 = known.0.max(at);
            known.1.iter().map(ToString::to_string).collect()
        };
        let record = Record { patterns, expires: core.idle_expiry.as_secs_f64(), at };
        let text = serde_json::to_string(&record).map_err(|error| Fault::Odd(error.to_string()))?;
        let subject = core.link.names.record(&self.name).into();
        // Writing it twice is as well as once, so an id of its own that is never used again will do.
        let id = format!("{:032x}", rand::random::<u128>());
        let stream = || Stream::records(&core.link);
        store(core, &subject, Some(&id), HeaderMap::new(), &Bytes::from(text), deadline, stream).await
    }

    /// Reads the record again, for it may have changed while we were away, and writes it, for we are back.
    pub(crate) async fn refresh(&self, core: &Core, deadline: Instant) -> Result<(), Fault> {
        if let Some((_, _, payload)) = raw(core, &self.name, deadline).await? {
            self.take(&payload);
        }
        self.write(core, deadline).await
    }
}

/// The record of `name`.
pub(crate) async fn read(core: &Core, name: &Token, deadline: Instant) -> Result<Option<Written>, Fault> {
    let Some((seq, time, payload)) = raw(core, name, deadline).await? else { return Ok(None) };
    let record = serde_json::from_slice(&payload).map_err(|error| Fault::Odd(error.to_string()))?;
    Ok(Some(Written { record, seq, age: core.clock.now().saturating_sub(time) }))
}

/// Removes the record, if it is still the one of this number. Of several who try, one does.
pub(crate) async fn remove(core: &Core, seq: u64, deadline: Instant) -> Result<bool, Fault> {
    delete(core, &core.link.names.record_stream(), seq, deadline).await
}

async fn raw(
    core: &Core,
    name: &Token,
    deadline: Instant,
) -> Result<Option<(u64, Duration, Vec<u8>)>, Fault> {
    let asked = format!("STREAM.MSG.GET.{}", core.link.names.record_stream());
    // There is one at most. Asked for seldom, and never of a stream that may be in the making: that ends nats-server
    // 2.9.10 in a panic.
    let body = json!({"next_by_subj": core.link.names.record(name), "seq": 1});
    let answer = match core.link.api(&asked, &body, deadline).await {
        Ok(answer) => answer,
        Err(fault) if fault.is_absent() => return Ok(None),
        Err(fault) => return Err(fault),
    };
    let message = &answer["message"];
    let odd = || Fault::Odd(format!("the record of durable {name}"));
    let time = clock::time(&message["time"]).ok_or_else(odd)?;
    let payload = message["data"].as_str().and_then(base64).ok_or_else(odd)?;
    Ok(Some((message["seq"].as_u64().ok_or_else(odd)?, time, payload)))
}

/// Reads base64, as the server writes bytes in JSON.
pub(crate) fn base64(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count) = (0_u32, 0);
    for byte in text.bytes().filter(|byte| *byte != b'=') {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_read() {
        assert_eq!(base64("eyJwIjpbImEuIyJdfQ==").as_deref(), Some(&br#"{"p":["a.#"]}"#[..]));
        assert_eq!(base64("").as_deref(), Some(&b""[..]));
        assert_eq!(base64("/+8=").as_deref(), Some(&[0xff, 0xef][..]));
        assert_eq!(base64("a b"), None);
    }
}
