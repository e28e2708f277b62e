//! Dead letters as a record: what they are, where they come from, and why they died.

use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::value::RawValue;

use crate::message::{Headers, Message, header};

/// A dead letter: what an operator wants to know of it. Made of a message from
/// [`Source::DeadLetters`](crate::Source::DeadLetters).
#[derive(Debug, Clone, Serialize)]
pub struct DeadLetter {
    /// Its id; kept when it is brought back.
    pub id: Option<String>,
    /// `queue KEY` or `durable NAME`.
    pub origin: Option<String>,
    /// The address that it was sent to, `queue KEY` or `topic KEY`.
    pub address: String,
    /// Why it died, in a word: `attempts`, `crashes`, `rejected`, `malformed`.
    pub cause: Option<String>,
    /// How many runs failed.
    pub attempts: u32,
    /// When and how the first run failed.
    pub first_failure: Option<FailedRun>,
    /// When and how the last run failed.
    pub last_failure: Option<FailedRun>,
    /// How often it was brought back before.
    pub redriven: u32,
    /// All headers.
    #[serde(serialize_with = "as_map")]
    pub headers: Headers,
    /// The body: as JSON where it is such, else as text, with what is no text replaced.
    pub body: Body,
}

/// A run of a handler that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FailedRun {
    /// When, in UTC: `2026-11-22T12:00:00.000000`.
    pub at: String,
    /// The error and its causes, escaped and at most 256 characters.
    pub reason: String,
}

/// A message's body in a record.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub enum Body {
    /// JSON as it was sent, in one line.
    Json(Box<RawValue>),
    /// Anything else.
    Text(String),
}

impl DeadLetter {
    /// Reads what the framework and the transports have noted in the headers.
    pub fn of(message: &Message) -> Self {
        let headers = message.headers();
        let text = |name| headers.get(name).map(str::to_owned);
        let failure = |name| {
            let (at, reason) = headers.get(name)?.split_once(' ')?;
            Some(FailedRun { at: at.to_owned(), reason: reason.to_owned() })
        };
        let json = std::str::from_utf8(message.body()).ok().and_then(|text| {
            crate::jsonrpc::check(text.as_bytes()).ok()?;
            RawValue::from_string(in_one_line(text)).ok()
        });
        let body =
            json.map_or_else(|| Body::Text(String::from_utf8_lossy(message.body()).into_owned()), Body::Json);
        Self {
            id: text(header::ID),
            origin: text(header::ORIGIN),
            address: message.address().to_string(),
            cause: text(header::DEAD),
            attempts: message.failed(),
            first_failure: failure(header::FIRST_FAILURE),
            last_failure: failure(header::LAST_FAILURE),
            redriven: message.redriven(),
            headers: headers.clone(),
            body,
        }
    }
}

fn as_map<S: Serializer>(headers: &Headers, out: S) -> Result<S::Ok, S::Error> {
    let mut map = out.serialize_map(Some(headers.iter().len()))?;
    for (name, value) in headers.iter() {
        map.serialize_entry(name, value)?;
    }
    map.end()
}

/// JSON without the spaces and the ends of lines between its words.
fn in_one_line(json: &str) -> String {
    let (mut quoted, mut escaped) = (false, false);
    let mut keep = |c: &char| {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ => {}
        }
        quoted || !c.is_ascii_whitespace()
    };
    json.chars().filter(|c| keep(c)).collect()
}
