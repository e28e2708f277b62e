//! What happens in a simulation: a client with jobs and calls, instances of a service that come and go.

use std::{panic::resume_unwind, sync::Arc, time::Duration};

use rand::RngExt;
use serde::{Deserialize, Serialize};
use tokio::task::{JoinHandle, JoinSet};

use super::{
    Plant,
    broker::Broker,
    bus::SimBus,
    events::{Event, Log},
};
use crate::{
    backoff::Backoff,
    bus::Bus,
    client::Client,
    jsonrpc::RpcError,
    service::{Context, RetryPolicy, Running, Service},
};

/// How many runs of a job may fail, and how often its consumer may die.
pub(super) const MOST: u32 = 3;
/// The process of the client.
const CLIENT: u32 = 0;
/// How long things happen at random.
const UNREST: Duration = Duration::from_secs(10);
/// How many instances there are at one time at the most.
const INSTANCES: usize = 3;

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Numbered {
    n: u32,
}

crate::method! {
    /// Is asked.
    Ask = "sim.ask": Numbered => u64
}

crate::job! {
    /// Is toiled at.
    Toil = "jobs.toil": Numbered
}

/// Where handlers of one instance run.
struct Site {
    broker: Arc<Broker>,
    by: u32,
}

struct Instance {
    by: u32,
    running: Option<Running>,
    draining: Option<JoinHandle<()>>,
}

struct World {
    broker: Arc<Broker>,
    client: Client,
    tasks: JoinSet<()>,
    instances: Vec<Instance>,
    /// How many instances there have been.
    started: u32,
    last: u32,
}

/// Lets it all happen.
pub(super) async fn run(seed: u64, plant: Plant) -> Arc<Log> {
    let broker = Broker::new(seed, plant);
    let client = Client::new(bus(&broker, CLIENT));
    let mut world = World {
        broker: broker.clone(),
        client,
        tasks: JoinSet::new(),
        instances: Vec::new(),
        started: 0,
        last: 0,
    };
    let until = tokio::time::Instant::now() + UNREST;
    while tokio::time::Instant::now() < until {
        world.step().await;
        broker.rest(Duration::from_secs(2)).await;
    }
    world.end().await;
    broker.log.clone()
}

fn bus(broker: &Arc<Broker>, process: u32) -> Arc<dyn Bus> {
    Arc::new(SimBus::new(broker.clone(), process))
}

impl World {
    fn dice(&self, sides: u32) -> u32 {
        self.broker.lock().dice.random_range(0..sides)
    }

    fn next(&mut self) -> u32 {
        self.last += 1;
        self.last
    }

    async fn step(&mut self) {
        while self.tasks.try_join_next().is_some() {}
        self.instances.retain(Instance::is_there);
        match self.dice(100) {
            0..32 => self.enqueue(),
            32..64 => self.call(),
            64..76 if self.instances.len() < INSTANCES => self.start().await,
            64..76 => self.drain(),
            76..82 => self.drain(),
            82..86 => self.kill(),
            86..94 => self.cut(),
            94..97 => self.broker.crash(),
            _ => self.broker.rest(Duration::from_secs(5)).await,
        }
    }

    fn enqueue(&mut self) {
        for _ in 0..=self.dice(3) {
            let (n, client, log) = (self.next(), self.client.clone(), self.broker.log.clone());
            self.tasks.spawn(async move {
                log.note(Event::Enqueue { n });
                match client.enqueue(Toil, &Numbered { n }).await {
                    Ok(_) => log.note(Event::Enqueued { n }),
                    Err(error) => log.note(Event::NotEnqueued { n, maybe: error.may_have_executed() }),
                }
            });
        }
    }

    fn call(&mut self) {
        for _ in 0..=self.dice(3) {
            let (n, log) = (self.next(), self.broker.log.clone());
            let limit = Duration::from_millis([20, 200, 1_000, 5_000][self.dice(4) as usize]);
            let patience = if self.dice(5) == 0 { limit.mul_f64(0.5) } else { limit * 2 };
            let client = self.client.clone().with_timeout(limit);
            self.tasks.spawn(async move {
                log.note(Event::Call { n, limit });
                match tokio::time::timeout(patience, client.call(Ask, &Numbered { n })).await {
                    Err(_) => log.note(Event::Forsaken { n }),
                    Ok(Ok(answer)) => log.note(Event::Answered { n, answer }),
                    Ok(Err(error)) => {
                        let (kind, maybe) = (error.kind().name(), error.may_have_executed());
                        log.note(Event::Failed { n, kind, maybe });
                    }
                }
            });
        }
    }

    async fn start(&mut self) {
        self.started += 1;
        let by = self.started;
        let log = self.broker.log.clone();
        log.note(Event::Start { by });
        let policy = RetryPolicy {
            max_attempts: MOST,
            max_crashes: MOST,
            backoff: Backoff { first: Duration::from_millis(200), most: Duration::from_millis(200) },
            ..RetryPolicy::default()
        };
        let at_once = self.dice(4) as u16 + 1;
        let service = Service::new("sim", Site { broker: self.broker.clone(), by })
            .method(Ask, ask)
            .job(Toil, toil)
            .concurrency(at_once)
            .retry(policy);
        log.note(Event::Concurrency { by, at_once });
        let running = match service.start(bus(&self.broker, by)).await {
            Ok(running) => {
                log.note(Event::Started { by });
                Some(running)
            }
            Err(_) => {
                log.note(Event::NotStarted { by });
                None
            }
        };
        self.instances.push(Instance { by, running, draining: None });
    }

    fn pick(&mut self) -> Option<&mut Instance> {
        let most = self.instances.len();
        let at = self.dice(most.max(1) as u32) as usize;
        self.instances.get_mut(at)
    }

    fn drain(&mut self) {
        let grace = Duration::from_millis([0, 50, 500, 3_000][self.dice(4) as usize]);
        let broker = self.broker.clone();
        if let Some(instance) = self.pick() {
            instance.drain(&broker, grace);
        }
    }

    fn kill(&mut self) {
        let broker = self.broker.clone();
        let Some(instance) = self.pick() else { return };
        broker.log.note(Event::Kill { by: instance.by });
        broker.bury(instance.by);
        instance.running = None;
        if let Some(draining) = instance.draining.take() {
            draining.abort();
        }
    }

    /// Breaks the connection of the client or of an instance for a while.
    fn cut(&mut self) {
        let at = self.dice(self.instances.len() as u32 + 1) as usize;
        let by = self.instances.get(at).map_or(CLIENT, |instance| instance.by);
        let requeue = self.dice(2) == 0;
        let (broker, away) = (self.broker.clone(), Duration::from_millis(u64::from(self.dice(3_000))));
        broker.log.note(Event::Down { by });
        broker.cut(by, requeue);
        self.tasks.spawn(async move {
            tokio::time::sleep(away).await;
            broker.log.note(Event::Up { by });
            broker.mend(by);
        });
    }

    /// Nothing goes wrong any more: all that was promised comes true, and all leave.
    async fn end(mut self) {
        self.broker.calm();
        self.start().await;
        while self.tasks.join_next().await.is_some() {}
        for _ in 0..1_000 {
            if self.broker.lock().jobs.is_empty() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        for instance in &mut self.instances {
            instance.drain(&self.broker, Duration::from_secs(5));
            if let Some(draining) = instance.draining.take() {
                drop(draining.await);
            }
        }
        drop(self.client);
        tokio::time::sleep(Duration::from_secs(10)).await;
        let left = self.broker.lock().jobs.len();
        self.broker.log.note(Event::End { left, in_hand: self.broker.in_hand(None) });
    }
}

impl Instance {
    /// Whether it works, or is ending.
    fn is_there(&self) -> bool {
        self.running.is_some() || self.draining.as_ref().is_some_and(|draining| !draining.is_finished())
    }

    fn drain(&mut self, broker: &Arc<Broker>, grace: Duration) {
        let (by, broker) = (self.by, broker.clone());
        let Some(running) = self.running.take() else { return };
        self.draining = Some(tokio::spawn(async move {
            broker.log.note(Event::Drain { by, grace });
            running.drain(grace).await;
            broker.log.note(Event::Drained { by, in_hand: broker.in_hand(Some(by)) });
        }));
    }
}

/// Notes that a handler was dropped, unless it came to its end.
struct Watched<'a> {
    site: &'a Site,
    cut: Option<Event>,
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        if let Some(cut) = self.cut.take() {
            self.site.broker.log.note(cut);
        }
    }
}

async fn toil(site: Arc<Site>, job: Numbered, context: Context) -> Result<(), RpcError> {
    let (n, by, broker) = (job.n, site.by, &site.broker);
    let alone = broker.is_suspect(by, n);
    broker.log.note(Event::Begin { n, by, attempt: context.attempt, alone });
    let mut watched = Watched { site: &site, cut: Some(Event::Cut { n, by }) };
    let rests = broker.lock().dice.random_range(0..3);
    for _ in 0..rests {
        broker.rest(Duration::from_secs(2)).await;
        broker.log.note(Event::Resume { n, by });
    }
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

async fn ask(site: Arc<Site>, call: Numbered, _: Context) -> Result<u64, RpcError> {
    let (n, by, broker) = (call.n, site.by, &site.broker);
    broker.log.note(Event::Serve { n, by });
    let mut watched = Watched { site: &site, cut: Some(Event::Dropped { n, by }) };
    let rests = broker.lock().dice.random_range(0..3);
    for _ in 0..rests {
        broker.rest(Duration::from_secs(2)).await;
        broker.log.note(Event::Resume { n, by });
    }
    watched.cut = None;
    broker.log.note(Event::Served { n, by });
    Ok(u64::from(n) + 1)
}
