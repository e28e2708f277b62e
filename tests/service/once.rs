//! The dedup layer, and how long a run may take.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use commissaire::{
    Address, Backoff, Begun, Bus, Client, Context, Error, ErrorKind, Ledger, LocalLedger, Message, MessageId,
    Metrics, Origin, Result, RetryPolicy, RpcError, Running, Service, Settlement, Source, header,
    service::DEFAULT_DEDUP, testkit::until,
};
use tokio::time::{Instant, sleep};

use super::{
    Named, Work,
    double::{Double, take},
    key, memory,
};

/// Which runs there were.
#[derive(Default)]
struct Log(Mutex<HashMap<String, u32>>);

impl Log {
    fn runs(&self) -> u32 {
        self.0.lock().unwrap().values().sum()
    }
}

fn place() -> Origin {
    Origin::Queue(key("jobs.work"))
}

fn job(id: MessageId, name: &str) -> Message {
    let body = format!(r#"{{"jsonrpc":"2.0","method":"work","params":{{"name":"{name}"}}}}"#);
    Message::with_id(id, Address::Queue(key("jobs.work")), body).unwrap()
}

/// Notes each run, which takes as many milliseconds as the job's name says.
async fn worker(bus: Arc<dyn Bus>, log: &Arc<Log>, metrics: &Metrics) -> Running {
    Service::new("worker", log.clone())
        .job(Work, async |log: Arc<Log>, named: Named, _: Context| {
            *log.0.lock().unwrap().entry(named.name.clone()).or_default() += 1;
            let millis = named.name.rsplit(' ').next().and_then(|text| text.parse().ok()).unwrap_or(0);
            sleep(Duration::from_millis(millis)).await;
            Ok(())
        })
        .dedup(DEFAULT_DEDUP)
        .metrics(metrics.clone())
        .start(bus)
        .await
        .unwrap()
}

fn count(metrics: &Metrics, outcome: &str) -> u32 {
    let start = format!(r#"commissaire_deliveries_total{{source="queue jobs.work",outcome="{outcome}"}} "#);
    metrics.render().lines().find_map(|line| line.strip_prefix(&start)?.parse().ok()).unwrap_or(0)
}

async fn settles(what: &str, probe: impl AsyncFn() -> bool) {
    until(what, Duration::from_secs(600), probe).await.unwrap_or_else(|failure| panic!("{failure}"));
}

#[tokio::test(start_paused = true)]
async fn what_is_published_three_times_is_run_once() {
    const MESSAGES: u32 = 10_000;
    let (bus, log, metrics) = (memory().await, Arc::new(Log::default()), Metrics::default());
    let mut workers = Vec::new();
    for _ in 0..4 {
        workers.push(worker(bus.clone(), &log, &metrics).await);
    }
    let publishers = (0..3).map(|_| 0..MESSAGES);
    // All three publish the same, each beginning elsewhere, so that copies come together and far apart.
    let ids: Arc<Vec<MessageId>> = Arc::new((0..MESSAGES).map(|_| MessageId::new()).collect());
    let mut publishing = Vec::new();
    for (number, messages) in publishers.enumerate() {
        let (bus, ids) = (bus.clone(), ids.clone());
        publishing.push(tokio::spawn(async move {
            for at in messages {
                let at = (at as usize + number * 37) % ids.len();
                bus.publish(job(ids[at], &format!("{at} {}", at % 50))).await.unwrap();
            }
        }));
    }
    for publisher in publishing {
        publisher.await.unwrap();
    }
    settles("all is settled", async || {
        count(&metrics, "ok") == MESSAGES && count(&metrics, "deduplicated") == 2 * MESSAGES
    })
    .await;
    assert_eq!(log.runs(), MESSAGES);
    assert!(log.0.lock().unwrap().values().all(|runs| *runs == 1));
    assert!(
        count(&metrics, "waited") > 0,
        "no two copies came together: the test shows less than it means to"
    );
}

#[tokio::test(start_paused = true)]
async fn a_run_of_a_holder_that_died_is_run_again_when_its_lease_has_passed() {
    let ledger: Arc<dyn Ledger> = Arc::new(LocalLedger::default());
    let double = Double { ledger: Some(ledger.clone()), ..Double::new().await };
    let (bus, log, metrics) = (Arc::new(double), Arc::new(Log::default()), Metrics::default());
    let id = MessageId::new();
    // Somebody began, and died.
    let begun = ledger.begin(&place(), id, 42, Duration::from_secs(60)).await.unwrap();
    assert_eq!(begun, Begun::Fresh);
    let started = Instant::now();
    let _running = worker(bus.clone(), &log, &metrics).await;
    bus.publish(job(id, "left behind")).await.unwrap();
    settles("it is run", async || log.runs() == 1).await;
    let waited = started.elapsed().as_secs();
    assert!((60..=62).contains(&waited), "{waited} s");
    settles("it is done", async || count(&metrics, "ok") == 1).await;
    assert!(count(&metrics, "waited") >= 58);
    assert_eq!(count(&metrics, "retry"), 0, "waiting is no failed run");
}

#[tokio::test(start_paused = true)]
async fn what_its_consumer_died_of_waits_in_hand_and_stays_suspect() {
    let ledger: Arc<dyn Ledger> = Arc::new(LocalLedger::default());
    let double = Double { ledger: Some(ledger.clone()), by_hand: true, ..Double::new().await };
    let (bus, log, metrics) = (Arc::new(double), Arc::new(Log::default()), Metrics::default());
    let id = MessageId::new();
    ledger.begin(&place(), id, 42, Duration::from_secs(60)).await.unwrap();
    let _running = worker(bus.clone(), &log, &metrics).await;
    let mut ended = bus.deliver(job(id, "suspect"), 3).await;
    // It is not given back as new: so it is run from this very delivery.
    assert!(matches!(ended.recv().await, Some(Some(Settlement::Ack))));
    assert_eq!(log.runs(), 1);
    // One that another runs for longer than a dead one could is that of a living one.
    ledger.begin(&place(), MessageId::new(), 42, Duration::from_secs(600)).await.unwrap();
    let alive = MessageId::new();
    ledger.begin(&place(), alive, 42, Duration::from_secs(600)).await.unwrap();
    let mut ended = bus.deliver(job(alive, "alive"), 1).await;
    assert!(matches!(ended.recv().await, Some(Some(Settlement::Retry { .. }))));
    let mut ended = bus.deliver(job(MessageId::new(), "killer"), 11).await;
    assert!(matches!(ended.recv().await, Some(Some(Settlement::DeadLetter { .. }))));
    assert_eq!(log.runs(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_long_run_keeps_its_lease() {
    let (bus, log, metrics) = (memory().await, Arc::new(Log::default()), Metrics::default());
    let _one = worker(bus.clone(), &log, &metrics).await;
    let _two = worker(bus.clone(), &log, &metrics).await;
    let id = MessageId::new();
    bus.publish(job(id, "long 300000")).await.unwrap();
    bus.publish(job(id, "long 300000")).await.unwrap();
    settles("both are settled", async || count(&metrics, "ok") == 1 && count(&metrics, "deduplicated") == 1)
        .await;
    assert_eq!(log.runs(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_failed_run_is_no_done_run_and_a_dead_letter_may_be_run_again() {
    let (bus, runs, metrics) = (memory().await, Arc::new(AtomicU32::new(0)), Metrics::default());
    let _running = Service::new("worker", runs.clone())
        .job(Work, async |runs: Arc<AtomicU32>, _: Named, _: Context| {
            match runs.fetch_add(1, Ordering::Relaxed) {
                0..5 => Err(RpcError::new(RpcError::UNAVAILABLE, "not yet")),
                _ => Ok(()),
            }
        })
        .dedup(DEFAULT_DEDUP)
        .metrics(metrics.clone())
        .start(bus.clone())
        .await
        .unwrap();
    let id = Client::new(bus.clone()).enqueue(Work, &Named { name: "x".into() }).await.unwrap();
    let dead = take(&bus, Source::DeadLetters(place())).await;
    assert_eq!((dead.message().id(), runs.load(Ordering::Relaxed)), (Some(id), 5));
    dead.redrive().await.unwrap();
    settles("it is done", async || count(&metrics, "ok") == 1).await;
    assert_eq!((runs.load(Ordering::Relaxed), count(&metrics, "retry")), (6, 4));
}

#[tokio::test(start_paused = true)]
async fn a_run_that_was_cut_off_at_the_end_of_a_service_begins_again_at_once() {
    let (bus, log, metrics) = (memory().await, Arc::new(Log::default()), Metrics::default());
    let running = worker(bus.clone(), &log, &metrics).await;
    bus.publish(job(MessageId::new(), "long 600000")).await.unwrap();
    settles("it is begun", async || log.runs() == 1).await;
    running.drain(Duration::from_secs(1)).await;
    let again = Instant::now();
    let _running = worker(bus.clone(), &log, &metrics).await;
    settles("it is begun again", async || log.runs() == 2).await;
    assert!(again.elapsed() < Duration::from_secs(3), "{:?}", again.elapsed());
}

/// A ledger that is away when it is told to be.
#[derive(Debug, Default)]
struct Away {
    inner: LocalLedger,
    away: AtomicBool,
}

impl Away {
    fn check(&self) -> Result<()> {
        match self.away.load(Ordering::Relaxed) {
            true => Err(Error::unavailable("the ledger is away")),
            false => Ok(()),
        }
    }
}

#[async_trait]
impl Ledger for Away {
    async fn begin(&self, place: &Origin, id: MessageId, holder: u128, lease: Duration) -> Result<Begun> {
        self.check()?;
        self.inner.begin(place, id, holder, lease).await
    }

    async fn end(&self, place: &Origin, id: MessageId, holder: u128, done: Option<Duration>) -> Result<()> {
        self.check()?;
        self.inner.end(place, id, holder, done).await
    }
}

async fn away() -> (Arc<Away>, Arc<dyn Bus>, Arc<Log>, Metrics) {
    let ledger = Arc::new(Away::default());
    let double = Double { ledger: Some(ledger.clone()), ..Double::new().await };
    (ledger, Arc::new(double), Arc::default(), Metrics::default())
}

#[tokio::test(start_paused = true)]
async fn while_the_ledger_is_away_nothing_runs_and_nothing_is_lost() {
    let (ledger, bus, log, metrics) = away().await;
    let _running = worker(bus.clone(), &log, &metrics).await;
    ledger.away.store(true, Ordering::Relaxed);
    for number in 0..10 {
        bus.publish(job(MessageId::new(), &format!("{number} 0"))).await.unwrap();
    }
    sleep(Duration::from_secs(30)).await;
    assert_eq!((log.runs(), count(&metrics, "retry"), count(&metrics, "dead")), (0, 0, 0));
    ledger.away.store(false, Ordering::Relaxed);
    settles("all are done", async || count(&metrics, "ok") == 10).await;
    assert_eq!(log.runs(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_run_whose_lease_cannot_be_renewed_is_dropped_before_another_begins() {
    let (ledger, bus, log, metrics) = away().await;
    let _running = worker(bus.clone(), &log, &metrics).await;
    bus.publish(job(MessageId::new(), "long 100000")).await.unwrap();
    settles("it is begun", async || log.runs() == 1).await;
    let started = Instant::now();
    ledger.away.store(true, Ordering::Relaxed);
    settles("it is dropped", async || count(&metrics, "waited") >= 1).await;
    let held = started.elapsed().as_secs();
    assert!((55..=61).contains(&held), "{held} s");
    ledger.away.store(false, Ordering::Relaxed);
    settles("it is done", async || count(&metrics, "ok") == 1).await;
    assert_eq!(log.runs(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_was_done_while_the_ledger_was_away_is_acknowledged() {
    let (ledger, bus, log, metrics) = away().await;
    let _running = worker(bus.clone(), &log, &metrics).await;
    bus.publish(job(MessageId::new(), "short 10000")).await.unwrap();
    settles("it is begun", async || log.runs() == 1).await;
    ledger.away.store(true, Ordering::Relaxed);
    settles("it is acknowledged", async || count(&metrics, "ok") == 1).await;
    ledger.away.store(false, Ordering::Relaxed);
    sleep(Duration::from_secs(300)).await;
    assert_eq!(log.runs(), 1);
}

#[tokio::test]
async fn what_cannot_be_known_again_is_refused() {
    let (bus, log, metrics) = (memory().await, Arc::new(Log::default()), Metrics::default());
    let _running = worker(bus.clone(), &log, &metrics).await;
    let nameless = job(MessageId::new(), "x").with(header::ID, "none").unwrap();
    bus.publish(nameless).await.unwrap();
    let dead = take(&bus, Source::DeadLetters(place())).await;
    assert_eq!(dead.message().headers().get(header::DEAD), Some("rejected"));
    assert_eq!(log.runs(), 0);
}

fn policy(max_attempts: u32, max_run: Duration) -> RetryPolicy {
    let backoff = Backoff { first: Duration::from_secs(1), most: Duration::from_secs(1) };
    RetryPolicy { max_attempts, max_run, backoff, ..RetryPolicy::default() }
}

async fn endless(bus: Arc<dyn Bus>, runs: &Arc<AtomicU32>, policy: RetryPolicy) -> Result<Running> {
    let endless =
        Service::new("worker", runs.clone()).job(Work, async |runs: Arc<AtomicU32>, _: Named, _: Context| {
            runs.fetch_add(1, Ordering::Relaxed);
            std::future::pending().await
        });
    endless.retry(policy).start(bus).await
}

#[tokio::test(start_paused = true)]
async fn a_run_that_takes_too_long_is_a_failed_run() {
    let (bus, runs) = (memory().await, Arc::new(AtomicU32::new(0)));
    let _running = endless(bus.clone(), &runs, policy(3, Duration::from_secs(40))).await.unwrap();
    let started = Instant::now();
    Client::new(bus.clone()).enqueue(Work, &Named { name: "x".into() }).await.unwrap();
    let dead = take(&bus, Source::DeadLetters(place())).await;
    assert_eq!(runs.load(Ordering::Relaxed), 3);
    assert_eq!(dead.message().headers().get(header::DEAD), Some("attempts"));
    let why = dead.message().headers().get(header::LAST_FAILURE).unwrap();
    assert!(why.contains("ran longer than 40s"), "{why}");
    let took = started.elapsed().as_secs();
    assert!((120..=124).contains(&took), "{took} s");
}

#[tokio::test]
async fn runs_longer_than_the_broker_allows_are_refused_at_start() {
    let longest = Duration::from_secs(25 * 60);
    let bus = Arc::new(Double { longest_run: Some(longest), ..Double::new().await });
    let runs = Arc::new(AtomicU32::new(0));
    let refused = endless(bus.clone(), &runs, policy(3, longest + Duration::from_secs(1))).await.unwrap_err();
    assert_eq!(refused.kind(), &ErrorKind::Config);
    for word in ["worker", "1501s", "1500s", "lease"] {
        assert!(refused.to_string().contains(word), "{refused}");
    }
    assert!(endless(bus.clone(), &runs, RetryPolicy::default()).await.is_ok());
    // A service that has neither jobs nor durable events does not mind.
    let calls = Service::new("calc", ()).retry(policy(3, 2 * longest));
    assert!(calls.start(bus).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn what_waited_too_long_to_run_alone_is_given_back() {
    let longest = Duration::from_secs(100);
    let double = Double { longest_run: Some(longest), by_hand: true, ..Double::new().await };
    let (bus, runs) = (Arc::new(double), Arc::new(AtomicU32::new(0)));
    let _running = endless(bus.clone(), &runs, policy(3, Duration::from_secs(80))).await.unwrap();
    let mut first = bus.deliver(job(MessageId::new(), "x"), 0).await;
    until("it runs", Duration::from_secs(5), async || runs.load(Ordering::Relaxed) == 1).await.unwrap();
    let started = Instant::now();
    let mut suspect = bus.deliver(job(MessageId::new(), "x"), 1).await;
    assert!(matches!(suspect.recv().await, Some(None)), "it was settled");
    assert_eq!(started.elapsed().as_secs(), 20);
    assert_eq!(runs.load(Ordering::Relaxed), 1);
    assert!(matches!(first.recv().await, Some(Some(Settlement::Retry { .. }))));
}
