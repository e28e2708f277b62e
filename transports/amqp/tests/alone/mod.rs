//! What holds on RabbitMQ alone: its failures, its operators, its settings.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use commissaire::{
    Address, Bus, BusOptions, BusUri, Connection, Delivery, ErrorKind, Inbox, Key, Message, Origin, Pattern,
    Received, Result, Source, Subscription, Token,
    testkit::{Certificates, Outcome, Secure, Server, until, within},
};

use crate::shared;

mod alarm;
mod deletion;
mod leaving;
mod mandatory;
mod operators;
pub(crate) mod privilege;
mod recovery;
mod refusal;
mod tls;
mod young;

const LIMIT: Duration = Duration::from_secs(15);

/// A name space of one's own on a server that is shared.
fn exchange() -> Token {
    Token::new(format!("a{:016x}", rand::random::<u64>())).unwrap()
}

async fn connect(uri: &str, exchange: &Token) -> Result<Arc<dyn Bus>> {
    let options = BusOptions {
        exchange: exchange.clone(),
        client_name: format!("test of {exchange}"),
        ..BusOptions::default()
    };
    (commissaire_amqp::DRIVER.connect)(uri.parse::<BusUri>()?, options).await
}

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

fn patterns(texts: &[&str]) -> Vec<Pattern> {
    texts.iter().map(|text| Pattern::new(text).unwrap()).collect()
}

fn job(body: impl Into<String>) -> Message {
    Message::new(Address::Queue(key("jobs.test")), body.into()).unwrap()
}

fn jobs() -> Source {
    Source::Queue(key("jobs.test"))
}

fn call(body: impl Into<String>) -> Message {
    Message::new(Address::Service(key("svc.m")), body.into()).unwrap().with_ttl(LIMIT)
}

fn event(body: impl Into<String>) -> Message {
    Message::new(Address::Topic(key("t.x")), body.into()).unwrap()
}

async fn next(subscription: &mut Subscription) -> Delivery {
    within("a delivery", LIMIT, subscription.next_delivery()).await.unwrap().unwrap()
}

fn body(delivery: &Delivery) -> String {
    String::from_utf8(delivery.message().body().to_vec()).unwrap()
}

/// Closes the connections whose name begins with that of `exchange`'s clients, as an operator would.
async fn close_connections(server: &Server, exchange: &Token) -> Outcome<usize> {
    let listed = server.rabbitmqctl(&["list_connections", "pid", "client_properties"]).await?;
    let wanted = format!("test of {exchange}");
    let pids: Vec<&str> = listed
        .lines()
        .filter(|line| line.contains(&wanted))
        .filter_map(|line| line.split('\t').next())
        .collect();
    for pid in &pids {
        server.rabbitmqctl(&["close_connection", pid, "by an operator"]).await?;
    }
    Ok(pids.len())
}
