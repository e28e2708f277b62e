//! What is declared here: a log that all programs of the exchange write, since RabbitMQ tells a client no names and no
//! bindings. It is a stream, whose order all readers agree on.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};
use tokio::{
    sync::{OnceCell, watch},
    time::{Instant, sleep, timeout_at},
};
use tokio_util::task::TaskTracker;

use crate::{
    bus::BOUND,
    link::{Link, Making},
    names::{Names, Queue},
    publish::Publisher,
    topology,
    wire::{
        Channel, Connection, Delivered, Ears, Fault, Verdict, method,
        value::{Table, Value},
    },
};

/// How many entries may be on their way to a reader.
const AHEAD: u16 = 1_000;
/// RabbitMQ may lose the stream itself, see [`Registry::declare`]: so many may take its place, one after the other.
const MOST: u8 = 9;
/// Between two attempts to reach it.
const PAUSE: Duration = Duration::from_millis(300);

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

/// Writes and reads the log, over a connection of its own that is made when it is first needed: while a stream is being
/// declared, RabbitMQ 3.10 closes the connections of others that publish to it or declare it (506, 541).
pub(crate) struct Registry {
    making: Making,
    way: OnceCell<Way>,
    /// It is read: from when somebody first wants to know.
    begun: AtomicBool,
    /// Entries for which nobody waits.
    entering: TaskTracker,
    ears: Arc<Listening>,
}

struct Way {
    link: Link,
    publisher: Publisher,
    /// The connection that found the stream declared, or declared it.
    declared: tokio::sync::Mutex<Option<Connection>>,
}

struct Listening {
    /// Which of the streams is the one, from 1.
    number: AtomicU8,
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
    pub(crate) fn new(making: Making) -> Self {
        let ears = Listening {
            number: AtomicU8::new(1),
            channel: Mutex::default(),
            state: Mutex::default(),
            read: watch::Sender::new(0),
        };
        Self {
            making,
            way: OnceCell::new(),
            begun: AtomicBool::new(false),
            entering: TaskTracker::new(),
            ears: Arc::new(ears),
        }
    }

    /// Looks at the log as far as it was read.
    pub(crate) fn view<T>(&self, look: impl FnOnce(&View) -> T) -> T {
        look(&self.ears.state().view)
    }

    /// Writes an entry. What is not entered is only not listed, so nobody has to wait for it.
    pub(crate) async fn enter(&self, what: Entered) {
        let id = format!("{:032x}", rand::random::<u128>());
        if let Err(fault) = self.write(id, what, Instant::now() + BOUND).await {
            tracing::debug!(?fault, "the registry cannot be written");
        }
    }

    /// Writes an entry, for which nobody has to wait but who [closes](Self::finish) the bus.
    pub(crate) fn enter_soon(self: &Arc<Self>, what: Entered) {
        let registry = self.clone();
        self.entering.spawn(async move { registry.enter(what).await });
    }

    /// Waits until what was to be entered is.
    pub(crate) async fn finish(&self, deadline: Instant) {
        self.entering.close();
        if timeout_at(deadline, self.entering.wait()).await.is_err() {
            tracing::debug!("not all was entered in the registry");
        }
    }

    /// Writes an entry and reads up to it; returns its id.
    pub(crate) async fn enter_and_read(&self, what: Entered, deadline: Instant) -> Result<String, Fault> {
        let id = format!("{:032x}", rand::random::<u128>());
        self.ears.state().awaited.insert(id.clone());
        let read = async {
            self.write(id.clone(), what, deadline).await?;
            let way = self.way(deadline).await?;
            if !self.begun.swap(true, Ordering::AcqRel) {
                let following = follow(way.link.clone(), self.making.names.clone(), self.ears.clone());
                let end = self.making.end.clone();
                tokio::spawn(async move { end.run_until_cancelled(following).await });
            }
            let mut read = self.ears.read.subscribe();
            let seen = read.wait_for(|_| !self.ears.state().awaited.contains(&id));
            timeout_at(deadline, seen).await.map_err(|_| Fault::Late)?.map_err(|_| Fault::Lost)?;
            Ok(id.clone())
        };
        let outcome = read.await;
        self.ears.state().awaited.remove(&id);
        outcome
    }

    async fn write(&self, id: String, what: Entered, deadline: Instant) -> Result<(), Fault> {
        let body = serde_json::to_vec(&Entry { id: id.clone(), at: now(), what }).unwrap_or_default();
        loop {
            let written = async {
                let way = self.way(deadline).await?;
                self.declare(way, deadline).await?;
                let queue = self.ears.queue(&self.making.names);
                way.publisher.send(&way.publisher.stored(&queue, id.clone(), &body), deadline).await
            };
            match timeout_at(deadline, written).await.unwrap_or(Err(Fault::Late)) {
                Ok(Verdict::Stored) => return Ok(()),
                // It is gone; it is declared again.
                Ok(_) => drop(self.way(deadline).await?.declared.lock().await.take()),
                // Another may be declaring it just now. An entry that is written twice says no more than once.
                Err(fault) if fault.passes() && Instant::now() + PAUSE < deadline => {}
                Err(fault) => return Err(fault),
            }
            sleep(PAUSE.mul_f64(rand::random_range(0.5..1.0))).await;
        }
    }

    async fn way(&self, deadline: Instant) -> Result<&Way, Fault> {
        let make = async || {
            let link = Link::make(self.making.clone()).await.map_err(|_| Fault::NotSent)?;
            let publisher = Publisher::new(self.making.names.clone(), link.clone(), None);
            Ok(Way { link, publisher, declared: tokio::sync::Mutex::default() })
        };
        timeout_at(deadline, self.way.get_or_try_init(make)).await.unwrap_or(Err(Fault::Late))
    }

    /// Makes sure that the stream is there, once a connection.
    ///
    /// Before 4.0 RabbitMQ writes down late that it keeps streams at all. If it is killed within a second or so of its first
    /// one, that one is neither there nor can it be made or deleted, and another takes its place.
    async fn declare(&self, way: &Way, deadline: Instant) -> Result<(), Fault> {
        let mut declared = way.declared.lock().await;
        let up = way.link.until(deadline).await.ok_or(Fault::NotSent)?;
        if declared.as_ref().is_some_and(|known| known.is(&up.connection)) {
            return Ok(());
        }
        let names = &self.making.names;
        for number in 1..=MOST {
            let queue = names.registry(number);
            let bindings = [(names.work().to_owned(), queue.name.clone())];
            let made = if topology::look(&up.connection, &queue.name).await?.is_some() {
                topology::bind(&up.connection, &queue.name, &bindings).await
            } else {
                topology::declare(&up.connection, names, &queue, &bindings).await
            };
            match made {
                Err(fault) if fault.is_out_of_reach() && number < MOST => {
                    tracing::warn!(
                        queue = queue.name,
                        "rabbitmq has lost the registry: another takes its place"
                    );
                }
                Err(fault) => return Err(fault),
                Ok(()) => {
                    self.ears.use_number(number);
                    break;
                }
            }
        }
        *declared = Some(up.connection);
        Ok(())
    }
}

/// Reads the log for ever.
async fn follow(link: Link, names: Names, ears: Arc<Listening>) {
    while let Some(up) = link.up().await {
        let name = ears.queue(&names).name;
        let followed = async {
            let channel = up.connection.channel(ears.clone()).await?;
            *ears.channel.lock().unwrap_or_else(PoisonError::into_inner) = Some(channel.clone());
            channel.call(&method::qos(AHEAD)).await?;
            let from = match ears.state().next {
                Some(next) => Value::Int(next),
                None => Value::Text("first".to_owned()),
            };
            let from: Table = vec![("x-stream-offset".to_owned(), from)];
            channel.call(&method::consume(&name, "registry", false, &from)).await?;
            Ok::<_, Fault>(channel)
        };
        match followed.await {
            Ok(channel) => {
                channel.gone().cancelled().await;
                if !up.connection.is_down() {
                    // It was deleted, and another begins anew.
                    ears.state().next = None;
                }
            }
            Err(fault) => tracing::debug!(?fault, "the registry cannot be read"),
        }
        ears.channel.lock().unwrap_or_else(PoisonError::into_inner).take();
        sleep(PAUSE.mul_f64(1.0 + rand::random::<f64>())).await;
    }
}

impl Listening {
    fn queue(&self, names: &Names) -> Queue {
        names.registry(self.number.load(Ordering::Acquire))
    }

    /// This one it is; what was read of another does not count. Called by one at a time.
    fn use_number(&self, number: u8) {
        if self.number.load(Ordering::Acquire) != number {
            // Before anybody reads that one: it is read from its beginning.
            let mut state = self.state();
            (state.view, state.next) = (View::default(), None);
            drop(state);
            self.number.store(number, Ordering::Release);
        }
    }

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
        state.next = delivered.properties.offset.map(|offset| offset.saturating_add(1));
        state.view.apply(&entry);
        state.awaited.remove(&entry.id);
        drop(state);
        self.read.send_modify(|read| *read += 1);
    }
}

impl View {
    pub(crate) fn apply(&mut self, entry: &Entry) {
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
