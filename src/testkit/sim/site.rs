//! An instance of a service in a simulation: what it is asked, does and hears, and its life.

use std::{panic::resume_unwind, sync::Arc, time::Duration};

use rand::RngExt;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::{
    broker::Broker,
    bus::SimBus,
    events::Event,
    world::{KEEPER, MOST},
};
use crate::{
    address::Key,
    backoff::Backoff,
    error::Result,
    jsonrpc::RpcError,
    service::{Context, Notice, RetryPolicy, Service},
};

/// How long a handler rests at an await at the most.
const REST: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Numbered {
    pub(super) n: u32,
}

crate::method! {
    /// Is asked.
    pub(super) Ask = "sim.ask": Numbered => u64
}

crate::job! {
    /// Is toiled at.
    pub(super) Toil = "jobs.toil": Numbered
}

impl crate::contract::Event for Numbered {
    const PATTERN: &'static str = "n.sim.#";

    fn key(&self) -> Result<Key> {
        Key::new(["n.sim", "n.sim.odd"][self.n as usize % 2])
    }
}

/// Where handlers of one instance run.
struct Site {
    broker: Arc<Broker>,
    by: u32,
}

/// The life of instance `by`, until it is told to drain within some grace, or is killed.
pub(super) async fn live(broker: Arc<Broker>, by: u32, drain: oneshot::Receiver<Duration>) {
    let at_once = broker.lock().dice.random_range(1..=4);
    broker.log.note(Event::Concurrency { by, at_once });
    let policy = RetryPolicy {
        max_attempts: MOST,
        max_crashes: MOST,
        backoff: Backoff { first: Duration::from_millis(200), most: Duration::from_millis(200) },
        ..RetryPolicy::default()
    };
    let service = Service::new("sim", Site { broker: broker.clone(), by })
        .method(Ask, ask)
        .job(Toil, toil)
        .durable_event(KEEPER, keep)
        .event(hear)
        .concurrency(at_once)
        .retry(policy);
    let life = async {
        let Ok(running) = service.start(Arc::new(SimBus::new(broker.clone(), by))).await else {
            return broker.log.note(Event::NotStarted { by });
        };
        broker.log.note(Event::Started { by });
        let Ok(grace) = drain.await else { return };
        broker.log.note(Event::Drain { by, grace });
        running.drain(grace).await;
        broker.log.note(Event::Drained { by, in_hand: broker.in_hand(Some(by)) });
    };
    tokio::select! {
        biased;
        () = broker.death(by) => {}
        () = life => {}
    }
}

/// Notes that a handler was dropped, unless it came to its end.
struct Watched<'a> {
    site: &'a Site,
    cut: Option<Event>,
}

impl Site {
    /// Goes on for a while.
    async fn work(&self, n: u32) {
        let rests = self.broker.lock().dice.random_range(0..3);
        for _ in 0..rests {
            self.broker.step(self.by, REST).await;
            self.broker.log.note(Event::Resume { n, by: self.by });
        }
    }

    /// A run of something that is stored.
    async fn run(&self, n: u32, attempt: u32) -> Result<(), RpcError> {
        let (by, broker) = (self.by, &self.broker);
        let alone = broker.is_suspect(by, n);
        broker.log.note(Event::Begin { n, by, attempt, alone });
        let mut watched = Watched { site: self, cut: Some(Event::Cut { n, by }) };
        self.work(n).await;
        let lot = broker.lock().dice.random_range(0..100);
        watched.cut = None;
        broker.log.note(if lot < 30 { Event::Fail { n, by } } else { Event::Done { n, by } });
        match lot {
            // Without the hook that would print it.
            0..3 => resume_unwind(Box::new("a handler panicked")),
            3..30 => Err(RpcError::internal()),
            _ => Ok(()),
        }
    }
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        if let Some(cut) = self.cut.take() {
            self.site.broker.log.note(cut);
        }
    }
}

async fn toil(site: Arc<Site>, job: Numbered, context: Context) -> Result<(), RpcError> {
    site.run(job.n, context.attempt).await
}

async fn keep(site: Arc<Site>, notice: Notice<Numbered>, context: Context) -> Result<(), RpcError> {
    match notice {
        Notice::Event(event) => site.run(event.n, context.attempt).await,
        Notice::Gap(_) => Err(RpcError::internal()),
    }
}

async fn hear(site: Arc<Site>, notice: Notice<Numbered>, _: Context) -> Result<(), RpcError> {
    let by = site.by;
    site.broker.log.note(match notice {
        Notice::Event(event) => Event::Heard { n: event.n, by },
        Notice::Gap(_) => Event::Missed { by },
    });
    site.broker.step(by, REST).await;
    Ok(())
}

async fn ask(site: Arc<Site>, call: Numbered, _: Context) -> Result<u64, RpcError> {
    let (n, by) = (call.n, site.by);
    site.broker.log.note(Event::Serve { n, by });
    let mut watched = Watched { site: &site, cut: Some(Event::Dropped { n, by }) };
    site.work(n).await;
    watched.cut = None;
    site.broker.log.note(Event::Served { n, by });
    Ok(u64::from(n) + 1)
}
