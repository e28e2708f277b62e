//! Durable subscriptions that nobody reads end, those that are read do not, and a program that ends looks no more.

use std::{sync::Arc, time::Duration};

use commissaire::{
    Address, Bus, BusOptions, Event, Key, Message, Pattern, Source, Token, What,
    app::{Services, SubscriptionExpired},
    config::{Config, Layers},
    connect,
};

const EXPIRY: Duration = Duration::from_secs(60);

fn config() -> Config {
    Layers::new().set("subscription_expiry_seconds", Some(EXPIRY.as_secs())).load().unwrap()
}

async fn bus() -> Arc<dyn Bus> {
    let options = BusOptions { idle_expiry: EXPIRY, ..BusOptions::default() };
    connect(&"memory://".parse().unwrap(), &options, commissaire_transports::ALL).await.unwrap()
}

fn durable(name: &str) -> Source {
    Source::Durable(Token::new(name).unwrap(), vec![Pattern::new("notify.#").unwrap()])
}

async fn names(bus: &Arc<dyn Bus>) -> Vec<String> {
    let declared = bus.survey().await.unwrap().declared.into_iter();
    let name = |what| if let What::Durable(name) = what { Some(name.to_string()) } else { None };
    declared.filter_map(|found| name(found.what)).collect()
}

#[tokio::test(start_paused = true)]
async fn a_forgotten_subscription_ends_and_that_is_announced_once() {
    let bus = bus().await;
    let services = Services::new(bus.clone(), &config());
    let pattern = Pattern::new(SubscriptionExpired::PATTERN).unwrap();
    let mut told = bus.subscribe(Source::Topic(vec![pattern]), 8).await.unwrap();
    let _read = bus.subscribe(durable("read"), 1).await.unwrap();
    drop(bus.subscribe(durable("forgotten"), 1).await.unwrap());
    let event = Message::new(Address::Topic(Key::new("notify.x").unwrap()), "1").unwrap();
    bus.publish(event).await.unwrap();

    tokio::time::sleep(EXPIRY - Duration::from_secs(1)).await;
    assert_eq!(names(&bus).await, ["forgotten", "read"]);
    tokio::time::sleep(EXPIRY / 5).await;
    assert_eq!(names(&bus).await, ["read"]);
    let heard = told.next_delivery().await.unwrap();
    let heard: SubscriptionExpired = serde_json::from_slice(heard.message().body()).unwrap();
    assert_eq!((heard.name.as_str(), heard.messages), ("forgotten", Some(1)));
    assert_eq!(heard.patterns, Some(vec!["notify.#".to_owned()]));
    assert!(heard.idle_seconds >= EXPIRY.as_secs(), "{heard:?}");

    tokio::time::sleep(EXPIRY * 10).await;
    assert_eq!(names(&bus).await, ["read"]);
    services.finish(Duration::from_secs(1)).await.unwrap();
    assert!(told.next_delivery().await.is_none(), "it was announced twice");
}

#[tokio::test(start_paused = true)]
async fn a_program_that_has_ended_removes_nothing() {
    let keeps = bus().await;
    drop(keeps.subscribe(durable("forgotten"), 1).await.unwrap());
    drop(Services::new(keeps.clone(), &config()));
    tokio::time::sleep(EXPIRY * 2).await;
    assert_eq!(names(&keeps).await, ["forgotten"]);
}

#[test]
fn an_expiry_of_nothing_is_refused() {
    let layers = Layers::new().set("subscription_expiry_seconds", Some(0));
    let error = layers.load().unwrap_err().to_string();
    assert!(error.contains("subscription_expiry_seconds"), "{error}");
}
