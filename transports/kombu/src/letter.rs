//! A message as Kombu writes it: one JSON object, the body in base64, our own headers beside those of Kombu.

use std::collections::BTreeMap;

use base64ct::{Base64, Encoding};
use bytes::Bytes;
use commissaire::{
    Address, Error, Headers, Key, MAX_MESSAGE, Message, MessageId, Origin, Result, Source, header,
};
use serde::{Deserialize, Serialize, de::IgnoredAny};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::body::{HEX, decoded, understood, unwrapped};

/// Our own headers: the address with its kind; when a call ends, by the server's time in ms; how often a message came back
/// from consumers that died.
const TO: &str = "bus-to";
const UNTIL: &str = "bus-until";
const AGAIN: &str = "bus-again";
const OWN: [&str; 3] = [TO, UNTIL, AGAIN];

/// What goes with a message beside what it says.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Postage<'a> {
    /// The exchange that it is for; nothing for the one of all queues.
    pub(crate) exchange: &'a str,
    /// The routing key there.
    pub(crate) key: &'a str,
    /// The name of the list that waits for a reply.
    pub(crate) reply_to: Option<&'a str>,
    /// What joins a reply to its call for Kombu programs that look at it.
    pub(crate) correlation: Option<&'a str>,
    /// When it is of no more use, by the server's time in ms.
    pub(crate) until: Option<i64>,
}

/// A message that was read.
#[derive(Debug)]
pub(crate) struct Letter {
    pub(crate) message: Message,
    /// The list where a Kombu program waits for the reply, and the correlation that it wants there.
    pub(crate) asks: Option<(String, Option<String>)>,
    pub(crate) until: Option<i64>,
    pub(crate) redelivered: u32,
    /// It was sent by a program of ours.
    pub(crate) ours: bool,
}

#[derive(Serialize)]
struct Written<'a> {
    body: String,
    #[serde(rename = "content-encoding")]
    encoding: &'a str,
    #[serde(rename = "content-type")]
    kind: &'a str,
    headers: BTreeMap<&'a str, &'a str>,
    properties: Properties<'a>,
}

#[derive(Serialize)]
struct Properties<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    reply_to: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    correlation_id: Option<&'a str>,
    delivery_mode: u8,
    delivery_info: Info<'a>,
    priority: u8,
    body_encoding: &'a str,
    delivery_tag: String,
}

#[derive(Serialize)]
struct Info<'a> {
    exchange: &'a str,
    routing_key: &'a str,
}

#[derive(Deserialize)]
struct Read {
    body: String,
    #[serde(rename = "content-encoding", default)]
    encoding: Option<String>,
    #[serde(rename = "content-type", default)]
    kind: Option<String>,
    #[serde(default)]
    headers: Option<Map<String, Value>>,
    properties: Given,
}

#[derive(Deserialize)]
struct Given {
    #[serde(default)]
    reply_to: Option<String>,
    #[serde(default)]
    correlation_id: Option<Value>,
    #[serde(default)]
    body_encoding: Option<String>,
    delivery_tag: String,
    delivery_info: Map<String, Value>,
}

/// Writes `message`, with a delivery tag of its own.
pub(crate) fn write(message: &Message, postage: &Postage<'_>) -> Vec<u8> {
    let to = format!("{} {}", message.address().kind(), message.address().name());
    let until = postage.until.map(|until| until.to_string());
    let mut headers: BTreeMap<&str, &str> = message.headers().iter().collect();
    headers.insert(TO, &to);
    if let Some(until) = &until {
        headers.insert(UNTIL, until);
    }
    let body = message.body();
    // A Kombu consumer that is told JSON and finds none does not survive it.
    let (kind, encoding) = if serde_json::from_slice::<IgnoredAny>(body).is_ok() {
        ("application/json", "utf-8")
    } else if std::str::from_utf8(body).is_ok() {
        ("text/plain", "utf-8")
    } else {
        ("application/data", "binary")
    };
    let written = Written {
        body: Base64::encode_string(body),
        encoding,
        kind,
        headers,
        properties: Properties {
            reply_to: postage.reply_to,
            correlation_id: postage.correlation,
            delivery_mode: 2,
            delivery_info: Info { exchange: postage.exchange, routing_key: postage.key },
            priority: 0,
            body_encoding: "base64",
            delivery_tag: Uuid::new_v4().to_string(),
        },
    };
    // Nothing in it can fail to be written.
    serde_json::to_vec(&written).unwrap_or_default()
}

/// Reads what came from `source`; never panics, whatever the bytes are.
pub(crate) fn read(raw: &[u8], source: &Source) -> Result<Letter> {
    let read: Read = serde_json::from_slice(raw)
        .map_err(|e| Error::malformed(format!("not a message of Kombu at column {}", e.column())))?;
    let Read { body, encoding, kind, headers, properties } = read;
    let given = headers.unwrap_or_default();
    let text = |name: &str| given.get(name).and_then(Value::as_str);
    let ours = text(header::VERSION).is_some();
    let key = properties.delivery_info.get("routing_key").and_then(Value::as_str).unwrap_or_default();
    let address = match text(TO).filter(|_| ours).and_then(|to| to.split_once(' ')) {
        Some((kind, name)) => Address::parse(kind, name)?,
        None => address(source, key)?,
    };
    let mut body = decoded(body, properties.body_encoding.as_deref())?;
    let mut headers = Headers::default();
    if ours {
        for (name, value) in given.iter().filter(|(name, _)| !OWN.contains(&&***name)) {
            if let Value::String(value) = value {
                headers.set(name.clone(), value.as_str())?;
            }
        }
    } else {
        understood(kind.as_deref(), encoding.as_deref(), &given)?;
        body = unwrapped(body);
        headers.set(header::VERSION, "1")?;
        headers.set(header::ID, id_of(&properties.delivery_tag).to_string())?;
        headers.set(header::FOREIGN, "1")?;
        for (name, value) in given.iter().filter(|(name, _)| !name.starts_with("bus-")) {
            // Those that the bus cannot carry are for Kombu programs only.
            if let Value::String(value) = value {
                let _ = headers.set(name.clone(), value.as_str());
            }
        }
    }
    let flagged = |map: &Map<String, Value>| map.get("redelivered").and_then(Value::as_bool).unwrap_or(false);
    let again = text(AGAIN).and_then(|again| again.parse().ok());
    let redelivered =
        again.unwrap_or_else(|| u32::from(flagged(&given) || flagged(&properties.delivery_info)));
    let asks = properties
        .reply_to
        .filter(|_| !ours)
        .map(|name| (name, properties.correlation_id.and_then(|id| id.as_str().map(str::to_owned))));
    Ok(Letter {
        message: Message::from_parts(address, headers, body.into())?,
        asks,
        until: text(UNTIL).and_then(|until| until.parse().ok()),
        redelivered,
        ours,
    })
}

/// The address that a Kombu program meant with `key`, by where its message was found.
fn address(source: &Source, key: &str) -> Result<Address> {
    Ok(match source {
        Source::Service(_) => Address::Service(Key::new(key)?),
        // However it came there: by its key, or by the queue's name.
        Source::Queue(queue) | Source::DeadLetters(Origin::Queue(queue)) => Address::Queue(queue.clone()),
        Source::Topic(_) | Source::Durable(..) | Source::DeadLetters(Origin::Durable(_)) => {
            Address::Topic(Key::new(key)?)
        }
        Source::Control(service) => Address::Control(service.clone()),
        Source::Inbox(inbox) => Address::Inbox(*inbox),
    })
}

/// The same message as one that came back from a consumer that died, as Kombu marks it; with how often it did.
pub(crate) fn again(raw: &[u8]) -> Option<Vec<u8>> {
    let mut letter: Map<String, Value> = serde_json::from_slice(raw).ok()?;
    let headers = letter.entry("headers").or_insert_with(|| Map::new().into());
    if !headers.is_object() {
        *headers = Map::new().into();
    }
    let headers = headers.as_object_mut()?;
    let before = headers.get(AGAIN).and_then(Value::as_str).and_then(|text| text.parse::<u32>().ok());
    let before = before.unwrap_or_else(|| u32::from(headers.get("redelivered") == Some(&Value::Bool(true))));
    headers.insert(AGAIN.to_owned(), before.saturating_add(1).to_string().into());
    headers.insert("redelivered".to_owned(), true.into());
    let properties = letter.get_mut("properties")?.as_object_mut()?;
    if let Some(info) = properties.get_mut("delivery_info").and_then(Value::as_object_mut) {
        info.insert("redelivered".to_owned(), true.into());
    }
    serde_json::to_vec(&letter).ok()
}

/// The priority that a Kombu program gave it.
pub(crate) fn priority(raw: &[u8]) -> u8 {
    #[derive(Deserialize)]
    struct Outer {
        properties: Inner,
    }
    #[derive(Deserialize)]
    struct Inner {
        priority: Option<u64>,
    }
    let outer = serde_json::from_slice::<Outer>(raw).ok();
    outer.and_then(|outer| outer.properties.priority).map_or(0, |priority| priority.min(9) as u8)
}

/// What stands around bytes that are no message of Kombu, to make a dead letter of them: before and behind their
/// hexadecimal digits.
pub(crate) fn wrapping(origin: &Origin, to: &Address) -> (String, String) {
    let mut headers = BTreeMap::from([(header::VERSION, "1"), (header::DEAD, "malformed")]);
    let (origin, to) = (origin.to_string(), format!("{} {}", to.kind(), to.name()));
    headers.extend([(header::ORIGIN, origin.as_str()), (TO, &to)]);
    let headers = serde_json::to_string(&headers).unwrap_or_default();
    let behind = format!(
        r#"","content-encoding":"binary","content-type":"application/data","headers":{headers},"properties":{{"body_encoding":"{HEX}","delivery_info":{{"exchange":"","routing_key":""}},"delivery_tag":"{}"}}}}"#,
        Uuid::new_v4()
    );
    (r#"{"body":""#.to_owned(), behind)
}

/// What cannot be read, as a dead letter: its bytes as the body, as far as they fit.
pub(crate) fn unreadable(raw: &Bytes, origin: &Origin, to: Address) -> Result<Message> {
    let mut headers = Headers::default();
    headers.set(header::VERSION, "1")?;
    headers.set(header::DEAD, "malformed")?;
    let body = raw.slice(..raw.len().min(MAX_MESSAGE - 256));
    Ok(Message::from_parts(to, headers, body)?.with_origin(origin))
}

/// Whether a reply may go to a list of this name: one that nobody can guess, so that a request cannot make a service push
/// into a queue of somebody else.
pub(crate) fn may_reply_to(name: &str) -> bool {
    let plain = name.len() <= 200
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:/".contains(&byte));
    let unguessable = |length: usize| {
        let windows = name.as_bytes().windows(length);
        windows
            .into_iter()
            .any(|window| std::str::from_utf8(window).is_ok_and(|text| Uuid::try_parse(text).is_ok()))
    };
    plain && (unguessable(36) || unguessable(32))
}

/// The id of a message that was given none: the same whenever and wherever it is read.
fn id_of(tag: &str) -> MessageId {
    MessageId(Uuid::try_parse(tag).unwrap_or_else(|_| {
        // FNV, twice: ids need be the same again, not hard to find.
        let half = |seed: u64| {
            tag.bytes().fold(seed, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
        };
        Uuid::from_u64_pair(half(0xcbf2_9ce4_8422_2325), half(0x8422_2325_cbf2_9ce4))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue() -> Source {
        Source::Queue(Key::new("jobs.a").unwrap())
    }

    /// As `commissaire_http` sends it, seen on the wire.
    const REQUEST: &str = r#"{"body": "eyJpZCI6IDF9", "content-encoding": "utf-8", "content-type": "application/json", "headers": {}, "properties": {"reply_to": "response-7c2c4b44-5f3b-4a52-9fd7-4e3c0b1f4e11", "delivery_mode": 2, "delivery_info": {"exchange": "commissaire", "routing_key": "storage.get"}, "priority": 0, "body_encoding": "base64", "delivery_tag": "0b1f6b5a-5b8e-4b1e-8f93-0d8a2b6ad0aa"}}"#;

    #[test]
    fn what_a_kombu_program_sends_is_read() {
        let source = Source::Service(Key::new("storage").unwrap());
        let letter = read(REQUEST.as_bytes(), &source).unwrap();
        assert_eq!(letter.message.address(), &Address::Service(Key::new("storage.get").unwrap()));
        assert_eq!(&letter.message.body()[..], br#"{"id": 1}"#);
        assert_eq!(letter.message.id().unwrap().to_string(), "0b1f6b5a-5b8e-4b1e-8f93-0d8a2b6ad0aa");
        assert_eq!(letter.asks.unwrap().0, "response-7c2c4b44-5f3b-4a52-9fd7-4e3c0b1f4e11");
        assert_eq!((letter.redelivered, letter.ours), (0, false));
        let again = again(&again(REQUEST.as_bytes()).unwrap()).unwrap();
        assert_eq!(read(&again, &source).unwrap().redelivered, 2);
    }

    #[test]
    fn json_within_a_json_string_is_read_as_that_json() {
        let text = REQUEST.replace("eyJpZCI6IDF9", &Base64::encode_string(br#""{\"id\": 1}""#));
        let source = Source::Service(Key::new("storage").unwrap());
        assert_eq!(&read(text.as_bytes(), &source).unwrap().message.body()[..], br#"{"id": 1}"#);
        let plain = REQUEST.replace("eyJpZCI6IDF9", "{}").replace(r#", "body_encoding": "base64""#, "");
        assert_eq!(
            &read(plain.replace("application/json", "text/plain").as_bytes(), &source)
                .unwrap()
                .message
                .body()[..],
            b"{}"
        );
    }

    #[test]
    fn what_was_written_is_read_as_it_was() {
        let message = Message::new(Address::Queue(Key::new("jobs.a").unwrap()), vec![0, 255, b'"']).unwrap();
        let message = message.with("x-own", "kept").unwrap();
        let postage = Postage { exchange: "commissaire", key: "jobs.a", ..Postage::default() };
        let letter = read(&write(&message, &postage), &queue()).unwrap();
        let sorted = |message: &Message| -> BTreeMap<String, String> {
            message.headers().iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
        };
        assert_eq!(sorted(&letter.message), sorted(&message));
        assert_eq!(letter.message.body(), message.body());
        assert!(letter.ours && letter.asks.is_none());
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        for text in [
            "",
            "x",
            "[]",
            "{}",
            &REQUEST.replace("eyJpZCI6IDF9", "eyJpZCI6IDF"),
            &REQUEST.replace("delivery_tag", "tag"),
            &REQUEST.replace("application/json", "application/x-python-serialize"),
            &REQUEST.replace(r#""headers": {}"#, r#""headers": {"compression": "application/x-gzip"}"#),
        ] {
            assert!(read(text.as_bytes(), &queue()).is_err(), "{text}");
        }
        let dotless = REQUEST.replace("storage.get", "a b");
        assert!(read(dotless.as_bytes(), &Source::Service(Key::new("storage").unwrap())).is_err());
    }

    #[test]
    fn bytes_that_are_no_message_become_the_body_of_a_dead_letter() {
        let origin = Origin::Queue(Key::new("jobs.a").unwrap());
        let (before, behind) = wrapping(&origin, &Address::Queue(Key::new("jobs.a").unwrap()));
        let letter = read(format!("{before}00ff{behind}").as_bytes(), &Source::DeadLetters(origin)).unwrap();
        assert_eq!(&letter.message.body()[..], [0, 255]);
        assert_eq!(letter.message.headers().get(header::DEAD), Some("malformed"));
    }

    #[test]
    fn replies_go_where_nobody_can_guess() {
        for good in
            ["response-7c2c4b44-5f3b-4a52-9fd7-4e3c0b1f4e11", "amq.gen-7c2c4b445f3b4a529fd74e3c0b1f4e11"]
        {
            assert!(may_reply_to(good), "{good}");
        }
        for bad in ["watcher", "unacked", "", "response-1", "7c2c4b44-5f3b-4a52-9fd7-4e3c0b1f4e11 x"] {
            assert!(!may_reply_to(bad), "{bad}");
        }
    }
}
