//! What holds on NATS alone: its failures, its settings, its names.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use commissaire::{
    Address, Bus, BusOptions, BusUri, Connection, Delivery, Durability, Error, ErrorKind, Inbox, Key,
    Message, Origin, Pattern, Received, Result, Source, Subscription, Token, header,
    testkit::{Certificates, Lateness, Outcome, Proxy, Secure, Server, Traffic, Way, until, within},
};
use futures_util::StreamExt;
use serde_json::{Value, json};

mod calls;
mod deletion;
mod durables;
pub(crate) mod privilege;
mod recovery;
mod refusal;
mod resting;
mod tls;

const LIMIT: Duration = Duration::from_secs(15);

async fn connect(uri: &str) -> Result<Arc<dyn Bus>> {
    (commissaire_nats::DRIVER.connect)(uri.parse::<BusUri>()?, BusOptions::default()).await
}

/// A client of an administrator.
async fn admin(server: &Server) -> async_nats::Client {
    async_nats::connect(server.uri()).await.unwrap()
}

/// Waits until the server knows all that `admin` has subscribed to.
async fn known(admin: &async_nats::Client) {
    admin.request("$JS.API.INFO", "".into()).await.unwrap();
}

/// Asks JetStream as an administrator.
async fn api(server: &Server, name: &str, body: Value) -> Value {
    let text = if body.is_null() { String::new() } else { body.to_string() };
    let answer = admin(server)
        .await
        .request(format!("$JS.API.{name}"), text.into())
        .await
        .unwrap_or_else(|error| panic!("{name}: {error}"));
    serde_json::from_slice(&answer.payload).unwrap()
}

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

fn token(text: &str) -> Token {
    Token::new(text).unwrap()
}

fn patterns(text: &str) -> Vec<Pattern> {
    text.split(' ').map(|text| Pattern::new(text).unwrap()).collect()
}

fn message(address: Address, body: impl Into<String>) -> Message {
    Message::new(address, body.into()).unwrap()
}

fn job(body: impl Into<String>) -> Message {
    message(Address::Queue(key("jobs.test")), body)
}

fn event(text: &str, body: impl Into<String>) -> Message {
    message(Address::Topic(key(text)), body)
}

fn call(body: impl Into<String>) -> Message {
    message(Address::Service(key("svc.m")), body)
}

fn jobs() -> Source {
    Source::Queue(key("jobs.test"))
}

fn durable(name: &str, wanted: &str) -> Source {
    Source::Durable(token(name), patterns(wanted))
}

async fn next(subscription: &mut Subscription) -> Delivery {
    within("a delivery", LIMIT, subscription.next_delivery()).await.unwrap().unwrap()
}

/// The next delivery's body, acknowledged.
async fn take(subscription: &mut Subscription) -> String {
    let delivery = next(subscription).await;
    let text = body(&delivery);
    delivery.ack().await.unwrap();
    text
}

fn body(delivery: &Delivery) -> String {
    String::from_utf8(delivery.message().body().to_vec()).unwrap()
}
