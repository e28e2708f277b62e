//! A bus that breaks the contract on purpose, to see the scenarios fail.

mod books;
mod fault;
mod settle;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;

pub use self::fault::Fault;
use crate::{
    address::{Address, Inbox, Key, Token},
    bus::{Bus, Guarantees},
    connection::{ConnectionWatch, Connectivity},
    error::{ErrorKind, Result},
    ledger::Ledger,
    message::{Message, header},
    pattern::Pattern,
    subscription::{Source, Subscription},
    survey::Survey,
};

/// A bus with a [`Fault`].
#[derive(Debug)]
pub struct ChaosBus {
    inner: Arc<dyn Bus>,
    fault: Fault,
    count: AtomicU64,
    waiting: Mutex<Option<Message>>,
    first_patterns: Mutex<HashMap<Token, Vec<Pattern>>>,
    first_inbox: OnceLock<Inbox>,
    /// Some durable subscription was removed.
    removed: AtomicBool,
    connectivity: Connectivity,
}

impl ChaosBus {
    /// `inner` with `fault`.
    pub fn new(inner: Arc<dyn Bus>, fault: Fault) -> Self {
        let connectivity = Connectivity::new("chaos");
        if fault == Fault::Despairs {
            connectivity.down("for no reason");
        }
        Self {
            inner,
            fault,
            count: AtomicU64::new(0),
            waiting: Mutex::default(),
            first_patterns: Mutex::default(),
            first_inbox: OnceLock::new(),
            removed: AtomicBool::new(false),
            connectivity,
        }
    }

    /// Swaps the message that waits to be published out of order.
    fn wait(&self, message: Option<Message>) -> Option<Message> {
        std::mem::replace(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner), message)
    }

    fn clung(&self, source: Source) -> Source {
        match source {
            Source::Durable(name, patterns) if self.fault == Fault::Clings => {
                let mut first = self.first_patterns.lock().unwrap_or_else(PoisonError::into_inner);
                let patterns = first.entry(name.clone()).or_insert(patterns).clone();
                Source::Durable(name, patterns)
            }
            source => source,
        }
    }
}

#[async_trait]
impl Bus for ChaosBus {
    async fn publish(&self, message: Message) -> Result<()> {
        let seventh = self.count.fetch_add(1, Ordering::Relaxed) % 7 == 6;
        let message = match (self.fault, message.address(), self.first_inbox.get()) {
            (Fault::Confuses, Address::Inbox(_), Some(first)) => message.to(Address::Inbox(*first)),
            _ => self.fault.message(message)?,
        };
        let event = matches!(message.address(), Address::Topic(_));
        match self.fault {
            Fault::Evicts if event && self.removed.load(Ordering::Relaxed) => return Ok(()),
            Fault::Obeys => {
                let reply = message.headers().get(header::REPLY).map(Key::new);
                if let Some(Ok(queue)) = reply.filter(|_| message.reply_to().is_none()) {
                    self.inner.publish(Message::new(Address::Queue(queue), "an answer")?).await?;
                }
            }
            Fault::Loses if seventh => return Ok(()),
            Fault::Doubles if seventh => self.inner.publish(message.clone()).await?,
            Fault::Reorders if seventh => {
                self.wait(Some(message));
                return Ok(());
            }
            _ => {}
        }
        let published = self.inner.publish(message).await;
        let kind = published.as_ref().err().map(|e| e.kind().clone());
        match (self.fault, kind) {
            (Fault::Pretends, Some(ErrorKind::NoResponders | ErrorKind::Busy)) => return Ok(()),
            (Fault::Hesitates, Some(ErrorKind::NoResponders)) => {
                tokio::time::sleep(Duration::from_millis(600)).await;
            }
            _ => {}
        }
        match self.wait(None) {
            Some(waited) => published.and(self.inner.publish(waited).await),
            None => published,
        }
    }

    async fn subscribe(&self, source: Source, prefetch: u16) -> Result<Subscription> {
        let source = self.clung(self.fault.source(source)?);
        if let Source::Inbox(inbox) = &source {
            self.first_inbox.get_or_init(|| *inbox);
        }
        let prefetch = if self.fault == Fault::Grasps { prefetch.saturating_mul(2) } else { prefetch };
        let copies = match &source {
            Source::Topic(patterns) | Source::Durable(_, patterns) if self.fault == Fault::Copies => {
                patterns.len()
            }
            _ => 1,
        };
        let stored = matches!(source, Source::Queue(_) | Source::Durable(..) | Source::DeadLetters(_));
        let inner = self.inner.subscribe(source.clone(), prefetch).await?;
        if copies == 1 && !(stored && self.fault.settles()) {
            return Ok(inner);
        }
        let (outer, feed) = Subscription::new(prefetch);
        tokio::spawn(settle::pump(inner, source, self.inner.clone(), feed, self.fault, copies));
        Ok(outer)
    }

    async fn close(&self) -> Result<()> {
        if self.fault == Fault::Stays { Ok(()) } else { self.inner.close().await }
    }

    fn guarantees(&self) -> Guarantees {
        self.inner.guarantees()
    }

    fn connection(&self) -> ConnectionWatch {
        if self.fault == Fault::Despairs { self.connectivity.watch() } else { self.inner.connection() }
    }

    async fn survey(&self) -> Result<Survey> {
        books::survey(&self.inner, self.fault).await
    }

    async fn remove_durable(&self, name: &Token, idle: Option<Duration>) -> Result<bool> {
        self.removed.store(true, Ordering::Relaxed);
        match self.fault {
            Fault::Clutches => Ok(true),
            Fault::Hastens => self.inner.remove_durable(name, None).await,
            _ => self.inner.remove_durable(name, idle).await,
        }
    }

    fn ledger(&self) -> Option<Arc<dyn Ledger>> {
        let inner = self.inner.ledger().filter(|_| self.fault != Fault::Disowns)?;
        Some(Arc::new(books::Books { inner, fault: self.fault }))
    }
}
