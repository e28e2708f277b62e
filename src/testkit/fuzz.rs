//! What must hold for any bytes from outside: one function each, which panics when it does not.
//!
//! They are run over their corpus and mutations of it by the tests ([`check`]), and with coverage by `cargo fuzz` in
//! `integration/fuzz`. What brokers say is read by the transports, which run functions of their own so.

mod corpus;

use bytes::Bytes;
use serde_json::Value;

use crate::{
    address::{Address, Inbox, Key, Token},
    config::{Layers, NoMembers, OwnMembers},
    driver::BusUri,
    envelope,
    jsonrpc::{
        Incoming, MAX_DEPTH, MAX_KEYS, RpcError, check as check_json, from_params, read_request,
        read_response, write_request,
    },
    message::{Headers, MAX_HEADER_NAME, MAX_HEADER_VALUE, Message, header},
    pattern::Pattern,
    trace::Trace,
};

pub use self::corpus::check;

/// What stands for a secret.
const CANARY: &str = "c4n4ry";

/// All of them, by name.
pub const ALL: &[(&str, fn(&[u8]))] = &[
    ("envelope", envelope),
    ("pattern", pattern),
    ("uri", uri),
    ("json", json),
    ("config", config),
    ("headers", headers),
];

/// An envelope that can be read is written and read as the same message.
pub fn envelope(data: &[u8]) {
    let Ok(message) = envelope::decode(Bytes::copy_from_slice(data)) else { return };
    let again = envelope::decode(envelope::encode(&message).into()).expect("what was read can be written");
    assert_eq!(message.address(), again.address());
    assert_eq!(message.headers(), again.headers());
    assert_eq!(message.body(), again.body());
    let _ = (message.id(), message.ttl(), message.reply_to(), message.failed(), message.redriven());
    assert!(!format!("{message:?}").contains(char::is_control), "a message shows control characters");
}

/// A pattern and a key, on a line each: the grammar is kept, and they match as the plainest matcher says.
pub fn pattern(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (pattern, key) = text.split_once('\n').unwrap_or((text, text));
    let word = |word: &str| {
        (1..=64).contains(&word.len())
            && word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
    };
    let well = |text: &str, wild: bool| {
        text.len() <= 200
            && text.split('.').count() <= 16
            && text.split('.').all(|part| word(part) || (wild && matches!(part, "*" | "#")))
    };
    let (pattern_read, key_read) = (Pattern::new(pattern), Key::new(key));
    assert_eq!(pattern_read.is_ok(), well(pattern, true), "pattern {pattern:?}");
    assert_eq!(key_read.is_ok(), well(key, false), "key {key:?}");
    assert_eq!(Token::new(key).is_ok(), word(key), "token {key:?}");
    for error in [pattern_read.as_ref().err(), key_read.as_ref().err()].into_iter().flatten() {
        assert!(!error.to_string().contains(char::is_control), "{error:?}");
    }
    if let (Ok(pattern), Ok(key)) = (pattern_read, key_read) {
        let words: Vec<&str> = pattern.words().collect();
        let tokens: Vec<&str> = key.tokens().collect();
        assert_eq!(pattern.matches(&key), plain(&words, &tokens), "{pattern:?} {key:?}");
        let address = Address::Topic(key);
        assert_eq!(Address::parse(address.kind(), &address.name()).ok(), Some(address));
    }
}

/// The plainest matcher: which beginnings of the key each beginning of the pattern covers.
fn plain(pattern: &[&str], key: &[&str]) -> bool {
    let mut covered = vec![false; key.len() + 1];
    covered[0] = true;
    for word in pattern {
        let before = covered.clone();
        for length in 0..=key.len() {
            covered[length] = match *word {
                "#" => before[length] || (length > 0 && covered[length - 1]),
                "*" => length > 0 && before[length - 1],
                word => length > 0 && before[length - 1] && key[length - 1] == word,
            };
        }
    }
    covered[key.len()]
}

/// Five parts of a URI, on a line each: what stands between a password's colon and the host is never shown.
pub fn uri(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut parts = text.split('\n');
    let mut part = || parts.next().unwrap_or_default();
    let (begin, user, before, behind, end) = (part(), part(), part(), part(), part());
    // What the user's name or what follows the host says is no secret; nor is what stands in no URI at all.
    let shows = |part: &&str| {
        // As a URI is read: tabs and ends of lines count for nothing.
        let part: String = part.chars().filter(|c| !c.is_control()).collect();
        part.to_lowercase().contains(CANARY)
    };
    if [begin, user, end].iter().any(shows) {
        return;
    }
    let slashes = begin.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || "+.-".contains(c));
    if !matches!(slashes, ":" | ":/" | "://" | ":///" | ":////")
        || user.contains(['/', '?', '#', '@', ':', '\\'])
    {
        return;
    }
    let text = format!("{begin}{user}:{before}{CANARY}{behind}@{end}");
    let shown = match text.parse::<BusUri>() {
        Ok(uri) => {
            let known = uri.options(&["durability"]).err().map(|error| error.chain());
            format!("{uri} {uri:?} {uri:#?} {known:?}")
        }
        Err(error) => format!("{error} {error:?} {}", error.chain()),
    };
    assert!(!shown.to_lowercase().contains(CANARY), "{text:?} is shown as {shown}");
}

/// JSON passes if it is JSON, is not too deep, has not too many members, and none of them twice.
pub fn json(data: &[u8]) {
    let (mut depth, mut deepest, mut members, mut text, mut escaped) = (0_usize, 0, 0, false, false);
    for byte in data {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if text => escaped = true,
            b'"' => text = !text,
            _ if text => {}
            b'[' | b'{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            b':' => members += 1,
            _ => {}
        }
    }
    let value = serde_json::from_slice::<Value>(data).ok();
    let single = value.as_ref().is_some_and(|value| count(value) == members);
    let well = single && deepest <= MAX_DEPTH && members <= MAX_KEYS;
    let checked = check_json(data);
    assert_eq!(checked.is_ok(), well, "{checked:?} {members} members, {deepest} deep");
    if let Err(error) = checked {
        assert!(matches!(error.code, RpcError::PARSE | RpcError::INVALID_REQUEST), "{error:?}");
        assert!(!error.message.contains(char::is_control), "{error:?}");
    }
    let _ = read_response(data);
    if let Ok(Incoming::One(Ok(request))) = read_request(data) {
        let written = write_request(request.id.as_ref(), &request.method, request.params.as_deref());
        let Ok(Incoming::One(Ok(again))) = read_request(&written) else {
            panic!("what was read cannot be written: {request:?}");
        };
        assert_eq!(request.method, again.method);
        assert_eq!(request.id.map(|id| id.as_json().to_owned()), again.id.map(|id| id.as_json().to_owned()));
        assert_eq!(request.params.map(|json| json.to_string()), again.params.map(|json| json.to_string()));
        let _ = from_params::<Vec<String>>(again_params(&written).as_deref());
    }
}

fn again_params(written: &[u8]) -> Option<Box<serde_json::value::RawValue>> {
    match read_request(written) {
        Ok(Incoming::One(Ok(request))) => request.params,
        _ => None,
    }
}

fn count(value: &Value) -> usize {
    match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(members) => members.values().map(|value| 1 + count(value)).sum(),
        _ => 0,
    }
}

/// A configuration that cannot be read is told without what stands in it; one that can says of each value where it was set.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let text = text.replace('\u{7f}', CANARY);
    let layers = match Layers::new().section("simple", OwnMembers::of::<NoMembers>()).text("some.conf", &text)
    {
        Ok(layers) => layers,
        Err(error) => {
            let shown = format!("{error} {error:?} {}", error.chain());
            assert!(!shown.contains(CANARY), "{shown}");
            assert!(!shown.contains(char::is_control), "{shown:?}");
            return;
        }
    };
    let settings = match layers.load() {
        Ok(config) => config.settings(),
        Err(error) => {
            let shown = error.chain();
            assert!(!shown.contains(|c: char| c.is_control() && c != '\n'), "{shown:?}");
            return;
        }
    };
    for setting in settings {
        assert!(!setting.member.is_empty() && !setting.from.to_string().is_empty(), "{setting:?}");
        let secret = setting.member.last().is_some_and(|name| name.contains("password"));
        assert!(!secret || !setting.value.to_string().contains(CANARY), "{setting:?}");
    }
}

/// A header's name and its value, on a line each: the grammar is kept, and what the framework reads of it is read back.
pub fn headers(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (name, value) = text.split_once('\n').unwrap_or((text, text));
    let well = (1..=MAX_HEADER_NAME).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && value.len() <= MAX_HEADER_VALUE
        && value.bytes().all(|b| (b' '..=b'~').contains(&b));
    let mut headers = Headers::default();
    let set = headers.set(name.to_owned(), value);
    assert_eq!(set.is_ok(), well, "{name:?} {value:?}");
    assert_eq!(headers.get(name), well.then_some(value));
    if let Err(error) = set {
        assert!(!error.to_string().contains(char::is_control), "{error:?}");
    }
    if let Some(trace) = Trace::parse(value) {
        assert_eq!(Trace::parse(&trace.to_string()), Some(trace));
    }
    if let Ok(inbox) = value.parse::<Inbox>() {
        assert_eq!(inbox.to_string(), value);
    }
    if !well {
        return;
    }
    let Ok(message) = Key::new("n.a").and_then(|key| Message::new(Address::Topic(key), "")) else { return };
    for name in [header::TTL, header::ID, header::REPLY, header::FAILED, header::REDRIVEN, header::DEAD, name]
    {
        let Ok(message) = message.clone().with(name.to_owned(), value) else { continue };
        let _ = (message.id(), message.ttl(), message.reply_to(), message.failed(), message.redriven());
        let letter = crate::dead::DeadLetter::of(&message);
        assert!(serde_json::to_string(&letter).is_ok(), "{letter:?}");
    }
}
