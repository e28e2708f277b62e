//! What must hold for anything that the server says, in functions as those of `commissaire::testkit::fuzz`.

use std::sync::Arc;

use bytes::Bytes;
use commissaire::{Token, testkit::fuzz};
use serde_json::{Value, json};

use crate::{clock, fitness, js, listen, mux, names::Names, registry};

#[test]
fn what_the_server_says_is_read_or_refused() {
    fuzz::check(&[
        ("nats_ack", ack),
        ("nats_subject", subject),
        ("nats_time", time),
        ("nats_answer", answer),
        ("nats_version", version),
    ]);
}

/// A subject that settles names a delivery, and nothing but a delivery.
fn ack(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let place: Arc<str> = "s.w".into();
    let Some(token) = listen::token(&place, &text.into()) else { return };
    assert!(text.starts_with("$JS.ACK."), "{text:?} would be answered to");
    assert_eq!(token.ack.as_str(), text);
    for number in [token.delivered, token.stored.seq, token.stored.time] {
        let read = |word: &str| word.parse() == Ok(number);
        assert!(text.split('.').any(read), "{number} is not in {text:?}");
    }
}

/// Only what this bus has made up is answered to; and an origin is read as it is written.
fn subject(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(exchange) = Token::new("x") else { return };
    let names = Names::new(&exchange);
    if let Some(back) = names.read_back(text) {
        let id = text.rsplit('.').nth(1).unwrap_or_default();
        assert_eq!(format!("{}.{}", names.back(back.prefix, id), back.word), text);
        assert!(!text.contains(['*', '>', '$', ' ']), "{text:?}");
    }
    if let Some(origin) = names.read_origin(text, "") {
        assert_eq!(names.work(&origin), text);
    }
    if let Some(origin) = names.read_origin(text, "d.") {
        assert_eq!(names.dead(&origin), text);
    }
    let _ = mux::id(text);
}

/// A time is read as it is written.
fn time(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Some(read) = clock::time(&Value::from(text)) else { return };
    // The plainest calendar: a year after the other.
    let (mut days, mut year) = (read.as_secs() / 86_400, 1970);
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let length = |year| 365 + u64::from(leap(year));
    while days >= length(year) {
        days -= length(year);
        year += 1;
    }
    let mut month = 1;
    for most in [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < most {
            break;
        }
        days -= most;
        month += 1;
    }
    let of_day = read.as_secs() % 86_400;
    let clock = format!("{:02}:{:02}:{:02}", of_day / 3600, of_day / 60 % 60, of_day % 60);
    let written = format!("{year:04}-{month:02}-{:02}T{clock}", days + 1);
    let (seconds, fraction) = text.trim_end_matches('Z').split_once('.').unwrap_or((text, ""));
    assert_eq!(written, seconds.trim_end_matches('Z'), "{text:?}");
    assert_eq!(
        format!("{:0<9}", fraction).get(..9),
        Some(&*format!("{:09}", read.subsec_nanos())),
        "{text:?}"
    );
}

/// An answer of JetStream is read, or told in words that can be shown.
fn answer(data: &[u8]) {
    let payload = Bytes::copy_from_slice(data);
    for error in [js::read(&payload).err(), js::stored(&payload).err()].into_iter().flatten() {
        let _ = (error.passes(), error.is_full(), error.is_absent());
        let shown = error.into_error("asking").to_string();
        assert!(!shown.contains(char::is_control), "{shown:?}");
        assert!(shown.len() < 1_000, "{} bytes are shown", shown.len());
    }
    if let Some(read) = std::str::from_utf8(data).ok().and_then(registry::base64) {
        assert!(read.len() <= data.len() / 4 * 3 + 2);
    }
    registry::Wanted::new(Token::new("d").expect("a token"), Vec::new()).take(data);
    let message = js::read(&payload).map_or(json!({}), |mut answer| answer["message"].take());
    let _ = clock::time(&message["time"]);
}

/// A version is two numbers, or none.
fn version(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Some((major, minor)) = fitness::version(text) {
        let mut numbers = text.trim_start_matches('v').split(['.', '-']).map(str::parse);
        assert_eq!((numbers.next(), numbers.next()), (Some(Ok(major)), Some(Ok(minor))), "{text:?}");
    }
}
