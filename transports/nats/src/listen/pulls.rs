//! Pull requests to one consumer, and how many messages they may still bring. A request is never forgotten by both
//! sides: the server ends each with a word, and one without a word, or without its heartbeat, is given up here.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use async_nats::{Message as Raw, Subscriber};
use commissaire::Result;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{ear, plan::Role};
use crate::{
    declare::{Consumer, nanos},
    hand::{Hand, Stored},
    link::Link,
    settle::Token,
};

/// How long a request stands, and how often the server says that it does. A server that does not hear us any more, while
/// we hear it, says so until the request ends.
const STANDS: Duration = Duration::from_secs(17);
const BEAT: Duration = Duration::from_secs(2);
/// How long the server is let finish.
const QUIET: Duration = Duration::from_secs(2);
/// How late either may be.
const GRACE: Duration = Duration::from_secs(3);

/// One consumer that is read.
pub(super) struct Tap {
    pub(super) role: Role,
    pub(super) place: Arc<str>,
    next: String,
    info: String,
    inbox: String,
    pub(super) subscriber: Subscriber,
    /// What others who read here give back.
    returns: Option<Subscriber>,
    pulls: VecDeque<Pull>,
    count: u64,
    heard: Instant,
}

struct Pull {
    number: u64,
    left: usize,
    sent: Instant,
}

/// What a message from the server is.
pub(super) enum Word {
    /// A delivery.
    Message(Token),
    /// The request stands, or ended in order.
    Well,
    /// Something is not as it must be: the consumer must be looked at.
    Doubt(String),
}

impl Tap {
    pub(super) async fn open(
        link: &Link,
        role: Role,
        consumer: &Consumer,
        deadline: Instant,
    ) -> Result<Self> {
        let inbox = format!("{}.{}.1.p.{:032x}", link.prefix, link.names.exchange(), rand::random::<u128>());
        let subscriber = ear::open(link, &format!("{inbox}.*"), None, deadline).await?;
        let place: Arc<str> = format!("{}.{}", consumer.stream, consumer.name).into();
        let returns = match role {
            Role::Rest => None,
            Role::First | Role::Again => {
                Some(ear::open(link, &link.names.returns(&place), None, deadline).await?)
            }
        };
        Ok(Self {
            role,
            place,
            returns,
            next: format!("$JS.API.CONSUMER.MSG.NEXT.{}.{}", consumer.stream, consumer.name),
            info: format!("CONSUMER.INFO.{}.{}", consumer.stream, consumer.name),
            inbox,
            subscriber,
            pulls: VecDeque::new(),
            count: 0,
            heard: Instant::now(),
        })
    }

    /// How many messages may still come.
    pub(super) fn outstanding(&self) -> usize {
        self.pulls.iter().map(|pull| pull.left).sum()
    }

    /// Asks for so many more.
    pub(super) async fn pull(&mut self, link: &Link, batch: usize) {
        self.count += 1;
        let body = json!({"batch": batch, "expires": nanos(STANDS), "idle_heartbeat": nanos(BEAT)});
        let reply = format!("{}.{}", self.inbox, self.count);
        let deadline = Instant::now() + GRACE;
        let sent =
            link.send(self.next.as_str().into(), Some(reply.into()), None, body.to_string().into(), deadline);
        if sent.await.is_ok() {
            let now = Instant::now();
            if self.pulls.is_empty() {
                self.heard = now;
            }
            self.pulls.push_back(Pull { number: self.count, left: batch, sent: now });
        }
    }

    /// Forgets all requests: their connection or their consumer is gone.
    pub(super) fn clear(&mut self) {
        self.pulls.clear();
    }

    /// Whether the server is silent that should not be.
    pub(super) fn is_deaf(&self) -> bool {
        let late = |since: Instant, limit: Duration| since.elapsed() > limit + GRACE;
        !self.pulls.is_empty() && late(self.heard, 2 * BEAT)
            || self.pulls.front().is_some_and(|pull| late(pull.sent, STANDS))
    }

    /// What `raw` is.
    pub(super) fn read(&mut self, raw: &Raw) -> Word {
        self.heard = Instant::now();
        let Some(status) = raw.status else {
            // The server serves requests in their order.
            if let Some(pull) = self.pulls.front_mut() {
                pull.left -= 1;
                if pull.left == 0 {
                    self.pulls.pop_front();
                }
            }
            let token = raw.reply.as_ref().and_then(|ack| token(&self.place, ack));
            return match token {
                Some(token) => Word::Message(token),
                None => Word::Doubt("a delivery that cannot be settled".to_owned()),
            };
        };
        let text = raw.description.clone().unwrap_or_default();
        if status.as_u16() == 100 {
            return Word::Well;
        }
        let number: Option<u64> = raw.subject.rsplit('.').next().and_then(|text| text.parse().ok());
        self.pulls.retain(|pull| Some(pull.number) != number);
        match status.as_u16() {
            408 => Word::Well,
            code => Word::Doubt(format!("{code} {text}")),
        }
    }

    /// Notes what others have given back that may come next: they say so before the server can send it.
    pub(super) fn hear(&mut self, hand: &Hand) {
        let Some(returns) = &mut self.returns else { return };
        while let Some(told) = ear::here(returns) {
            hand.heard(&self.place, &told.payload);
        }
    }

    /// Ends it; what the server had sent by then. While the server is still sending it is let finish what was asked for:
    /// what it cannot send any more it might remember only after the lease.
    pub(super) async fn shut(&mut self, link: &Link) -> Vec<Token> {
        let mut tokens = Vec::new();
        let deadline = Instant::now() + QUIET;
        while self.outstanding() > 0 {
            let Ok(info) = link.api(&self.info, &Value::Null, deadline).await else { break };
            if link.echo(deadline).await.is_err() {
                break;
            }
            let before = tokens.len();
            while let Some(raw) = ear::here(&mut self.subscriber) {
                if let Word::Message(token) = self.read(&raw) {
                    tokens.push(token);
                }
            }
            if tokens.len() == before && info["num_pending"] == 0 {
                break;
            }
        }
        // To answer this the server looks through its requests, and forgets those of who has left.
        let look = async {
            let deadline = Instant::now() + ear::LEAVE;
            if let Err(fault) = link.api(&self.info, &Value::Null, deadline).await {
                tracing::debug!(?fault, "a consumer was left without a look at it");
            }
        };
        for raw in ear::shut(link, &mut self.subscriber, look).await {
            if raw.status.is_none() {
                tokens.extend(raw.reply.as_ref().and_then(|ack| token(&self.place, ack)));
            }
        }
        tokens
    }
}

/// Takes the subject apart that settles a delivery:
/// `$JS.ACK.[DOMAIN.ACCOUNT.]STREAM.CONSUMER.DELIVERED.SEQ.CONSUMER_SEQ.TIME.PENDING[.…]`.
pub(crate) fn token(place: &Arc<str>, ack: &async_nats::Subject) -> Option<Token> {
    let words: Vec<&str> = ack.split('.').collect();
    if words.first() != Some(&"$JS") || words.get(1) != Some(&"ACK") {
        return None;
    }
    let first = if words.len() == 9 { 4 } else { 6 };
    let number = |at: usize| words.get(first + at)?.parse::<u64>().ok();
    let stored = Stored { place: place.clone(), seq: number(1)?, time: number(3)? };
    Some(Token { ack: ack.clone(), stored, delivered: number(0)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_the_subject_that_settles_are_read() {
        let place: Arc<str> = "s.w".into();
        for text in [
            "$JS.ACK.s.w.3.17.20.1795394350130023514.5",
            "$JS.ACK._.hash.s.w.3.17.20.1795394350130023514.5.x",
        ] {
            let found = token(&place, &text.into()).unwrap();
            let stored = Stored { place: place.clone(), seq: 17, time: 1_795_394_350_130_023_514 };
            assert_eq!((found.stored, found.delivered), (stored, 3));
        }
        for wrong in ["$JS.ACK.s.w.3", "$JS.API.STREAM.PURGE.a.1.2.3.4", "", "$JS.ACK.s.w.x.1.1.1.1"] {
            assert!(token(&place, &wrong.into()).is_none(), "{wrong}");
        }
    }
}
