//! A dead letter as a record.

use commissaire::{
    Address, DeadLetter, Key, Message, Origin, Source,
    header::{DEAD, FAILED, LAST_FAILURE},
};

use crate::service::memory;

#[tokio::test]
async fn a_dead_letter_tells_where_and_why_it_died() {
    let bus = memory().await;
    let queue = Key::new("jobs.paint").unwrap();
    let body = "{\n  \"wall\" : \"a \\\" b\\\\\", \"n\": [1.50, 12345678901234567890]\r\n}";
    let message = Message::new(Address::Queue(queue.clone()), body).unwrap();
    let id = message.id().unwrap().to_string();
    bus.publish(message).await.unwrap();
    let mut jobs = bus.subscribe(Source::Queue(queue.clone()), 1).await.unwrap();
    jobs.next_delivery().await.unwrap().term("rejected", "no such\ncolour").await.unwrap();
    let mut dead = bus.subscribe(Source::DeadLetters(Origin::Queue(queue)), 1).await.unwrap();

    let letter = DeadLetter::of(dead.next_delivery().await.unwrap().message());
    assert_eq!(letter.id, Some(id.clone()));
    let line = serde_json::to_string(&letter).unwrap();
    assert!(!line.contains('\n'), "{line}");
    // The body is as it was sent, numbers and quotes included, but for the spaces between.
    assert!(line.ends_with(r#""body":{"wall":"a \" b\\","n":[1.50,12345678901234567890]}}"#), "{line}");
    let record: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(record["id"], id.as_str());
    assert_eq!(record["origin"], "queue jobs.paint");
    assert_eq!(record["address"], "queue jobs.paint");
    assert_eq!(record["cause"], "rejected");
    assert_eq!(record["attempts"], 1);
    assert_eq!(record["redriven"], 0);
    assert_eq!(record["last_failure"]["reason"], r"no such\ncolour");
    assert_eq!(record["first_failure"], record["last_failure"]);
    for name in [DEAD, FAILED, LAST_FAILURE] {
        assert!(record["headers"][name].is_string(), "{name} is not in {line}");
    }
}

#[test]
fn a_body_that_is_no_json_is_text() {
    let address = Address::Queue(Key::new("jobs.paint").unwrap());
    for (body, text) in [(&b"a\nb"[..], "\"a\\nb\""), (&b"\xff!"[..], "\"\u{fffd}!\""), (&b""[..], "\"\"")] {
        let letter = DeadLetter::of(&Message::new(address.clone(), body.to_vec()).unwrap());
        assert_eq!(serde_json::to_string(&letter.body).unwrap(), text);
    }
}
