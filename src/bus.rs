//! The bus: four verbs over addresses, and the contract that every transport keeps.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;

use crate::{
    actor::Admission,
    address::Token,
    connection::ConnectionWatch,
    error::Result,
    ledger::Ledger,
    message::Message,
    subscription::{Source, Subscription},
    survey::Survey,
    time::span,
};

/// A message bus. One implementation a broker; everything above (calls, jobs, events) is written once over it.
///
/// # Publishing
///
/// [`publish`](Self::publish) returns `Ok` when the message is where its address promises:
///
/// | address | `Ok` means |
/// |---|---|
/// | `Service` | one running instance will get it, unless that instance or the broker dies first; never executed twice |
/// | `Queue` | stored; delivered until some consumer acknowledges it, or it is a dead letter |
/// | `Topic` | stored for every durable subscription that there is; handed to every ephemeral one that is connected |
/// | `Control`, `Inbox` | handed to those who are connected; nobody listening is not an error |
///
/// An error tells "not sent" ([`may_have_executed`](crate::Error::may_have_executed) is `false`) from "unknown". A
/// message that was not acknowledged may be published again with the same id. Every step is bounded in time: a publish
/// never waits longer than the message's time to live, or 10 s where it has none.
///
/// * A `Service` that no running instance answers is [`NoResponders`](crate::ErrorKind::NoResponders), at once; one
///   with too many calls waiting is [`Busy`](crate::ErrorKind::Busy).
/// * A queue or durable subscription that is full is [`Full`](crate::ErrorKind::Full), and nothing is stored anywhere.
/// * A call (`Service`) whose time to live has passed is dropped, not delivered, however long the broker or the service
///   was away.
///
/// # Consuming
///
/// [`subscribe`](Self::subscribe) returns when the broker knows of the subscription: what is published after that is
/// delivered. Deliveries in hand never exceed `prefetch`. Headers and body arrive as they were sent, but for the time to
/// live of a call, which is shorter by what has passed of it. An inbox has one reader.
///
/// * Queues and durable subscriptions: at least once. What a consumer that died had in hand comes again to another
///   ([`redelivered`](crate::Delivery::redelivered)). A delivery in hand of a living consumer is not given to another,
///   however long the work takes. A retry is delivered not before its delay has passed. A dead letter keeps body and
///   headers.
/// * One consumer with a prefetch of 1 sees the messages of one publisher in the order of their publishing, retries
///   apart.
/// * Ephemeral topics: at most once; a [`Gap`](crate::Gap) stands where messages may be missing.
/// * After a lost connection everything is made again behind the subscription, which does not end.
/// * A subscription that is closed or dropped is gone for the broker soon; all of a bus are when `close` has returned.
/// * A subscription consumes ([`Consuming`](crate::Consuming)) only while the broker is known to hand it messages: a
///   transport looks again every few seconds at what it needs there (queue, stream, group, consumer, binding), and makes
///   again what is gone.
/// * A [`Gap`](crate::Gap) in an inbox says that replies may be lost: calls that wait then fail as *maybe executed*.
///
/// # Closing
///
/// [`close`](Self::close) ends every subscription after what it had taken, waits until settlements under way are
/// known to the broker, and leaves. What was in hand and not settled is given back.
#[async_trait]
pub trait Bus: fmt::Debug + Send + Sync + 'static {
    /// Hands `message` to the broker.
    async fn publish(&self, message: Message) -> Result<()>;

    /// Consumes from `source` with at most `prefetch` deliveries in hand.
    async fn subscribe(&self, source: Source, prefetch: u16) -> Result<Subscription>;

    /// Leaves the bus. Later calls fail with [`Closed`](crate::ErrorKind::Closed); closing twice is well.
    async fn close(&self) -> Result<()>;

    /// What this transport, as it is connected now, promises beyond the contract above.
    fn guarantees(&self) -> Guarantees;

    /// Whether the broker is connected, now and from now on.
    fn connection(&self) -> ConnectionWatch;

    /// What the broker tells of this bus. Changes nothing, takes no message out, and is bounded in time; not meant for
    /// the hot path.
    async fn survey(&self) -> Result<Survey>;

    /// Removes the durable subscription `name` with what it holds; its dead letters stay. With `idle`, only if nobody has
    /// read it for that long. Returns whether this call removed one. Consumers that are there all the same make it again
    /// as after an accident.
    async fn remove_durable(&self, name: &Token, idle: Option<Duration>) -> Result<bool>;

    /// The ledger that is kept beside this bus's queues for all processes, if there is one
    /// ([`Guarantees::shared_ledger`]).
    fn ledger(&self) -> Option<Arc<dyn Ledger>> {
        None
    }

    /// Whom the services of this program admit on this bus; `None`: everybody, to everything. Transports leave it:
    /// [`connect`](crate::connect) puts what [`BusOptions`](crate::BusOptions) say around them.
    fn admission(&self) -> Option<Arc<Admission>> {
        None
    }
}

/// Where transports may differ. Found out when connecting, not assumed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guarantees {
    /// What acknowledged messages in queues and durable subscriptions survive.
    pub durability: Durability,
    /// Whether other processes can be on this bus.
    pub shared: bool,
    /// What a call does whose connection breaks: waits for its reply, which the broker keeps for it (`true`), or fails
    /// soon as *maybe executed* (`false`).
    pub replies_kept: bool,
    /// For how long the broker recognises the id of a stored message, so that one that is published twice is stored once.
    pub republish_window: Option<Duration>,
    /// Whether the ledger of the dedup layer is kept beside the queue for all processes, or in each process for itself.
    pub shared_ledger: bool,
    /// How long a delivery may be in hand, if the broker sets a limit: longer work is refused at start.
    pub longest_run: Option<Duration>,
}

impl Guarantees {
    /// Each promise and how it is kept, in words: for operators and for pages.
    pub fn in_words(&self) -> [(&'static str, String); 6] {
        let either = |holds: bool, yes: &str, no: &str| (if holds { yes } else { no }).to_owned();
        let survived = match self.durability {
            Durability::None => "nothing, they end with the process that keeps them",
            Durability::Kill => "the sudden death of the broker",
            Durability::Power => "the sudden death of the broker, and of its machine",
        };
        [
            ("stored messages survive", survived.to_owned()),
            ("other processes share the bus", either(self.shared, "yes", "no")),
            (
                "a call whose connection breaks",
                either(self.replies_kept, "waits for its reply", "fails soon as *maybe executed*"),
            ),
            (
                "a stored message that is published twice",
                self.republish_window.map_or_else(
                    || "is there twice".to_owned(),
                    |window| format!("is there once, for {}", span(window)),
                ),
            ),
            (
                "what the dedup layer remembers holds for",
                either(self.shared_ledger, "all processes", "each process alone"),
            ),
            (
                "work may have a message in hand for",
                self.longest_run.map_or_else(|| "as long as it takes".to_owned(), span),
            ),
        ]
    }
}

/// What stored messages survive, from least to most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Durability {
    /// Nothing: they end with the process that keeps them.
    None,
    /// The sudden death of the broker's process.
    Kill,
    /// The sudden loss of power on the broker's machine.
    Power,
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Kill => "kill",
            Self::Power => "power",
        })
    }
}
