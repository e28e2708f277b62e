//! Durable subscriptions: a queue, the patterns that bind it, and that somebody reads it.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use commissaire::{Error, Origin, Pattern, Result, Token};
use tokio::time::Instant;

use crate::{
    bus::{BOUND, Core},
    registry::{Entered, now},
    topology::{self, Binding},
    wire::{Connection, Fault, Silent, method},
};

/// A reader enters that it reads at least once in so long.
const MOST_SILENT: Duration = Duration::from_secs(3600);

/// One reader's part in a durable subscription.
pub(crate) struct Keeping {
    core: Arc<Core>,
    name: Token,
    patterns: Vec<Pattern>,
    /// When it was last entered that somebody reads.
    entered: Mutex<Instant>,
    /// Past patterns whose bindings were taken away already.
    unbound: Mutex<BTreeSet<String>>,
}

impl Keeping {
    pub(crate) fn new(core: Arc<Core>, name: Token, patterns: Vec<Pattern>) -> Self {
        Self { core, name, patterns, entered: Mutex::new(Instant::now()), unbound: Mutex::default() }
    }

    /// The bindings of the patterns: our own at `first`, then those that hold.
    pub(crate) fn bindings(&self, exchange: &str, first: bool) -> Vec<Binding> {
        let held = self.core.registry.view(|view| {
            let durable = view.durables.get(self.name.as_str()).filter(|durable| durable.removed.is_none());
            durable.map(|durable| durable.patterns.clone())
        });
        let patterns = held.filter(|_| !first).unwrap_or_else(|| texts(&self.patterns));
        patterns.into_iter().map(|pattern| (exchange.to_owned(), pattern)).collect()
    }

    /// Says to all that our patterns hold, and takes away those that held before.
    pub(crate) async fn announce(&self, deadline: Instant) -> Result<(), Fault> {
        let entry = Entered::Durable {
            name: self.name.to_string(),
            patterns: texts(&self.patterns),
            expires: self.core.idle_expiry.as_secs(),
        };
        self.core.registry.enter_and_read(entry, deadline).await?;
        self.unbound.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let up = self.core.consuming.until(deadline).await.ok_or(Fault::NotSent)?;
        self.unbind(&up.connection).await
    }

    /// Takes away the bindings of patterns that do not hold any more.
    pub(crate) async fn unbind(&self, connection: &Connection) -> Result<(), Fault> {
        let past = self.core.registry.view(|view| {
            let durable = view.durables.get(self.name.as_str());
            durable.map(|durable| durable.past.clone()).unwrap_or_default()
        });
        let new: Vec<String> = {
            let mut unbound = self.unbound.lock().unwrap_or_else(PoisonError::into_inner);
            unbound.retain(|pattern| past.contains(pattern));
            past.difference(&unbound).cloned().collect()
        };
        if new.is_empty() {
            return Ok(());
        }
        let queue = self.core.names.stored(&Origin::Durable(self.name.clone()));
        let exchange = self.core.names.evt();
        let bindings: Vec<Binding> = new.iter().map(|pattern| (exchange.clone(), pattern.clone())).collect();
        topology::unbind(connection, &queue.name, &bindings).await?;
        self.unbound.lock().unwrap_or_else(PoisonError::into_inner).extend(new);
        Ok(())
    }

    /// It was made again: if it was removed meanwhile, or the registry was, all must know that it is back.
    pub(crate) async fn again(&self) {
        let known = || {
            self.core.registry.view(|view| {
                view.durables.get(self.name.as_str()).is_some_and(|durable| durable.removed.is_none())
            })
        };
        if known() {
            self.core.registry.enter(Entered::Seen { name: self.name.to_string() }).await;
        }
        if !known()
            && let Err(fault) = self.announce(Instant::now() + BOUND).await
        {
            tracing::warn!(error = %fault.into_error("entering a durable subscription"), name = %self.name, "the registry cannot be written");
        }
    }

    /// Enters now and then that somebody reads.
    pub(crate) async fn seen(&self) {
        let pause = MOST_SILENT.min(self.core.idle_expiry / 10).max(Duration::from_secs(1));
        {
            let mut entered = self.entered.lock().unwrap_or_else(PoisonError::into_inner);
            if entered.elapsed() < pause {
                return;
            }
            *entered = Instant::now();
        }
        self.core.registry.enter(Entered::Seen { name: self.name.to_string() }).await;
    }
}

impl Core {
    /// Removes a durable subscription; of several who try at once one does.
    pub(crate) async fn remove(
        self: &Arc<Self>,
        name: &Token,
        idle_for: Option<Duration>,
        deadline: Instant,
    ) -> Result<bool> {
        let what = format!("removing durable subscription {name}");
        self.try_remove(name, idle_for, deadline).await.map_err(|fault| match fault {
            Fault::Late => Error::timeout(&what, BOUND).maybe_executed(),
            fault => fault.into_error(&what),
        })
    }

    async fn try_remove(
        self: &Arc<Self>,
        name: &Token,
        idle_for: Option<Duration>,
        deadline: Instant,
    ) -> Result<bool, Fault> {
        let queue = self.names.stored(&Origin::Durable(name.clone())).name;
        let up = self.consuming.until(deadline).await.ok_or(Fault::NotSent)?;
        let Some((_, consumers)) = topology::look(&up.connection, &queue).await? else { return Ok(false) };
        if let Some(wanted) = idle_for {
            self.registry.enter_and_read(Entered::Mark, deadline).await?;
            let seen =
                self.registry.view(|view| view.durables.get(name.as_str()).map(|durable| durable.seen));
            // One that nobody has entered is as old as can be.
            if consumers > 0 || seen.is_some_and(|seen| idle(now(), seen) < wanted) {
                return Ok(false);
            }
        }
        let before = self.registry.view(|view| view.durables.get(name.as_str()).cloned());
        let id = self.registry.enter_and_read(Entered::Removed { name: name.to_string() }, deadline).await?;
        let first = self.registry.view(|view| {
            let durable = view.durables.get(name.as_str());
            durable.is_some_and(|durable| durable.removed.as_ref() == Some(&id))
        });
        if !first {
            return Ok(false);
        }
        // Quorum queues cannot be deleted on a condition. Who begins to read from here on makes it again.
        if let (Some(_), Some((_, 1..))) = (idle_for, topology::look(&up.connection, &queue).await?) {
            if let Some(durable) = before {
                let (patterns, expires) = (durable.patterns, durable.expires.as_secs());
                self.registry.enter(Entered::Durable { name: name.to_string(), patterns, expires }).await;
            }
            return Ok(false);
        }
        let channel = up.connection.channel(Arc::new(Silent)).await?;
        channel.call(&method::queue_delete(&queue)).await?;
        channel.close().await?;
        Ok(true)
    }
}

/// For how long nobody has read what was last read at `seen`, by clocks that may differ.
pub(crate) fn idle(at: u64, seen: u64) -> Duration {
    Duration::from_millis(at.saturating_sub(seen))
}

fn texts(patterns: &[Pattern]) -> Vec<String> {
    patterns.iter().map(ToString::to_string).collect()
}
