//! The ways in which a bus can break its contract, as data.

use std::time::Duration;

use crate::{
    address::{Address, Key},
    driver::BusOptions,
    error::{Error, Result},
    message::{Headers, Message},
    pattern::Pattern,
    subscription::Source,
    testkit::target::token,
};

/// One way to break the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Exchanges are one.
    Mixes,
    /// Every seventh message vanishes although its publishing succeeded.
    Loses,
    /// Every seventh message is published twice.
    Doubles,
    /// Every seventh message waits for the one after it.
    Reorders,
    /// Bodies lose what is not UTF-8.
    Garbles,
    /// Bodies over 64 KiB are cut.
    Cuts,
    /// Headers of users vanish.
    Strips,
    /// An event, a control message or a reply that nobody hears is an error.
    Demands,
    /// Subscriptions to some events get all.
    Overhears,
    /// Subscriptions to events get a copy for each pattern.
    Copies,
    /// Ephemeral subscriptions are durable.
    Remembers,
    /// Durable subscriptions are ephemeral.
    Forgets,
    /// Durable subscriptions keep their first patterns.
    Clings,
    /// Control messages reach one instance only.
    Shares,
    /// All replies go to the first inbox.
    Confuses,
    /// Names of queues that differ in `_` and `-` only are one.
    Folds,
    /// More deliveries are in hand than allowed.
    Grasps,
    /// Acknowledgements do not reach the broker.
    Denies,
    /// What is dropped is acknowledged.
    Swallows,
    /// Failed runs are not counted.
    Acquits,
    /// Retries come at once.
    Hurries,
    /// Retries come much later.
    Dawdles,
    /// A dead letter is acknowledged and gone.
    Buries,
    /// A call that nobody can take is a success.
    Pretends,
    /// A call to nobody takes long to fail.
    Hesitates,
    /// Calls have no end of life.
    Revives,
    /// Closing does nothing.
    Stays,
    /// A dead letter that is brought back is gone.
    Mislays,
    /// A dead letter that is brought back stays one as well.
    Clones,
    /// An event that is brought back reaches all who want it.
    Broadcasts,
    /// What is no dead letter can be brought back, and is gone.
    Obliges,
    /// A survey counts one message too many.
    Miscounts,
    /// A survey takes messages out.
    Rummages,
    /// A durable subscription is said to be removed and is not.
    Clutches,
    /// Nobody hears of events once a durable subscription was removed.
    Evicts,
    /// A durable subscription is removed however short it was idle.
    Hastens,
    /// A connected bus says that it is not.
    Despairs,
    /// What a caller gives for a reply address is used as the name of a queue.
    Obeys,
    /// The ledger is not there.
    Disowns,
    /// The ledger lets everybody begin.
    Waves,
    /// The ledger forgets what was done.
    Unlearns,
}

impl Fault {
    /// What to connect with.
    pub fn options(self, mut options: BusOptions) -> BusOptions {
        if self == Self::Mixes {
            options.exchange = token("mixed");
        }
        options
    }

    /// What is published in place of `message`.
    pub(super) fn message(self, message: Message) -> Result<Message> {
        let (headers, body) = (message.headers().clone(), message.body().clone());
        match (self, message.address().clone()) {
            (Self::Garbles, address) => {
                Message::from_parts(address, headers, String::from_utf8_lossy(&body).into_owned().into())
            }
            (Self::Cuts, address) => {
                Message::from_parts(address, headers, body.slice(..body.len().min(1 << 16)))
            }
            (Self::Strips, address) => {
                let mut kept = Headers::default();
                for (name, value) in headers.iter().filter(|(name, _)| name.starts_with("bus-")) {
                    kept.set(name.to_owned(), value)?;
                }
                Message::from_parts(address, kept, body)
            }
            (Self::Demands, address @ (Address::Topic(_) | Address::Control(_) | Address::Inbox(_))) => {
                Err(Error::no_responders(address))
            }
            (Self::Revives, Address::Service(_)) => Ok(message.with_ttl(Duration::from_secs(60))),
            (Self::Shares, Address::Control(key)) => Ok(message.to(Address::Queue(key))),
            (Self::Folds, Address::Queue(key)) => Ok(message.to(Address::Queue(folded(&key)?))),
            _ => Ok(message),
        }
    }

    /// What is subscribed to in place of `source`.
    pub(super) fn source(self, source: Source) -> Result<Source> {
        let all = || Pattern::new("#").map(|all| vec![all]);
        Ok(match (self, source) {
            (Self::Overhears, Source::Topic(_)) => Source::Topic(all()?),
            (Self::Overhears, Source::Durable(name, _)) => Source::Durable(name, all()?),
            (Self::Remembers, Source::Topic(patterns)) => Source::Durable(token("remembered"), patterns),
            (Self::Forgets, Source::Durable(_, patterns)) => Source::Topic(patterns),
            (Self::Shares, Source::Control(key)) => Source::Queue(key),
            (Self::Folds, Source::Queue(key)) => Source::Queue(folded(&key)?),
            (_, source) => source,
        })
    }

    /// Whether it shows in how deliveries are settled.
    pub(super) fn settles(self) -> bool {
        use Fault::{
            Acquits, Broadcasts, Buries, Clones, Dawdles, Denies, Hurries, Mislays, Obliges, Swallows,
        };
        matches!(
            self,
            Denies
                | Swallows
                | Acquits
                | Hurries
                | Dawdles
                | Buries
                | Mislays
                | Clones
                | Broadcasts
                | Obliges
        )
    }
}

fn folded(key: &Key) -> Result<Key> {
    Key::new(key.as_str().replace('_', "-"))
}
