//! Requests to JetStream, in its own JSON, over our own table of waits.

use std::time::Duration;

use async_nats::{HeaderMap, Subject};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::{bus::Core, fault::Fault, link::Link};

/// How long to wait before asking again what the server could not answer yet.
const AGAIN: Duration = Duration::from_millis(50);
/// The name of the header by which the server recognises what it has stored already.
const ID: &str = "Nats-Msg-Id";

/// The server's word that it has stored something.
#[derive(Debug, Deserialize)]
struct Stored {
    #[serde(default)]
    seq: u64,
    error: Option<Refusal>,
}

#[derive(Debug, Deserialize)]
struct Refusal {
    #[serde(default)]
    err_code: u32,
    #[serde(default)]
    code: u32,
    #[serde(default)]
    description: String,
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        let code = if refusal.err_code == 0 { refusal.code } else { refusal.err_code };
        Self::Refused { code, text: refusal.description.escape_default().take(200).collect() }
    }
}

impl Link {
    /// Asks `$JS.API.{name}`, again where the connection breaks: only for what may be done twice.
    pub(crate) async fn api(&self, name: &str, body: &Value, deadline: Instant) -> Result<Value, Fault> {
        let payload = Bytes::from(if body.is_null() { String::new() } else { body.to_string() });
        let subject = Subject::from(format!("$JS.API.{name}"));
        loop {
            let asked = self.request(subject.clone(), None, payload.clone(), deadline).await;
            let answer = match asked {
                Ok(message) => read(&message.payload),
                Err(fault) => Err(fault),
            };
            match answer {
                Err(fault) if fault.passes() && Instant::now() + AGAIN < deadline => sleep(AGAIN).await,
                other => return other,
            }
        }
    }

    /// Stores `payload` under `subject`, once however often it is tried with the same `id`. Returns its number.
    pub(crate) async fn store(
        &self,
        subject: &Subject,
        id: Option<&str>,
        mut headers: HeaderMap,
        payload: &Bytes,
        deadline: Instant,
    ) -> Result<u64, Fault> {
        if let Some(id) = id {
            headers.insert(ID, id);
        }
        let headers = (!headers.is_empty()).then_some(headers);
        let message = self.request(subject.clone(), headers, payload.clone(), deadline).await?;
        stored(&message.payload)
    }
}

/// Deletes the message of this number from `stream`. Of several who try, one does.
pub(crate) async fn delete(core: &Core, stream: &str, seq: u64, deadline: Instant) -> Result<bool, Fault> {
    let asked = format!("STREAM.MSG.DELETE.{stream}");
    match core.link.api(&asked, &json!({"seq": seq, "no_erase": true}), deadline).await {
        Ok(answer) => Ok(answer["success"].as_bool().unwrap_or(false)),
        // 10057 and 10043: there is no such message any more.
        Err(Fault::Refused { code: 10057 | 10043 | 10037, .. }) => Ok(false),
        Err(fault) => Err(fault),
    }
}

/// The number of what was stored.
pub(crate) fn stored(payload: &Bytes) -> Result<u64, Fault> {
    let stored: Stored = serde_json::from_slice(payload).map_err(|error| Fault::Odd(error.to_string()))?;
    match stored.error {
        None => Ok(stored.seq),
        Some(refusal) => Err(refusal.into()),
    }
}

pub(crate) fn read(payload: &Bytes) -> Result<Value, Fault> {
    let mut answer: Value = serde_json::from_slice(payload).map_err(|error| Fault::Odd(error.to_string()))?;
    match answer.get_mut("error").map(Value::take) {
        None => Ok(answer),
        Some(refusal) => match serde_json::from_value::<Refusal>(refusal) {
            Ok(refusal) => Err(refusal.into()),
            Err(error) => Err(Fault::Odd(error.to_string())),
        },
    }
}
