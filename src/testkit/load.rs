//! Load on a bus, with a history of all that happens.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::{sync::Semaphore, task::JoinSet, time::Instant};

use super::{
    history::{History, Seen},
    wait::{Failure, Outcome},
};
use crate::{
    address::{Address, Key},
    bus::Bus,
    delivery::Delivery,
    error::Error,
    message::Message,
    subscription::{Source, Subscription},
    survey::What,
};

/// Publishers and workers on one queue. What each message says is made of the seed and its number, so that a worker
/// knows whether it came whole.
#[derive(Debug, Clone)]
pub struct Load {
    /// The queue.
    pub queue: Key,
    /// The seed of sizes and bytes.
    pub seed: u64,
    /// How many messages are to be acknowledged by the broker.
    pub messages: u64,
    /// How many publish at one time.
    pub publishers: u32,
    /// How long each of them rests after a message.
    pub rest: Duration,
    /// The most messages that are published and not yet handed out: publishers wait for workers there.
    pub backlog: usize,
    /// How many work at one time, each with a subscription of its own.
    pub workers: u32,
    /// The most deliveries in hand of each worker.
    pub prefetch: u16,
    /// How many runs fail, of a hundred.
    pub failing: u32,
    /// How long the longest run takes.
    pub longest_run: Duration,
}

impl Load {
    /// A load of `messages` on `queue` with 16 publishers, 4 workers, a prefetch of 16 and a backlog of 1,000.
    pub fn new(queue: Key, seed: u64, messages: u64) -> Self {
        Self {
            queue,
            seed,
            messages,
            publishers: 16,
            rest: Duration::ZERO,
            backlog: 1_000,
            workers: 4,
            prefetch: 16,
            failing: 0,
            longest_run: Duration::ZERO,
        }
    }

    /// Runs it: publishers on the first bus, workers on the others in turn (on the first where there is no other).
    /// `faults` happen meanwhile; publishing goes on until they are over and enough is acknowledged. Returns when all
    /// that was acknowledged is settled, or fails when nothing more happens for `patience`.
    pub async fn run(
        &self,
        buses: &[Arc<dyn Bus>],
        history: &Arc<History>,
        patience: Duration,
        faults: impl Future<Output = Outcome>,
    ) -> Outcome {
        let Some((first, others)) = buses.split_first() else {
            return Err(Failure::new("a load needs a bus"));
        };
        let shared = Arc::new(Shared::new(self.backlog));
        let mut workers = JoinSet::new();
        for number in 0..self.workers {
            let bus = if others.is_empty() { first } else { &others[number as usize % others.len()] };
            let deliveries = bus.subscribe(Source::Queue(self.queue.clone()), self.prefetch).await?;
            workers.spawn(self.clone().work(deliveries, number, shared.clone(), history.clone()));
        }
        let mut publishers = JoinSet::new();
        for _ in 0..self.publishers {
            publishers.spawn(self.clone().publish(first.clone(), shared.clone(), history.clone()));
        }
        let faulted = faults.await;
        shared.faults_over.store(true, Ordering::Release);
        faulted?;
        let mut quiet = Quiet::new(history, patience);
        while !publishers.is_empty() {
            tokio::select! {
                _ = publishers.join_next() => {}
                () = tokio::time::sleep(Duration::from_millis(50)) => quiet.look("publishing", history)?,
            }
        }
        loop {
            let open = open(history);
            // What is in doubt comes again unless it was settled all the same: the broker knows.
            if open.is_empty() || open.values().all(|doubt| *doubt) && self.is_over(first).await {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
            quiet.look("settling", history)?;
        }
    }

    /// Whether the broker holds nothing more of it.
    async fn is_over(&self, bus: &Arc<dyn Bus>) -> bool {
        let Ok(survey) = bus.survey().await else { return false };
        let queue = What::Queue(self.queue.clone());
        let told = survey.declared.iter().find(|told| told.what == queue);
        told.is_some_and(|told| [told.waiting, told.in_hand, told.resting].iter().flatten().all(|n| *n == 0))
    }

    async fn publish(self, bus: Arc<dyn Bus>, shared: Arc<Shared>, history: Arc<History>) {
        loop {
            let enough = shared.acknowledged.load(Ordering::Acquire) >= self.messages;
            if enough && shared.faults_over.load(Ordering::Acquire) {
                return;
            }
            let n = shared.take_place().await;
            // A body is small, so that this cannot fail.
            let Ok(message) = Message::new(Address::Queue(self.queue.clone()), self.body(n)) else { return };
            history.note(Seen::Publish { n });
            match bus.publish(message).await {
                Ok(()) => {
                    history.note(Seen::Published { n });
                    shared.acknowledged.fetch_add(1, Ordering::AcqRel);
                }
                Err(error) => {
                    // It may never be handed out.
                    shared.leave_place(n);
                    let maybe = error.may_have_executed();
                    history.note(if maybe { Seen::Unknown { n } } else { Seen::Refused { n } });
                }
            }
            if !self.rest.is_zero() {
                tokio::time::sleep(self.rest).await;
            }
        }
    }

    async fn work(self, mut deliveries: Subscription, by: u32, shared: Arc<Shared>, history: Arc<History>) {
        let mut random = StdRng::seed_from_u64(self.seed ^ u64::from(by));
        let mut running = JoinSet::new();
        while let Some(delivery) = deliveries.next_delivery().await {
            while running.try_join_next().is_some() {}
            let Some(n) = self.number_of(delivery.message().body()) else {
                history.note(Seen::Foreign { by });
                drop(delivery.ack().await);
                continue;
            };
            shared.leave_place(n);
            history.note(Seen::Delivered { n, by, attempt: delivery.attempt() });
            let rest = self.longest_run.mul_f64(random.random_range(0.0..=1.0));
            let fails = random.random_range(0..100) < self.failing;
            running.spawn(run(delivery, n, by, rest, fails, history.clone()));
        }
    }

    /// What message `n` says: its number, and bytes that nothing but the seed and the number make.
    fn body(&self, n: u64) -> Bytes {
        let mut random = StdRng::seed_from_u64(self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ n);
        let mut body = n.to_be_bytes().to_vec();
        let size: usize = random.random_range(16..=256);
        body.extend((0..size).map(|_| random.random::<u8>()));
        body.into()
    }

    /// The number of the message with this body, if it came whole.
    fn number_of(&self, body: &Bytes) -> Option<u64> {
        let n = u64::from_be_bytes(body.get(..8)?.try_into().ok()?);
        (self.body(n) == *body).then_some(n)
    }
}

/// What was published or delivered and is not known to be settled, and whether that is in doubt.
fn open(history: &History) -> HashMap<u64, bool> {
    let (mut open, mut settled) = (HashMap::new(), HashSet::new());
    let events = history.events();
    for event in &events {
        match event.what {
            Seen::Published { n } | Seen::Delivered { n, .. } => drop(open.insert(n, false)),
            Seen::Acked { n, .. } | Seen::Buried { n, .. } => drop(settled.insert(n)),
            _ => {}
        }
    }
    open.retain(|n, _| !settled.contains(n));
    for event in &events {
        match event.what {
            Seen::Unsettled { n, .. } => drop(open.get_mut(&n).map(|doubt| *doubt = true)),
            Seen::Delivered { n, .. } => drop(open.get_mut(&n).map(|doubt| *doubt = false)),
            _ => {}
        }
    }
    open
}

struct Shared {
    next: AtomicU64,
    acknowledged: AtomicU64,
    faults_over: AtomicBool,
    /// The places that are free in the backlog, and the messages that have one.
    places: Semaphore,
    placed: Mutex<HashSet<u64>>,
}

impl Shared {
    fn new(backlog: usize) -> Self {
        Self {
            next: AtomicU64::new(0),
            acknowledged: AtomicU64::new(0),
            faults_over: AtomicBool::new(false),
            places: Semaphore::new(backlog),
            placed: Mutex::default(),
        }
    }

    /// Waits for a place in the backlog. Returns the number of the message that has it.
    async fn take_place(&self) -> u64 {
        if let Ok(place) = self.places.acquire().await {
            place.forget();
        }
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        self.placed.lock().unwrap_or_else(PoisonError::into_inner).insert(n);
        n
    }

    /// Message `n` leaves its place, if it has one.
    fn leave_place(&self, n: u64) {
        if self.placed.lock().unwrap_or_else(PoisonError::into_inner).remove(&n) {
            self.places.add_permits(1);
        }
    }
}

async fn run(delivery: Delivery, n: u64, by: u32, rest: Duration, fails: bool, history: Arc<History>) {
    history.note(Seen::Run { n, by });
    if !rest.is_zero() {
        tokio::time::sleep(rest).await;
    }
    let (outcome, settled) = if fails {
        (delivery.nack(Duration::from_millis(100), "as the dice fell").await, Seen::Resting { n, by })
    } else {
        (delivery.ack().await, Seen::Acked { n, by })
    };
    // A retry that is in doubt may come, and the message that it was to take the place of as well.
    if fails && outcome.as_ref().is_err_and(Error::may_have_executed) {
        history.note(settled);
    }
    history.note(if outcome.is_ok() { settled } else { Seen::Unsettled { n, by } });
}

/// Notices when nothing happens any more.
struct Quiet {
    events: usize,
    since: Instant,
    patience: Duration,
}

impl Quiet {
    fn new(history: &History, patience: Duration) -> Self {
        Self { events: history.count(|_| true), since: Instant::now(), patience }
    }

    fn look(&mut self, doing: &str, history: &History) -> Outcome {
        let events = history.count(|_| true);
        if events != self.events {
            (self.events, self.since) = (events, Instant::now());
        }
        if self.since.elapsed() <= self.patience {
            return Ok(());
        }
        let found = history.check(&super::Rules::default());
        Err(Failure::new(format!(
            "{doing} does not go on: nothing happened for {:?}: {found:?}",
            self.patience
        )))
    }
}
