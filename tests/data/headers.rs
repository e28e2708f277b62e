//! The limits of headers and messages.

use std::time::Duration;

use commissaire::{
    Address, ErrorKind, Headers, Key, Message,
    message::{MAX_HEADER_NAME, MAX_HEADER_VALUE, MAX_HEADERS, MAX_MESSAGE},
};

fn address() -> Address {
    Address::Queue(Key::new("jobs.a").unwrap())
}

#[test]
fn names_are_of_small_letters_digits_and_hyphens() {
    for name in ["a", "x-1", "0", &"n".repeat(MAX_HEADER_NAME)] {
        assert!(Headers::default().set(name.to_owned(), "v").is_ok(), "{name:?} was refused");
    }
    for name in ["", "A", "a_b", "a b", "a:", "a\r\nb", "ä", "\0", &"n".repeat(MAX_HEADER_NAME + 1)] {
        let refused = Headers::default().set(name.to_owned(), "v").map_err(|e| e.kind().clone());
        assert_eq!(refused, Err(ErrorKind::Invalid), "{name:?}");
    }
}

#[test]
fn values_are_visible_ascii_and_spaces() {
    for value in ["", " ", "~", &"v".repeat(MAX_HEADER_VALUE)] {
        assert!(Headers::default().set("x", value).is_ok(), "{value:?} was refused");
    }
    for value in ["\n", "a\r\nb: c", "\0", "\x7f", "ä", "\u{1b}[31m", &"v".repeat(MAX_HEADER_VALUE + 1)] {
        let refused = Headers::default().set("x", value).map_err(|e| e.kind().clone());
        assert_eq!(refused, Err(ErrorKind::Invalid), "{value:?}");
    }
}

#[test]
fn there_is_a_most_of_headers_and_old_ones_can_still_change() {
    let mut headers = Headers::default();
    for number in 0..MAX_HEADERS {
        headers.set(format!("x-{number}"), "v").unwrap();
    }
    assert!(headers.set("one-more", "v").is_err());
    headers.set("x-0", "other").unwrap();
    assert_eq!(headers.get("x-0"), Some("other"));
    assert_eq!(headers.remove("x-1").as_deref(), Some("v"));
    assert_eq!(headers.get("x-1"), None);
    headers.set("one-more", "v").unwrap();
    assert_eq!(headers.iter().len(), MAX_HEADERS);
}

#[test]
fn a_message_over_the_limit_cannot_be_made() {
    assert!(Message::new(address(), vec![0; MAX_MESSAGE - 512]).is_ok());
    let body = Message::new(address(), vec![0; MAX_MESSAGE + 1]).map_err(|e| e.kind().clone());
    assert_eq!(body.err(), Some(ErrorKind::TooLarge));
    let nearly = Message::new(address(), vec![0; MAX_MESSAGE - 1_000]).unwrap();
    let header = nearly.with("x", "v".repeat(2_000)).map_err(|e| e.kind().clone());
    assert_eq!(header.err(), Some(ErrorKind::TooLarge));
}

#[test]
fn a_time_to_live_reads_back_and_is_never_nothing() {
    let ttl = |ttl| Message::new(address(), "").unwrap().with_ttl(ttl).ttl();
    assert_eq!(ttl(Duration::from_millis(1_500)), Some(Duration::from_millis(1_500)));
    assert_eq!(ttl(Duration::ZERO), Some(Duration::from_millis(1)));
    assert_eq!(ttl(Duration::from_nanos(1)), Some(Duration::from_millis(1)));
    assert_eq!(Message::new(address(), "").unwrap().ttl(), None);
    assert!(ttl(Duration::MAX) > Some(Duration::from_secs(1 << 40)));
}

#[test]
fn a_message_never_shows_its_body() {
    let message = Message::new(address(), "c4n4ry").unwrap();
    assert!(!format!("{message:?}").contains("c4n4ry"));
}
