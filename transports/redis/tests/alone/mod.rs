//! What holds on Redis alone: its failures, its settings, its keys.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use commissaire::{
    Address, Begun, Bus, BusOptions, BusUri, Connection, Durability, ErrorKind, Inbox, Key, Message,
    MessageId, Origin, Pattern, Received, Result, Source, Subscription, Token, What,
    testkit::{Certificates, Outcome, Secure, Server, until, within},
};
use redis::Value;

mod leftover;
mod operating;
pub(crate) mod privilege;
mod proxy;
mod recovery;
mod refusal;
mod tls;
mod watching;

const LIMIT: Duration = Duration::from_secs(15);

async fn connect(uri: &str) -> Result<Arc<dyn Bus>> {
    (commissaire_redis::DRIVER.connect)(uri.parse::<BusUri>()?, BusOptions::default()).await
}

/// Connects; a durable subscription that is made there expires after `idle`.
async fn connect_with(uri: &str, idle: Duration) -> Result<Arc<dyn Bus>> {
    let options = BusOptions { idle_expiry: idle, ..BusOptions::default() };
    (commissaire_redis::DRIVER.connect)(uri.parse::<BusUri>()?, options).await
}

async fn admin(server: &Server) -> redis::aio::MultiplexedConnection {
    let client = redis::Client::open(server.uri()).unwrap();
    // The library's own bounds are for a server that nothing else keeps busy.
    let patient = redis::AsyncConnectionConfig::new()
        .set_connection_timeout(Some(LIMIT))
        .set_response_timeout(Some(LIMIT));
    client.get_multiplexed_async_connection_with_config(&patient).await.unwrap()
}

async fn order(server: &Server, words: &[&str]) -> Value {
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]);
    command.query_async(&mut admin(server).await).await.unwrap()
}

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

fn job(body: impl Into<String>) -> Message {
    Message::new(Address::Queue(key("jobs.test")), body.into()).unwrap()
}

fn event(body: impl Into<String>) -> Message {
    Message::new(Address::Topic(key("t.x")), body.into()).unwrap()
}

fn durable() -> Source {
    Source::Durable(Token::new("d").unwrap(), vec![Pattern::new("t.#").unwrap()])
}

fn jobs() -> Source {
    Source::Queue(key("jobs.test"))
}

async fn next(subscription: &mut Subscription) -> commissaire::Delivery {
    within("a delivery", LIMIT, subscription.next_delivery()).await.unwrap().unwrap()
}

fn body(delivery: &commissaire::Delivery) -> String {
    String::from_utf8(delivery.message().body().to_vec()).unwrap()
}
