//! The envelope reads back what was written, and survives everything else.

use commissaire::{
    Address, Headers, Inbox, Key, Message,
    envelope::{decode, encode},
    message::MAX_RECEIVED,
};
use proptest::{collection::vec, prelude::*, test_runner::Config};

fn messages() -> impl Strategy<Value = Message> {
    let key = "[a-z]{1,9}(\\.[A-Z0-9_-]{1,9}){1,3}";
    let address = (0..5_u8, key).prop_map(|(kind, key)| {
        let key = Key::new(key).unwrap();
        match kind {
            0 => Address::Service(key),
            1 => Address::Queue(key),
            2 => Address::Topic(key),
            3 => Address::Control(key),
            _ => Address::Inbox(Inbox::random()),
        }
    });
    let headers = vec(("[a-z0-9-]{1,64}", "[ -~]{0,80}"), 0..12);
    (address, headers, vec(any::<u8>(), 0..300)).prop_map(|(address, headers, body)| {
        headers.into_iter().fold(Message::new(address, body).unwrap(), |message, (name, value)| {
            // A random name may be one of the framework's own; then it is overwritten, which is as well.
            message.with(name, value).unwrap()
        })
    })
}

fn assert_same(left: &Message, right: &Message) {
    assert_eq!(left.address(), right.address());
    assert_eq!(left.headers(), right.headers());
    assert_eq!(left.body(), right.body());
}

/// What was read, if anything was, is a message like any other: within the limits, and it can be written again.
fn is_sound(bytes: Vec<u8>) {
    if let Ok(message) = decode(bytes.into()) {
        assert!(message.body().len() <= MAX_RECEIVED);
        assert!(
            message
                .headers()
                .iter()
                .all(|(name, value)| Headers::default().set(name.to_owned(), value).is_ok())
        );
        assert_same(&decode(encode(&message).into()).unwrap(), &message);
    }
}

proptest! {
    #![proptest_config(Config { cases: 4_000, failure_persistence: None, ..Config::default() })]

    #[test]
    fn a_message_reads_back(message in messages()) {
        assert_same(&decode(encode(&message).into()).unwrap(), &message);
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in vec(any::<u8>(), 0..200), first in 0..3_u8, kind in 0..7_u8) {
        is_sound(bytes.clone());
        is_sound([&[first, kind], &*bytes].concat());
    }

    #[test]
    fn a_mutated_envelope_is_read_or_refused(
        message in messages(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>(), 0..3_u8), 1..6),
    ) {
        let mut bytes = encode(&message);
        for (at, byte, change) in changes {
            let at = at.index(bytes.len().max(1));
            match change {
                _ if bytes.is_empty() => {}
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => drop(bytes.remove(at)),
            }
        }
        is_sound(bytes);
    }
}

#[test]
fn a_message_too_large_to_receive_is_refused() {
    let message = Message::new(Address::Topic(Key::new("a").unwrap()), "").unwrap();
    let head = encode(&message);
    for (size, fits) in [(MAX_RECEIVED - 200, true), (MAX_RECEIVED + 200, false), (4 * MAX_RECEIVED, false)] {
        let mut bytes = head.clone();
        bytes.resize(size, 0);
        assert_eq!(decode(bytes.into()).is_ok(), fits, "an envelope of {size} bytes");
    }
}

#[test]
fn every_cut_before_the_body_is_refused() {
    let message = Message::new(Address::Queue(Key::new("jobs.a").unwrap()), "the body").unwrap();
    let message = message.with("x-a", "1").unwrap().with("x-b", "22").unwrap();
    let bytes = encode(&message);
    let head = bytes.len() - message.body().len();
    for length in 0..bytes.len() {
        let read = decode(bytes[..length].to_vec().into());
        assert_eq!(read.is_ok(), length >= head, "cut to {length} of {} bytes gave {read:?}", bytes.len());
    }
}

#[test]
fn another_format_and_another_version_are_refused_by_name() {
    let message = Message::new(Address::Queue(Key::new("jobs.a").unwrap()), "").unwrap();
    let mut bytes = encode(&message);
    bytes[0] = 2;
    assert!(decode(bytes.into()).unwrap_err().to_string().contains("format 2"));
    let newer = message.with("bus-v", "2").unwrap();
    assert!(decode(encode(&newer).into()).unwrap_err().to_string().contains("version"));
}
