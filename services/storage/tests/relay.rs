//! Announcing what is in the outbox.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use commissaire::{
    Bus, ConnectionWatch, Connectivity, Error, Guarantees, Message, MessageId, Result, Source, Subscription,
    Survey, Token,
};
use commissaire_api::{
    StorageEvent, Verb,
    storage::{Change, MAX_ANSWER},
};
use commissaire_storage::{
    Store,
    relay::{message_id, relay},
};
use tokio::{sync::Notify, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::common::{commit, dir, gone, host, open, put};

/// A bus that notes what it was given, takes its time, and can be away.
#[derive(Debug, Default)]
struct Tape {
    taken: Mutex<Vec<(StorageEvent, MessageId)>>,
    tried: Mutex<HashMap<u64, Vec<MessageId>>>,
    now: AtomicUsize,
    most: AtomicUsize,
    away: AtomicBool,
    news: Notify,
}

impl Tape {
    /// Waits until `count` messages were taken.
    async fn until(&self, count: usize) -> Vec<(StorageEvent, MessageId)> {
        let wait = async {
            loop {
                let news = self.news.notified();
                let taken = self.taken.lock().unwrap().clone();
                if taken.len() >= count {
                    return taken;
                }
                news.await;
            }
        };
        timeout(Duration::from_secs(20), wait).await.expect("all are announced")
    }
}

#[async_trait]
impl Bus for Tape {
    async fn publish(&self, message: Message) -> Result<()> {
        let event: StorageEvent = serde_json::from_slice(message.body()).unwrap();
        let id = message.id().unwrap();
        self.tried.lock().unwrap().entry(event.revision.unwrap()).or_default().push(id);
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(rand::random_range(0..3))).await;
        self.now.fetch_sub(1, Ordering::SeqCst);
        if self.away.load(Ordering::SeqCst) {
            self.news.notify_one();
            return Err(Error::unavailable("away"));
        }
        self.taken.lock().unwrap().push((event, id));
        self.news.notify_one();
        Ok(())
    }

    async fn subscribe(&self, _: Source, _: u16) -> Result<Subscription> {
        Ok(Subscription::new(1).0)
    }

    async fn close(&self) -> Result<()> {
        Ok(())
    }

    fn guarantees(&self) -> Guarantees {
        commissaire_transports::ALL[0].promises
    }

    fn connection(&self) -> ConnectionWatch {
        Connectivity::new("test").watch()
    }

    async fn survey(&self) -> Result<Survey> {
        Ok(Survey::default())
    }

    async fn remove_durable(&self, _: &Token, _: Option<Duration>) -> Result<bool> {
        Ok(false)
    }
}

/// A relay at work, and how to end it in order.
struct Relaying(JoinHandle<()>, CancellationToken);

impl Relaying {
    fn start(store: &Arc<Store>, bus: &Arc<Tape>) -> Self {
        let stop = CancellationToken::new();
        Self(tokio::spawn(relay(store.clone(), bus.clone(), stop.clone())), stop)
    }

    async fn end(self) {
        self.1.cancel();
        self.0.await.unwrap();
    }
}

#[tokio::test]
async fn each_record_is_announced_in_order_and_many_at_one_time() {
    let dir = dir();
    let (store, bus) = (Arc::new(open(dir.path())), Arc::new(Tape::default()));
    let relaying = Relaying::start(&store, &bus);
    for round in 0..10 {
        let all = (0..100).map(|at| host(&at.to_string(), &round.to_string())).collect();
        commit(&store, all).await.unwrap();
    }
    let taken = bus.until(1000).await;
    let mut by_record: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for (event, id) in &taken {
        let revision = event.revision.unwrap();
        assert_eq!(*id, id_of(store.id(), event));
        by_record.entry(event.record_key().unwrap()).or_default().push(revision);
    }
    assert_eq!(by_record.len(), 100);
    assert!(by_record.values().all(|revisions| revisions.len() == 10 && revisions.is_sorted()));
    let most = bus.most.load(Ordering::SeqCst);
    assert!(most > 1 && most <= 64, "{most} at one time");
    relaying.end().await;
    assert!(store.outbox(0, 10, MAX_ANSWER).unwrap().is_empty(), "what was taken has left the outbox");
}

#[tokio::test]
async fn while_the_bus_is_away_announcements_wait_and_keep_their_ids() {
    let dir = dir();
    let (store, bus) = (Arc::new(open(dir.path())), Arc::new(Tape::default()));
    bus.away.store(true, Ordering::SeqCst);
    let relaying = Relaying::start(&store, &bus);
    commit(&store, vec![host("a", "1"), host("b", "1")]).await.unwrap();
    commit(&store, vec![gone("Host", "a")]).await.unwrap();
    let tried_twice = async {
        while bus.tried.lock().unwrap().values().map(Vec::len).max() < Some(2) {
            bus.news.notified().await;
        }
    };
    timeout(Duration::from_secs(20), tried_twice).await.expect("it tries again");
    assert_eq!(store.outbox(0, 10, MAX_ANSWER).unwrap().len(), 3, "nothing leaves the outbox");
    bus.away.store(false, Ordering::SeqCst);
    let taken = bus.until(3).await;
    let of_a: Vec<u64> = taken
        .iter()
        .filter(|(event, _)| event.record_key().as_deref() == Some("a"))
        .map(|(event, _)| event.revision.unwrap())
        .collect();
    assert_eq!(of_a, [1, 3], "in order");
    assert!(bus.tried.lock().unwrap().values().all(|ids| ids.iter().all(|id| *id == ids[0])));
    relaying.end().await;
}

#[tokio::test]
async fn what_is_left_is_announced_at_the_next_start_under_its_old_id() {
    let dir = dir();
    let store = Arc::new(open(dir.path()));
    let id = store.id();
    commit(&store, (0..300).map(|at| host(&at.to_string(), "x")).collect()).await.unwrap();
    drop(store);
    let (store, bus) = (Arc::new(open(dir.path())), Arc::new(Tape::default()));
    let relaying = Relaying::start(&store, &bus);
    let taken = bus.until(300).await;
    assert!(taken.iter().all(|(event, taken)| *taken == id_of(id, event)));
    relaying.end().await;
    let again = Relaying::start(&store, &bus);
    commit(&store, vec![host("more", "x")]).await.unwrap();
    assert_eq!(bus.until(301).await.len(), 301, "nothing is sent twice without need");
    again.end().await;
}

#[tokio::test]
async fn announcements_carry_what_the_reference_said_and_the_revision() {
    let dir = dir();
    let (store, bus) = (Arc::new(open(dir.path())), Arc::new(Tape::default()));
    let relaying = Relaying::start(&store, &bus);
    let cluster = serde_json::json!({"name": "c", "hostset": ["a"], "status": "ok"});
    commit(&store, vec![put("Cluster", cluster)]).await.unwrap();
    let (event, _) = bus.until(1).await.remove(0);
    assert_eq!(
        serde_json::to_value(&event).unwrap(),
        serde_json::json!({
            "event": "created",
            "class": "Cluster",
            "model": {"name": "c", "status": "ok", "network": "default", "container_manager": ""},
            "revision": 1
        })
    );
    relaying.end().await;
}

/// The id of the message that tells `event` of the store `store`.
fn id_of(store: Uuid, event: &StorageEvent) -> MessageId {
    message_id(store, &change(event.revision.unwrap(), &event.record_key().unwrap()))
}

fn change(revision: u64, key: &str) -> Change {
    Change {
        revision,
        model_type_name: "Host".to_owned(),
        key: key.to_owned(),
        event: Verb::Updated,
        record: None,
        at: String::new(),
        actor: None,
        verified: false,
        operation: None,
    }
}

#[test]
fn message_ids_are_told_apart() {
    let store = Uuid::new_v4();
    let of = |revision, key| message_id(store, &change(revision, key));
    let ids: HashSet<_> = (1..=100_000).flat_map(|revision| [of(revision, "a"), of(revision, "b")]).collect();
    assert_eq!(ids.len(), 200_000);
    assert_eq!(of(1, "a"), of(1, "a"));
    assert_ne!(of(1, "a"), message_id(Uuid::new_v4(), &change(1, "a")));
}
