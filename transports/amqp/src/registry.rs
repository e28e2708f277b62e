//! What is declared here: a log that all programs of the exchange write, since RabbitMQ tells a client no names and no
//! bindings. It is a stream, whose order all readers agree on.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout_at},
};

use crate::{
    bus::Core,
    publish::Publisher,
    topology,
    wire::{
        Channel, Delivered, Ears, Fault, Verdict, method,
        value::{Table, Value},
    },
};

/// How many entries may be on their way to a reader.
const AHEAD: u16 = 1_000;

/// One entry of the log.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// Which entry this is.
    id: String,
    /// When, in ms since 1970 by its writer's clock.
    at: u64,
    #[serde(flatten)]
    pub(crate) what: Entered,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub(crate) enum Entered {
    /// A durable subscription was made with these patterns; without a reader it may be removed after so many seconds.
    Durable { name: String, patterns: Vec<String>, expires: u64 },
    /// Somebody reads it.
    Seen { name: String },
    /// It is removed.
    Removed { name: String },
    /// A work queue was declared.
    Queue { name: String },
    /// Dead letters of `queue NAME` or `durable NAME` were declared.
    Dead { kind: String, name: String },
    /// Calls of a service were declared.
    Service { name: String },
    /// Nothing: whoever finds it has read all before it.
    Mark,
}

/// A durable subscription as the log has it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Durable {
    /// The patterns that hold.
    pub(crate) patterns: Vec<String>,
    /// Those that held before and do no longer.
    pub(crate) past: BTreeSet<String>,
    pub(crate) expires: Duration,
    /// When somebody read it, in ms since 1970.
    pub(crate) seen: u64,
    /// The entry that removed it, if it is removed.
    pub(crate) removed: Option<String>,
}

/// The log as it was read.
#[derive(Debug, Clone, Default)]
pub(crate) struct View {
    pub(crate) durables: BTreeMap<String, Durable>,
    pub(crate) queues: BTreeSet<String>,
    pub(crate) services: BTreeSet<String>,
    pub(crate) dead: BTreeSet<(String, String)>,
}

/// Writes and reads the log. Reads only from when somebody first wants to know.
pub(crate) struct Registry {
    begun: AtomicBool,
    ears: Arc<Listening>,
}

struct Listening {
    channel: Mutex<Option<Channel>>,
    state: Mutex<State>,
    /// How many entries were read.
    read: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    view: View,
    /// The place behind the last entry that was read.
    next: Option<i64>,
    /// Entries of ours that were not seen yet.
    awaited: BTreeSet<String>,
}

impl Registry {
    pub(crate) fn new() -> Self {
        let ears =
            Listening { channel: Mutex::default(), state: Mutex::default(), read: watch::Sender::new(0) };
        Self { begun: AtomicBool::new(false), ears: Arc::new(ears) }
    }

    /// Looks at the log as far as it was read.
    pub(crate) fn view<T>(&self, look: impl FnOnce(&View) -> T) -> T {
        look(&self.ears.state().view)
    }
}

impl Core {
    /// Writes an entry and reads up to it; returns its id.
    pub(crate) async fn enter_and_read(
        self: &Arc<Self>,
        what: Entered,
        deadline: Instant,
    ) -> Result<String, Fault> {
        let ears = self.registry.ears.clone();
        let id = format!("{:032x}", rand::random::<u128>());
        ears.state().awaited.insert(id.clone());
        let read = async {
            self.publisher.log_as(id.clone(), what, deadline).await?;
            self.read_registry();
            let mut read = ears.read.subscribe();
            let seen = read.wait_for(|_| !ears.state().awaited.contains(&id));
            timeout_at(deadline, seen).await.map_err(|_| Fault::Late)?.map_err(|_| Fault::Lost)?;
            Ok(id.clone())
        };
        let outcome = read.await;
        ears.state().awaited.remove(&id);
        outcome
    }

    /// Begins to read the log, if nobody has.
    fn read_registry(self: &Arc<Self>) {
        if self.registry.begun.swap(true, Ordering::AcqRel) {
            return;
        }
        let core = self.clone();
        tokio::spawn(async move { core.end.clone().run_until_cancelled(core.follow()).await });
    }

    async fn follow(&self) {
        let ears = &self.registry.ears;
        while let Some(up) = self.consuming.up().await {
            let followed = async {
                let channel = up.connection.channel(ears.clone()).await?;
                *ears.channel.lock().unwrap_or_else(PoisonError::into_inner) = Some(channel.clone());
                let queue = self.names.registry();
                topology::declare_on(&channel, &queue, &self.names.bindings_of(&queue.name)).await?;
                channel.call(method::qos(AHEAD)).await?;
                let from = match ears.state().next {
                    Some(next) => Value::Int(next),
                    None => Value::Text("first".to_owned()),
                };
                let from: Table = vec![("x-stream-offset".to_owned(), from)];
                channel.call(method::consume(&queue.name, "registry", false, &from)).await?;
                Ok::<_, Fault>(channel)
            };
            match followed.await {
                Ok(channel) => channel.gone().cancelled().await,
                Err(fault) => tracing::debug!(?fault, "the registry cannot be read"),
            }
            ears.channel.lock().unwrap_or_else(PoisonError::into_inner).take();
            // It may have been deleted, and another begins anew.
            ears.state().next = None;
            sleep(Duration::from_millis(300).mul_f64(1.0 + rand::random::<f64>())).await;
        }
    }
}

impl Publisher {
    /// Writes an entry.
    pub(crate) async fn log(&self, what: Entered, deadline: Instant) -> Result<(), Fault> {
        self.log_as(format!("{:032x}", rand::random::<u128>()), what, deadline).await
    }

    async fn log_as(&self, id: String, what: Entered, deadline: Instant) -> Result<(), Fault> {
        let queue = self.names.registry();
        let body = serde_json::to_vec(&Entry { id: id.clone(), at: now(), what }).unwrap_or_default();
        let letter = self.stored(&queue, id, &body);
        match Box::pin(self.enqueue(&queue, &letter, None, deadline)).await? {
            Verdict::Stored => Ok(()),
            Verdict::Refused | Verdict::Returned => Err(Fault::NotSent),
        }
    }
}

impl Listening {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ears for Listening {
    fn delivered(&self, delivered: Delivered) {
        let channel = self.channel.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(channel) = channel {
            let _ = channel.ack(delivered.tag);
        }
        let Ok(entry) = serde_json::from_slice::<Entry>(&delivered.body) else { return };
        let mut state = self.state();
        state.next = delivered.properties.offset.map(|offset| offset + 1);
        state.view.apply(&entry);
        state.awaited.remove(&entry.id);
        drop(state);
        self.read.send_modify(|read| *read += 1);
    }
}

impl View {
    fn apply(&mut self, entry: &Entry) {
        match &entry.what {
            Entered::Durable { name, patterns, expires } => {
                let durable = self.durables.entry(name.clone()).or_default();
                durable.past.extend(std::mem::replace(&mut durable.patterns, patterns.clone()));
                durable.past.retain(|past| !patterns.contains(past));
                durable.expires = Duration::from_secs(*expires);
                durable.seen = entry.at;
                durable.removed = None;
            }
            Entered::Seen { name } => {
                if let Some(durable) = self.durables.get_mut(name) {
                    durable.seen = durable.seen.max(entry.at);
                }
            }
            Entered::Removed { name } => {
                // The first is the one that removes it.
                let durable = self.durables.entry(name.clone()).or_default();
                durable.removed.get_or_insert_with(|| entry.id.clone());
            }
            Entered::Queue { name } => drop(self.queues.insert(name.clone())),
            Entered::Dead { kind, name } => drop(self.dead.insert((kind.clone(), name.clone()))),
            Entered::Service { name } => drop(self.services.insert(name.clone())),
            Entered::Mark => {}
        }
    }
}

/// Ms since 1970.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: &str, what: Entered) -> Entry {
        let text = serde_json::to_string(&Entry { id: id.into(), at: 7, what }).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn the_last_patterns_hold_and_the_first_removal_counts() {
        let mut view = View::default();
        let durable = |patterns: &[&str]| Entered::Durable {
            name: "d".into(),
            patterns: patterns.iter().map(|text| (*text).to_owned()).collect(),
            expires: 9,
        };
        let removed = || Entered::Removed { name: "d".into() };
        for (id, what) in
            [("1", durable(&["a", "b"])), ("2", durable(&["b", "c"])), ("3", removed()), ("4", removed())]
        {
            view.apply(&entry(id, what));
        }
        let found = &view.durables["d"];
        assert_eq!(
            (found.patterns.join(" "), found.past.iter().map(String::as_str).collect::<Vec<_>>()),
            ("b c".to_owned(), vec!["a"])
        );
        assert_eq!(found.removed.as_deref(), Some("3"));
        view.apply(&entry("5", durable(&["a"])));
        let found = &view.durables["d"];
        assert_eq!((found.removed.clone(), found.past.len(), found.seen), (None, 2, 7));
    }
}
