//! Sudden death of the process, many times.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
    io::{Read, Write},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use commissaire::{
    Bus, ConnectionWatch, Connectivity, Guarantees, Message, Result, Source, Subscription, Survey, Token,
};
use commissaire_api::{StorageEvent, storage::MAX_ANSWER};
use commissaire_storage::relay::relay;
use tokio_util::sync::CancellationToken;

use crate::common::{commit, dir, get, host, open};

const DIR: &str = "COMMISSAIRE_TEST_CRASH_DIR";
const ROUNDS: u64 = 25;

/// Tells the parent in one write, so that a line is there whole or not at all.
fn tell(line: impl Display) {
    let _ = std::io::stdout().write_all(format!("\n{line}\n").as_bytes());
}

/// A bus that tells what it was given.
#[derive(Debug)]
struct Telling;

#[async_trait]
impl Bus for Telling {
    async fn publish(&self, message: Message) -> Result<()> {
        let event: StorageEvent = serde_json::from_slice(message.body()).unwrap();
        tell(format_args!("sent {}", event.revision.unwrap()));
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

/// Not a test by itself: what the parent kills.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the child of the test below"]
async fn child() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let store = Arc::new(open(dir.as_ref()));
    tokio::spawn(relay(store.clone(), Arc::new(Telling), CancellationToken::new()));
    let run = std::process::id();
    let savers: Vec<_> = (0..8)
        .map(|saver| {
            let store = store.clone();
            tokio::spawn(async move {
                for at in 0.. {
                    let (one, two) = (format!("{run}-{saver}-{at}-one"), format!("{run}-{saver}-{at}-two"));
                    let revisions = commit(&store, vec![host(&one, "x"), host(&two, "x")]).await.unwrap();
                    tell(format_args!("acked {one} {} {two} {}", revisions[0], revisions[1]));
                    if at % 8 == 0 {
                        let lease =
                            store.acquire_lease(one, "x".into(), Duration::from_secs(9)).await.unwrap();
                        tell(format_args!("token {}", lease.token));
                    }
                }
            })
        })
        .collect();
    for saver in savers {
        saver.await.unwrap();
    }
}

fn spawn(dir: &std::path::Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::child", "--ignored", "--nocapture"])
        .env(DIR, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// What one child has told.
#[derive(Default)]
struct Told {
    acked: BTreeMap<String, u64>,
    sent: BTreeSet<u64>,
    tokens: Vec<u64>,
}

impl Told {
    fn read(text: &str) -> Self {
        let mut told = Self::default();
        // The last line may be cut; it would have no end.
        for line in text[..text.rfind('\n').map_or(0, |end| end + 1)].lines() {
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                ["acked", one, first, two, second] => {
                    told.acked.insert(one.into(), first.parse().unwrap());
                    told.acked.insert(two.into(), second.parse().unwrap());
                }
                ["sent", revision] => {
                    told.sent.insert(revision.parse().unwrap());
                }
                ["token", token] => told.tokens.push(token.parse().unwrap()),
                _ => {}
            }
        }
        told
    }
}

#[tokio::test]
async fn killed_at_any_moment_the_store_has_all_that_it_acknowledged() {
    let dir = dir();
    let mut sent: BTreeSet<u64> = BTreeSet::new();
    let (mut acked, mut greatest_token) = (0, 0);
    let mut checked = 0;
    for round in 0..ROUNDS {
        let mut child = spawn(dir.path());
        let mut pipe = child.stdout.take().unwrap();
        let reader = std::thread::spawn(move || {
            let mut text = String::new();
            pipe.read_to_string(&mut text).unwrap();
            text
        });
        tokio::time::sleep(Duration::from_micros(rand::random_range(15_000..120_000))).await;
        child.kill().unwrap();
        child.wait().unwrap();
        let told = Told::read(&reader.join().unwrap());
        sent.extend(&told.sent);
        acked += told.acked.len();

        let store = open(dir.path());
        for (key, revision) in &told.acked {
            let (_, stored) =
                get(&store, "Host", key).unwrap_or_else(|| panic!("round {round}: {key} is lost"));
            assert_eq!(stored, *revision);
        }
        let unsent: BTreeSet<u64> =
            store.outbox(0, usize::MAX, usize::MAX).unwrap().iter().map(|change| change.revision).collect();
        let mut since = checked;
        loop {
            let log = store.changes(since, 1000, MAX_ANSWER).unwrap();
            for change in &log.changes {
                since += 1;
                assert_eq!(change.revision, since, "no gap in the log");
                let (_, stored) = get(&store, "Host", &change.key).expect("every change has its record");
                assert_eq!(stored, change.revision);
                if let Some(acked) = told.acked.get(&change.key) {
                    assert_eq!(*acked, change.revision);
                }
                let announced = sent.contains(&since) || unsent.contains(&since);
                assert!(announced, "round {round}: change {since} was neither sent nor is it in the outbox");
            }
            if since == log.latest {
                break;
            }
        }
        assert!(
            told.acked.values().all(|revision| *revision <= since),
            "every acknowledged save has its change"
        );
        for pair in ["one", "two"].map(|half| changed(&store, checked, half)).windows(2) {
            assert_eq!(pair[0], pair[1], "a transaction is there whole or not at all");
        }
        for token in told.tokens.iter().copied().collect::<BTreeSet<_>>() {
            assert!(token > greatest_token, "token {token} was given out twice");
            greatest_token = token;
        }
        checked = since;
    }
    assert!(acked > 100, "the children did something: {acked}");
    println!("{ROUNDS} kills, {acked} acknowledged saves, {} announced, {checked} changes", sent.len());
}

/// The records that were changed since, of those whose keys end with `half`, without that ending.
fn changed(store: &commissaire_storage::Store, mut since: u64, half: &str) -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    loop {
        let log = store.changes(since, 1000, MAX_ANSWER).unwrap();
        keys.extend(log.changes.iter().filter_map(|change| change.key.strip_suffix(half)).map(str::to_owned));
        match log.changes.last() {
            Some(last) => since = last.revision,
            None => return keys,
        }
    }
}
