//! What must hold for anything that the server says, in functions as those of `commissaire::testkit::fuzz`.

use commissaire::{Key, Token, testkit::fuzz};
use redis::Value;

use crate::{
    durable,
    keys::{Keys, glob_matches},
    listen::entry::{Entry, EntryId},
    publish::Bindings,
    value::{int, items, millis, pairs, text, two},
    wire::no_error,
};

#[test]
fn what_the_server_says_is_read_or_refused() {
    fuzz::check(&[("redis_id", id), ("redis_key", key), ("redis_answer", answer)]);
}

/// The id of an entry is read as it is written.
fn id(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(id) = text.parse::<EntryId>() else { return };
    assert_eq!(id.to_string().parse(), Ok(id));
    assert!(text.bytes().all(|byte| byte.is_ascii_digit() || b"-+".contains(&byte)), "{text:?}");
}

/// A key belongs to what made it, and to nothing else; a channel to its event.
fn key(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(exchange) = Token::new("x") else { return };
    let keys = Keys::new(&exchange);
    if let Some(what) = keys.what(text) {
        assert!(text.starts_with("bus:{x}:1:"), "{text:?} is {what}");
        let name = what.to_string();
        let name = name.rsplit(' ').next().unwrap_or_default();
        assert!(text.contains(name), "{text:?} is {what}");
    }
    if let Some(key) = keys.event_of(text).and_then(|key| Key::new(key).ok()) {
        assert_eq!(keys.event(&key), text);
        assert!(glob_matches(&keys.all_events(), text));
    }
    let (glob, name) = text.split_once('\n').unwrap_or((text, text));
    if !glob.contains('*') {
        assert_eq!(glob_matches(glob, name), glob == name);
    }
}

/// Whatever shape an answer has, it is read or passed over; a refusal is told in words that can be shown.
fn answer(data: &[u8]) {
    let Ok(value) = redis::parse_redis_value(data) else { return };
    let _ = (int(&value), millis(value.clone()), text(value.clone()), two(value.clone()));
    let _ = (items(value.clone()), pairs(value.clone()), durable::read(value.clone()));
    if let Some(entry) = Entry::read(value.clone()) {
        let _ = entry.message();
    }
    let _ = Bindings::read(Some(value.clone()), Some(value.clone()));
    for (name, value) in pairs(value.clone()) {
        let _ = (text(name), durable::read(value));
    }
    if let Value::Array(all) = value.clone() {
        all.into_iter().for_each(|value| drop(Entry::read(value)));
    }
    if let Err(fault) = no_error(value) {
        let _ = (fault.passes(), fault.is_final(), fault.is("OOM"));
        let shown = fault.about("bus:{x}:1:q:a").into_error("asking").to_string();
        assert!(!shown.contains(char::is_control), "{shown:?}");
        assert!(shown.len() < 1_000, "{} bytes are shown", shown.len());
    }
}
