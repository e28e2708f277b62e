//! What happens in a simulation: a client with jobs, calls and events, instances of a service that come and go.

use std::{sync::Arc, time::Duration};

use rand::RngExt;
use tokio::{
    sync::oneshot,
    task::{JoinHandle, JoinSet},
    time::{Instant, sleep, timeout},
};

use super::{
    Plant,
    broker::{Broker, CLIENT},
    bus::SimBus,
    events::{Event, Log},
    site::{Ask, Numbered, Toil, live},
};
use crate::{
    address::{Key, Origin, Token},
    bus::Bus,
    client::Client,
    contract::Job,
    error::Error,
    subscription::Source,
};

/// How many runs of a job may fail, and how often its consumer may die.
pub(super) const MOST: u32 = 3;
/// The durable subscription.
pub(super) const KEEPER: &str = "keeper";
/// How long things happen at random.
const UNREST: Duration = Duration::from_secs(10);
/// How many instances there are at one time at the most.
const INSTANCES: usize = 3;

/// An instance of the service, and how it is told to drain.
struct Instance {
    by: u32,
    drain: Option<oneshot::Sender<Duration>>,
    life: JoinHandle<()>,
}

struct World {
    broker: Arc<Broker>,
    client: Client,
    tasks: JoinSet<()>,
    instances: Vec<Instance>,
    /// How many processes there have been beside the client.
    started: u32,
    last: u32,
}

/// Lets it all happen.
pub(super) async fn run(seed: u64, plant: Plant) -> Arc<Log> {
    let broker = Broker::new(seed, plant);
    let mut world = World {
        client: Client::new(Arc::new(SimBus::new(broker.clone(), CLIENT))),
        broker: broker.clone(),
        tasks: JoinSet::new(),
        instances: Vec::new(),
        started: 0,
        last: 0,
    };
    let until = Instant::now() + UNREST;
    while Instant::now() < until {
        world.step();
        broker.rest(Duration::from_secs(2)).await;
    }
    world.end().await;
    broker.log.clone()
}

impl World {
    fn dice(&self, sides: u32) -> u32 {
        self.broker.lock().dice.random_range(0..sides)
    }

    fn next(&mut self) -> u32 {
        self.last += 1;
        self.last
    }

    fn next_process(&mut self) -> u32 {
        self.started += 1;
        self.started
    }

    fn step(&mut self) {
        while self.tasks.try_join_next().is_some() {}
        self.instances.retain(Instance::is_there);
        match self.dice(100) {
            0..22 => self.enqueue(),
            22..44 => self.announce(),
            44..64 => self.call(),
            64..76 if self.instances.len() < INSTANCES => self.start(),
            64..80 => self.drain(),
            80..84 => self.kill(),
            84..91 => self.cut(),
            91..94 => self.broker.crash(),
            94..98 => self.redrive(),
            _ => {}
        }
    }

    fn enqueue(&mut self) {
        for _ in 0..=self.dice(3) {
            let (n, client, log) = (self.next(), self.client.clone(), self.broker.log.clone());
            self.tasks.spawn(async move {
                log.note(Event::Enqueue { n });
                note_sent(&log, n, client.enqueue(Toil, &Numbered { n }).await.map(drop));
            });
        }
    }

    fn announce(&mut self) {
        for _ in 0..=self.dice(3) {
            let (n, client, log) = (self.next(), self.client.clone(), self.broker.log.clone());
            self.tasks.spawn(async move {
                log.note(Event::Announce { n });
                note_sent(&log, n, client.announce(&Numbered { n }).await.map(drop));
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
                match timeout(patience, client.call(Ask, &Numbered { n })).await {
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

    fn start(&mut self) {
        let by = self.next_process();
        self.broker.log.note(Event::Start { by });
        let (drain, drained) = oneshot::channel();
        let life = tokio::spawn(live(self.broker.clone(), by, drained));
        self.instances.push(Instance { by, drain: Some(drain), life });
    }

    fn pick(&mut self) -> Option<&mut Instance> {
        let most = self.instances.len();
        let at = self.dice(most.max(1) as u32) as usize;
        self.instances.get_mut(at)
    }

    fn drain(&mut self) {
        let grace = Duration::from_millis([0, 50, 500, 3_000][self.dice(4) as usize]);
        if let Some(instance) = self.pick() {
            instance.drain(grace);
        }
    }

    fn kill(&mut self) {
        if let Some(by) = self.pick().map(|instance| instance.by) {
            self.broker.kill(by);
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
            sleep(away).await;
            broker.log.note(Event::Up { by });
            broker.mend(by);
        });
    }

    /// Lets somebody bring a few dead letters back.
    fn redrive(&mut self) {
        let (by, broker) = (self.next_process(), self.broker.clone());
        let origin = match self.dice(2) {
            0 => Key::new(Toil::NAME).map(Origin::Queue),
            _ => Token::new(KEEPER).map(Origin::Durable),
        };
        let bus = SimBus::new(broker.clone(), by);
        self.tasks.spawn(async move {
            let work = async {
                let mut letters = bus.subscribe(Source::DeadLetters(origin?), 2).await?;
                for _ in 0..4 {
                    let Ok(Some(letter)) = timeout(Duration::from_secs(1), letters.next_delivery()).await
                    else {
                        break;
                    };
                    letter.redrive().await?;
                }
                Ok::<_, Error>(())
            };
            tokio::select! {
                biased;
                () = broker.death(by) => {}
                done = work => drop(done),
            }
        });
    }

    /// Nothing goes wrong any more: all that was promised comes true, and all leave.
    async fn end(mut self) {
        self.broker.calm();
        self.start();
        while self.tasks.join_next().await.is_some() {}
        for _ in 0..1_000 {
            let busy = {
                let state = self.broker.lock();
                state.left() > 0 || state.is_talking()
            };
            if !busy {
                break;
            }
            sleep(Duration::from_millis(250)).await;
        }
        // For what was taken and is not heard yet.
        sleep(Duration::from_secs(60)).await;
        self.broker.log.note(Event::Quiet);
        for instance in &mut self.instances {
            instance.drain(Duration::from_secs(5));
            drop((&mut instance.life).await);
        }
        drop(self.client);
        sleep(Duration::from_secs(10)).await;
        let (left, dead) = {
            let state = self.broker.lock();
            (state.left(), state.jobs.len() - state.left())
        };
        self.broker.log.note(Event::End { left, in_hand: self.broker.in_hand(None), dead });
    }
}

fn note_sent(log: &Log, n: u32, sent: Result<(), Error>) {
    log.note(match sent {
        Ok(()) => Event::Enqueued { n },
        Err(error) => Event::NotEnqueued { n, maybe: error.may_have_executed() },
    });
}

impl Instance {
    /// Whether it works, or is ending.
    fn is_there(&self) -> bool {
        !self.life.is_finished()
    }

    fn drain(&mut self, grace: Duration) {
        if let Some(drain) = self.drain.take() {
            // It may be dead already.
            drain.send(grace).ok();
        }
    }
}
