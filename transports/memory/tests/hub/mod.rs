//! What the process that keeps the bus keeps, and for how long.

use std::{sync::Arc, time::Duration};

use commissaire::{
    Address, Begun, Bus, BusOptions, ErrorKind, Key, Message, MessageId, Origin, Source, Subscription, Token,
    What,
    testkit::{until, within},
};

const LIMIT: Duration = Duration::from_secs(10);

async fn open(idle_expiry: Duration) -> Arc<dyn Bus> {
    let options = BusOptions { idle_expiry, ..BusOptions::default() };
    (commissaire_memory::DRIVER.connect)("memory://".parse().unwrap(), options).await.unwrap()
}

fn name() -> Token {
    Token::new("kept").unwrap()
}

async fn read(bus: &Arc<dyn Bus>) -> Subscription {
    let source = Source::Durable(name(), vec!["notify.#".parse().unwrap()]);
    bus.subscribe(source, 4).await.unwrap()
}

fn event(body: &str) -> Message {
    Message::new(Address::Topic(Key::new("notify.x").unwrap()), body.to_owned()).unwrap()
}

async fn next(subscription: &mut Subscription) -> commissaire::Delivery {
    within("a delivery", LIMIT, subscription.next_delivery()).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_durable_subscription_is_removed_once_nobody_has_read_it_for_long_enough() {
    const EXPIRY: Duration = Duration::from_millis(100);
    let bus = open(EXPIRY).await;
    let mut reader = read(&bus).await;
    tokio::time::sleep(EXPIRY * 2).await;
    // As long as it is read it is kept.
    bus.publish(event("read")).await.unwrap();
    next(&mut reader).await.ack().await.unwrap();
    let told = bus.survey().await.unwrap().declared;
    assert_eq!((&told[0].what, told[0].waiting), (&What::Durable(name()), Some(0)));
    drop(reader);
    bus.publish(event("kept")).await.unwrap();
    assert!(!bus.remove_durable(&name(), Some(EXPIRY)).await.unwrap());
    tokio::time::sleep(EXPIRY * 2).await;
    assert!(bus.remove_durable(&name(), Some(EXPIRY)).await.unwrap());
    bus.publish(event("not kept")).await.unwrap();
    assert_eq!(bus.survey().await.unwrap().declared, []);
    let mut reader = read(&bus).await;
    bus.publish(event("new")).await.unwrap();
    assert_eq!(&next(&mut reader).await.message().body()[..], b"new");
}

#[tokio::test]
async fn what_was_in_hand_of_a_removed_subscription_does_not_come_back() {
    let bus = open(LIMIT).await;
    let mut reader = read(&bus).await;
    for body in ["dropped", "tried again", "dead", "done"] {
        bus.publish(event(body)).await.unwrap();
    }
    let (dropped, again) = (next(&mut reader).await, next(&mut reader).await);
    let (dead, done) = (next(&mut reader).await, next(&mut reader).await);
    assert!(bus.remove_durable(&name(), None).await.unwrap());
    drop(dropped);
    again.nack(Duration::ZERO, "no").await.unwrap();
    dead.term("rejected", "no").await.unwrap();
    done.ack().await.unwrap();
    bus.publish(event("new")).await.unwrap();
    let new = next(&mut reader).await;
    assert_eq!(&new.message().body()[..], b"new");
    let told = bus.survey().await.unwrap().declared;
    let counts: Vec<_> = told.iter().map(|told| (told.waiting, told.in_hand, told.resting)).collect();
    // The one that died is among the dead letters: they are sorted first.
    assert_eq!(counts, [(Some(1), Some(0), Some(0)), (Some(0), Some(1), Some(0))]);
}

#[tokio::test]
async fn a_dead_letter_without_a_subscription_to_go_back_to_stays() {
    let bus = open(LIMIT).await;
    let mut reader = read(&bus).await;
    bus.publish(event("dead")).await.unwrap();
    next(&mut reader).await.term("rejected", "no").await.unwrap();
    drop(reader);
    let left = async || bus.survey().await.unwrap().declared.iter().all(|told| told.consumers == Some(0));
    until("the reader has left", LIMIT, left).await.unwrap();
    assert!(bus.remove_durable(&name(), None).await.unwrap());
    let mut letters = bus.subscribe(Source::DeadLetters(Origin::Durable(name())), 1).await.unwrap();
    let error = next(&mut letters).await.redrive().await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Topology, "{error}");
    assert!(!error.may_have_executed());
    let mut reader = read(&bus).await;
    next(&mut letters).await.redrive().await.unwrap();
    assert_eq!(next(&mut reader).await.message().redriven(), 1);
}

#[tokio::test]
async fn the_ledger_forgets_the_oldest_of_too_many() {
    let bus = open(LIMIT).await;
    let (ledger, place) = (bus.ledger().unwrap(), Origin::Queue(Key::new("jobs.x").unwrap()));
    let ids: Vec<MessageId> = (0..100_001).map(|_| MessageId::new()).collect();
    let window = Duration::from_secs(3_600);
    for id in &ids {
        assert_eq!(ledger.begin(&place, *id, 1, LIMIT).await.unwrap(), Begun::Fresh);
        ledger.end(&place, *id, 1, Some(window)).await.unwrap();
    }
    assert_eq!(ledger.begin(&place, ids[1], 1, LIMIT).await.unwrap(), Begun::Done);
    assert_eq!(ledger.begin(&place, ids[100_000], 1, LIMIT).await.unwrap(), Begun::Done);
    assert_eq!(ledger.begin(&place, ids[0], 1, LIMIT).await.unwrap(), Begun::Fresh);
}

#[tokio::test]
async fn the_ledger_forgets_what_was_done_when_its_window_is_over() {
    let bus = open(LIMIT).await;
    let (ledger, place) = (bus.ledger().unwrap(), Origin::Queue(Key::new("jobs.x").unwrap()));
    let id = MessageId::new();
    ledger.begin(&place, id, 1, LIMIT).await.unwrap();
    ledger.end(&place, id, 1, Some(Duration::from_millis(200))).await.unwrap();
    assert_eq!(ledger.begin(&place, id, 2, LIMIT).await.unwrap(), Begun::Done);
    tokio::time::sleep(Duration::from_millis(250)).await;
    assert_eq!(ledger.begin(&place, id, 2, LIMIT).await.unwrap(), Begun::Fresh);
}
