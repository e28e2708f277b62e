//! What no handler may see, whoever sends it; and answers that nobody waits for.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use commissaire::{
    Address, Bus, Client, Context, Inbox, Key, Message, Metrics, RpcError, Running, Service, Source, header,
    testkit::until,
};
use serde_json::Value;

use super::{Act, Add, Named, Raw, Sum, double::Double, key, memory};

const ASKED: &str = r#"{"jsonrpc":"2.0","id":7,"method":"add","params":[1,2]}"#;

async fn serve(bus: Arc<dyn Bus>, runs: &Arc<AtomicU32>, metrics: &Metrics) -> Running {
    Service::new("calc", runs.clone())
        .method(Add, async |runs: Arc<AtomicU32>, sum: Sum, _: Context| {
            runs.fetch_add(1, Ordering::Relaxed);
            Ok(sum.x + sum.y)
        })
        .metrics(metrics.clone())
        .start(bus)
        .await
        .unwrap()
}

fn counts(metrics: &Metrics, line: &str) -> bool {
    metrics.render().lines().any(|known| known == line)
}

fn call(to: Key) -> Message {
    Message::new(Address::Service(to), ASKED).unwrap()
}

#[tokio::test]
async fn a_reply_address_that_is_none_is_refused_and_counted() {
    let (bus, runs, metrics) = (memory().await, Arc::default(), Metrics::default());
    let _running = serve(bus.clone(), &runs, &metrics).await;
    let inbox = Inbox::random().to_string();
    let bad = [
        "calc.add".to_owned(),
        "$JS.API.STREAM.PURGE.ORD".to_owned(),
        String::new(),
        format!("{inbox}0"),
        format!("inbox {inbox}"),
        format!(" {inbox}"),
        inbox[1..].to_owned(),
    ];
    for reply in &bad {
        bus.publish(call(key("calc.add")).with(header::REPLY, reply.as_str()).unwrap()).await.unwrap();
    }
    let line = format!(r#"commissaire_refused_total{{reason="reply_address"}} {}"#, bad.len());
    until("all are refused", Duration::from_secs(5), async || counts(&metrics, &line)).await.unwrap();
    assert_eq!(runs.load(Ordering::Relaxed), 0);
    let mut raw = Raw::new(&bus).await;
    assert_eq!(raw.ask("calc.add", ASKED).await, r#"{"jsonrpc":"2.0","id":7,"result":3}"#);
}

async fn by_hand() -> Arc<Double> {
    Arc::new(Double { by_hand: true, ..Double::new().await })
}

#[tokio::test]
async fn a_call_that_another_had_in_hand_is_not_run_again_and_its_caller_is_told() {
    let (bus, runs, metrics) = (by_hand().await, Arc::default(), Metrics::default());
    let _running = serve(bus.clone(), &runs, &metrics).await;
    let inbox = Inbox::random();
    let mut answers = bus.subscribe(Source::Inbox(inbox), 4).await.unwrap();
    let message = call(key("calc.add"))
        .with(header::REPLY, inbox.to_string())
        .and_then(|message| message.with(header::CORRELATION, "0000000000000000000000000000002a"))
        .unwrap();
    let mut ended = bus.deliver(message.clone(), 1).await;
    let answer = answers.next_delivery().await.unwrap();
    assert_eq!(answer.message().headers().get(header::CORRELATION), Some("0000000000000000000000000000002a"));
    let answer: Value = serde_json::from_slice(answer.message().body()).unwrap();
    assert_eq!((&answer["id"], &answer["error"]["code"]), (&7.into(), &RpcError::UNAVAILABLE.into()));
    assert_eq!(answer["error"]["data"]["maybe_executed"], true);
    assert!(matches!(ended.recv().await, Some(Some(commissaire::Settlement::Ack))));
    assert!(counts(&metrics, r#"commissaire_refused_total{reason="redelivered"} 1"#), "{}", metrics.render());
    assert_eq!(runs.load(Ordering::Relaxed), 0);
    // The same message for the first time is run.
    let _ended = bus.deliver(message, 0).await;
    let answer = answers.next_delivery().await.unwrap();
    assert_eq!(&answer.message().body()[..], br#"{"jsonrpc":"2.0","id":7,"result":3}"#);
}

#[tokio::test]
async fn a_call_that_was_moved_from_another_address_is_refused() {
    let (bus, runs, metrics) = (by_hand().await, Arc::default(), Metrics::default());
    let _running = serve(bus.clone(), &runs, &metrics).await;
    for address in [
        Address::Service(key("other.add")),
        Address::Service(key("calc.deep.add")),
        Address::Queue(key("calc.add")),
        Address::Control(key("calc.add")),
    ] {
        let mut ended = bus.deliver(call(key("calc.add")).to(address), 0).await;
        assert!(matches!(ended.recv().await, Some(Some(commissaire::Settlement::Ack))));
    }
    assert!(
        counts(&metrics, r#"commissaire_refused_total{reason="misaddressed"} 4"#),
        "{}",
        metrics.render()
    );
    assert_eq!(runs.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_an_error_with_the_id_of_its_request() {
    let bus = memory().await;
    let _running = Service::new("calc", ())
        .method(Act, async |_, _: Named, _: Context| Ok("x".repeat(commissaire::MAX_MESSAGE)))
        .start(bus.clone())
        .await
        .unwrap();
    let mut raw = Raw::new(&bus).await;
    let body = r#"{"jsonrpc":"2.0","id":"mine","method":"act","params":["x"]}"#;
    let answer: Value = serde_json::from_str(&raw.ask("calc.act", body).await).unwrap();
    assert_eq!((&answer["id"], &answer["error"]["code"]), (&"mine".into(), &RpcError::TOO_LARGE.into()));
    let batch: Value = serde_json::from_str(&raw.ask("calc.batch", &format!("[{body}]")).await).unwrap();
    assert_eq!((&batch["id"], &batch["error"]["code"]), (&Value::Null, &RpcError::TOO_LARGE.into()));
}

#[tokio::test]
async fn answers_that_no_call_waits_for_are_counted() {
    let (bus, metrics) = (memory().await, Metrics::default());
    let mut calls = bus.subscribe(Source::Service(key("calc")), 8).await.unwrap();
    let client = Client::counted(bus.clone(), metrics.clone());
    let asked = tokio::spawn({
        let client = client.clone();
        async move { client.call(Add, &Sum { x: 1, y: 2 }).await }
    });
    let taken = calls.next_delivery().await.unwrap();
    let inbox = Address::Inbox(taken.message().reply_to().unwrap());
    let correlation = taken.message().headers().get(header::CORRELATION).unwrap();
    let answer = |correlation: Option<&str>, result: u8| {
        let body = format!(r#"{{"jsonrpc":"2.0","id":1,"result":{result}}}"#);
        let message = Message::new(inbox.clone(), body).unwrap();
        match correlation {
            Some(correlation) => message.with(header::CORRELATION, correlation).unwrap(),
            None => message,
        }
    };
    // Forged three times, the one that is meant, and a second one.
    bus.publish(answer(None, 1)).await.unwrap();
    bus.publish(answer(Some("0000000000000000000000000000002a"), 1)).await.unwrap();
    bus.publish(answer(Some("not a number"), 1)).await.unwrap();
    bus.publish(answer(Some(correlation), 3)).await.unwrap();
    bus.publish(answer(Some(correlation), 4)).await.unwrap();
    assert_eq!(asked.await.unwrap().unwrap(), 3);
    let line = "commissaire_stray_replies_total 4";
    until("strays are counted", Duration::from_secs(5), async || counts(&metrics, line)).await.unwrap();
}
