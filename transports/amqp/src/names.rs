//! What the bus calls its things on the broker, and how they are declared.

use std::time::Duration;

use commissaire::{Inbox, Key, Origin, Token};

use crate::wire::value::{Table, Value};

/// The most calls that wait for one service.
pub(crate) const MOST_CALLS: i64 = 10_000;
/// The most messages that a queue or a durable subscription holds.
pub(crate) const MOST_STORED: i64 = 1_000_000;
/// The most events that wait for an ephemeral subscription.
pub(crate) const MOST_EVENTS: i64 = 65_536;
/// The most retries that are kept whose queue has gone meanwhile.
const MOST_LOST: i64 = 100_000;
/// RabbitMQ 4 drops what was handed out 20 times where nothing is said; so much is never.
const DELIVERIES: i64 = 1_000_000_000;
const LONGEST: usize = 255;

/// The names of one exchange's things; all begin with its own prefix.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    prefix: String,
    work: String,
}

/// A queue: its name and how it is declared.
#[derive(Debug, Clone)]
pub(crate) struct Queue {
    pub(crate) name: String,
    /// It goes with its last consumer.
    pub(crate) auto_delete: bool,
    pub(crate) arguments: Table,
}

/// An exchange: its name, its type, whether it survives a restart, and where goes what it has no queue for.
pub(crate) struct Exchange {
    pub(crate) name: String,
    pub(crate) kind: &'static str,
    pub(crate) durable: bool,
    pub(crate) otherwise: Option<String>,
}

impl Queue {
    pub(crate) fn is_quorum(&self) -> bool {
        self.arguments.contains(&("x-queue-type".to_owned(), Value::Text("quorum".to_owned())))
    }
}

impl Names {
    pub(crate) fn new(exchange: &Token) -> Self {
        Self { prefix: format!("{exchange}.1"), work: format!("{exchange}.1.work") }
    }

    /// Where calls are published, by the service's address.
    pub(crate) fn rpc(&self) -> String {
        self.of("rpc")
    }

    /// Where replies are published, by the inbox.
    pub(crate) fn reply(&self) -> String {
        self.of("reply")
    }

    /// Where an inbox finds out whether the broker has restarted: it forgets this exchange then.
    pub(crate) fn alive(&self) -> String {
        self.of("alive")
    }

    /// Where control messages are published, by the service's address.
    pub(crate) fn ctl(&self) -> String {
        self.of("ctl")
    }

    /// Where events are published.
    pub(crate) fn evt(&self) -> String {
        self.of("evt")
    }

    /// Where jobs are published, by the name of their queue.
    pub(crate) fn work(&self) -> &str {
        &self.work
    }

    /// What binds a queue that stores messages: jobs and redrives come one way, retries the other.
    pub(crate) fn bindings_of(&self, queue: &str) -> Vec<(String, String)> {
        vec![(self.work.clone(), queue.to_owned()), (self.due(), queue.to_owned())]
    }

    /// Where retries go that have rested, by the name of their queue.
    pub(crate) fn due(&self) -> String {
        self.of("due")
    }

    /// Where retries go whose queue is gone.
    pub(crate) fn lost(&self) -> String {
        self.of("lost")
    }

    /// Where dead letters are published, by the name of their queue.
    pub(crate) fn dead(&self) -> String {
        self.of("dead")
    }

    /// All exchanges but those of delays.
    pub(crate) fn exchanges(&self) -> Vec<Exchange> {
        let durable = |name, kind| Exchange { name, kind, durable: true, otherwise: None };
        vec![
            durable(self.rpc(), "direct"),
            durable(self.reply(), "direct"),
            Exchange { durable: false, ..durable(self.alive(), "direct") },
            durable(self.ctl(), "direct"),
            durable(self.evt(), "topic"),
            durable(self.work.clone(), "direct"),
            durable(self.lost(), "fanout"),
            Exchange { otherwise: Some(self.lost()), ..durable(self.due(), "direct") },
            durable(self.dead(), "direct"),
        ]
    }

    /// The calls of a service.
    pub(crate) fn service(&self, service: &Key) -> Queue {
        let bounds = [("x-expires", 15_000), ("x-max-length", MOST_CALLS)];
        Queue {
            auto_delete: true,
            ..self.queue(&format!("rpc.{service}"), "classic", &bounds, Some("reject-publish"))
        }
    }

    /// The replies to an inbox.
    pub(crate) fn inbox(&self, inbox: Inbox) -> Queue {
        self.queue(&format!("reply.{inbox}"), "classic", &[("x-expires", 60_000)], None)
    }

    /// The control messages to one instance of a service.
    pub(crate) fn control(&self, service: &Key, instance: u64) -> Queue {
        let bounds = [("x-expires", 30_000), ("x-max-length", MOST_EVENTS)];
        let name = format!("ctl.{service}.{instance:016x}");
        Queue { auto_delete: true, ..self.queue(&name, "classic", &bounds, Some("drop-head")) }
    }

    /// The events of one ephemeral subscription.
    pub(crate) fn ephemeral(&self, instance: u64) -> Queue {
        let bounds = [("x-expires", 30_000), ("x-max-length", MOST_EVENTS)];
        let name = format!("eph.{instance:016x}");
        Queue { auto_delete: true, ..self.queue(&name, "classic", &bounds, Some("drop-head")) }
    }

    /// A work queue, or what a durable subscription keeps.
    pub(crate) fn stored(&self, origin: &Origin) -> Queue {
        let name = match origin {
            Origin::Queue(key) => format!("q.{key}"),
            Origin::Durable(name) => format!("sub.{name}"),
        };
        let bounds = [("x-max-length", MOST_STORED), ("x-delivery-limit", DELIVERIES)];
        self.queue(&name, "quorum", &bounds, Some("reject-publish"))
    }

    /// The dead letters of `origin`.
    pub(crate) fn dead_of(&self, origin: &Origin) -> Queue {
        let name = match origin {
            Origin::Queue(key) => format!("dead.queue.{key}"),
            Origin::Durable(name) => format!("dead.durable.{name}"),
        };
        self.queue(&name, "quorum", &[("x-delivery-limit", DELIVERIES)], None)
    }

    /// Retries whose queue is gone, for whoever looks.
    pub(crate) fn lost_queue(&self) -> Queue {
        let bounds = [("x-max-length", MOST_LOST), ("x-delivery-limit", DELIVERIES)];
        self.queue("lost", "quorum", &bounds, Some("drop-head"))
    }

    /// Where messages rest for `delay`; exchange and queue have this name.
    pub(crate) fn delay(&self, delay: Duration) -> Queue {
        let millis = i64::try_from(delay.as_millis()).unwrap_or(i64::MAX);
        let bounds = [("x-message-ttl", millis)];
        let mut queue = self.queue(&format!("delay.{millis}"), "quorum", &bounds, Some("reject-publish"));
        let text = |name: &str, value: String| (name.to_owned(), Value::Text(value));
        queue.arguments.push(text("x-dead-letter-exchange", self.due()));
        queue.arguments.push(text("x-dead-letter-strategy", "at-least-once".to_owned()));
        queue
    }

    /// A queue that is deleted as soon as it is made, and goes by itself if nobody comes to that.
    pub(crate) fn scratch(&self, random: u64) -> Queue {
        self.queue(&format!("scratch.{random:016x}"), "quorum", &[("x-expires", 1_000)], None)
    }

    /// Who declared what, for operators and for those who change a subscription.
    pub(crate) fn registry(&self, number: u8) -> Queue {
        let bounds = [("x-max-length-bytes", 64 << 20), ("x-stream-max-segment-size-bytes", 4 << 20)];
        let name = if number == 1 { "registry".to_owned() } else { format!("registry.{number}") };
        self.queue(&name, "stream", &bounds, None)
    }

    fn queue(&self, name: &str, kind: &str, bounds: &[(&str, i64)], full: Option<&str>) -> Queue {
        let text = |name: &str, value: &str| (name.to_owned(), Value::Text(value.to_owned()));
        let mut arguments = vec![text("x-queue-type", kind)];
        arguments.extend(bounds.iter().map(|(name, value)| ((*name).to_owned(), Value::Int(*value))));
        arguments.extend(full.map(|full| text("x-overflow", full)));
        Queue { name: self.of(name), auto_delete: false, arguments }
    }

    fn of(&self, name: &str) -> String {
        short(format!("{}.{name}", self.prefix))
    }
}

/// `name` if a broker takes it, else its beginning and 128 bits of it all (FNV-1a, the same in every build) behind a sign
/// that is in no name.
fn short(name: String) -> String {
    if name.len() <= LONGEST {
        return name;
    }
    let bits = name.bytes().fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d_u128, |bits, byte| {
        (bits ^ u128::from(byte)).wrapping_mul(0x0100_0000_0000_0000_0000_013b)
    });
    format!("{}~{bits:032x}", &name[..LONGEST - 33])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_names_fit_and_stay_apart() {
        let names = Names::new(&Token::new("n".repeat(64)).unwrap());
        let key =
            |last: &str| Key::new(format!("{}{last}", format!("{}.", "k".repeat(64)).repeat(3))).unwrap();
        let name = |last| names.dead_of(&Origin::Queue(key(last))).name;
        assert!(name("a").len() <= 255 && name("a").contains('~'));
        assert_ne!(name("a"), name("b"));
        // As every build has called it.
        assert!(name("a").ends_with("~c92d7bb70792269ea4e4f0a870f1cef4"), "{}", name("a"));
        let plain = Names::new(&Token::new("x").unwrap());
        assert_eq!(plain.stored(&Origin::Queue(Key::new("a.b").unwrap())).name, "x.1.q.a.b");
    }
}
