//! Client and service together, over `memory://`.

mod actors;
mod calls;
mod cancel;
mod double;
mod drain;
mod events;
mod jobs;
mod layers;
mod once;
mod refused;
mod wire;

use std::sync::Arc;

use commissaire::{Address, Bus, BusOptions, Inbox, Key, Message, Source, Subscription, connect, header};
use serde::{Deserialize, Serialize};

/// Two numbers.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sum {
    pub(crate) x: i64,
    pub(crate) y: i64,
}

/// One name.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Named {
    pub(crate) name: String,
}

commissaire::method! {
    /// Adds.
    pub(crate) Add = "calc.add": Sum => i64, idempotent
}

commissaire::method! {
    /// Does what its name says.
    pub(crate) Act = "calc.act": Named => String
}

commissaire::job! {
    /// Work.
    pub(crate) Work = "jobs.work": Named
}

pub(crate) async fn memory() -> Arc<dyn Bus> {
    let uri = "memory://".parse().expect("a URI");
    connect(&uri, &BusOptions::default(), commissaire_transports::ALL).await.expect("a bus in memory")
}

pub(crate) fn key(text: &str) -> Key {
    Key::new(text).expect("a key")
}

/// A caller that writes its own bytes.
pub(crate) struct Raw {
    bus: Arc<dyn Bus>,
    inbox: Inbox,
    answers: Subscription,
}

impl Raw {
    pub(crate) async fn new(bus: &Arc<dyn Bus>) -> Self {
        let inbox = Inbox::random();
        let answers = bus.subscribe(Source::Inbox(inbox), 64).await.expect("an inbox");
        Self { bus: bus.clone(), inbox, answers }
    }

    pub(crate) async fn send(&self, to: &str, body: &str) {
        let message = Message::new(Address::Service(key(to)), body.to_owned())
            .and_then(|message| message.with(header::REPLY, self.inbox.to_string()))
            .and_then(|message| message.with(header::CORRELATION, "0000000000000000000000000000002a"))
            .expect("a small message");
        self.bus.publish(message).await.expect("someone who answers");
    }

    /// The next answer, whatever it answers.
    pub(crate) async fn answer(&mut self) -> String {
        let delivery = self.answers.next_delivery().await.expect("an answer");
        assert_eq!(
            delivery.message().headers().get(header::CORRELATION),
            Some("0000000000000000000000000000002a")
        );
        String::from_utf8(delivery.message().body().to_vec()).expect("text")
    }

    /// Sends, and returns the answer.
    pub(crate) async fn ask(&mut self, to: &str, body: &str) -> String {
        self.send(to, body).await;
        self.answer().await
    }
}
