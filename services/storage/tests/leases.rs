//! Leases in the store.

use std::time::{Duration, Instant};

use commissaire_storage::handler::StoreError;

use crate::common::{commit_fenced, dir, get, host, open};

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(60);

#[tokio::test]
async fn a_lease_is_held_by_one_and_says_by_whom() {
    let dir = dir();
    let store = open(dir.path());
    let lease = store.acquire_lease("job".into(), "one".into(), LONG).await.unwrap();
    for holder in ["two", "one"] {
        match store.acquire_lease("job".into(), holder.into(), LONG).await {
            Err(StoreError::Held { holder, expires_in, .. }) => {
                assert_eq!(holder, "one");
                assert!(expires_in <= LONG && expires_in > LONG / 2);
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(store.renew_lease("job".into(), lease.token).await.unwrap(), lease);
    assert!(store.release_lease("job".into(), lease.token).await.unwrap());
    assert!(!store.release_lease("job".into(), lease.token).await.unwrap(), "releasing twice is well");
    let next = store.acquire_lease("job".into(), "two".into(), LONG).await.unwrap();
    assert!(next.token > lease.token);
}

#[tokio::test]
async fn of_many_who_want_a_lease_one_gets_it() {
    let dir = dir();
    let store = std::sync::Arc::new(open(dir.path()));
    let attempts: Vec<_> = (0..50)
        .map(|at| {
            let store = store.clone();
            tokio::spawn(async move { store.acquire_lease("job".into(), at.to_string(), LONG).await })
        })
        .collect();
    let mut won = 0;
    for attempt in attempts {
        won += usize::from(attempt.await.unwrap().is_ok());
    }
    assert_eq!(won, 1);
}

#[tokio::test]
async fn an_expired_lease_can_be_taken_and_its_old_token_writes_no_more() {
    let dir = dir();
    let store = open(dir.path());
    let old = store.acquire_lease("job".into(), "old".into(), SHORT).await.unwrap();
    commit_fenced(&store, vec![host("a", "by old")], "job", old.token).await.unwrap();
    let begun = Instant::now();
    let new = loop {
        match store.acquire_lease("job".into(), "new".into(), LONG).await {
            Ok(lease) => break lease,
            Err(StoreError::Held { expires_in, .. }) => tokio::time::sleep(expires_in).await,
            Err(other) => panic!("{other:?}"),
        }
    };
    assert!(begun.elapsed() >= SHORT - Duration::from_millis(20), "not before it expired");
    let late = commit_fenced(&store, vec![host("a", "by old again")], "job", old.token).await;
    assert_eq!(late, Err(StoreError::Fenced { name: "job".into() }));
    assert!(matches!(store.renew_lease("job".into(), old.token).await, Err(StoreError::Fenced { .. })));
    assert_eq!(get(&store, "Host", "a").unwrap().0["status"], "by old");
    commit_fenced(&store, vec![host("a", "by new")], "job", new.token).await.unwrap();
}

#[tokio::test]
async fn without_the_lease_nothing_is_written() {
    let dir = dir();
    let store = open(dir.path());
    let never = commit_fenced(&store, vec![host("a", "x")], "never", 1).await;
    assert_eq!(never, Err(StoreError::Fenced { name: "never".into() }));
    let lease = store.acquire_lease("job".into(), "one".into(), LONG).await.unwrap();
    store.release_lease("job".into(), lease.token).await.unwrap();
    let released = commit_fenced(&store, vec![host("a", "x")], "job", lease.token).await;
    assert_eq!(released, Err(StoreError::Fenced { name: "job".into() }));
    assert_eq!(get(&store, "Host", "a"), None);
}

#[tokio::test]
async fn a_restart_gives_each_lease_its_full_time_again_and_never_an_old_token() {
    let dir = dir();
    let store = open(dir.path());
    let ttl = Duration::from_millis(400);
    let lease = store.acquire_lease("job".into(), "one".into(), ttl).await.unwrap();
    let other = store.acquire_lease("other".into(), "one".into(), ttl).await.unwrap();
    store.release_lease("other".into(), other.token).await.unwrap();
    tokio::time::sleep(ttl).await;
    drop(store);
    let store = open(dir.path());
    match store.acquire_lease("job".into(), "two".into(), LONG).await {
        Err(StoreError::Held { holder, expires_in, .. }) => {
            assert_eq!(holder, "one");
            assert!(expires_in > ttl / 2, "{expires_in:?}");
        }
        other => panic!("{other:?}"),
    }
    store.renew_lease("job".into(), lease.token).await.unwrap();
    let next = store.acquire_lease("other".into(), "two".into(), LONG).await.unwrap();
    assert!(next.token > other.token, "tokens grow for ever, released or not");
}

#[tokio::test]
async fn expired_leases_do_not_pile_up() {
    let dir = dir();
    let store = std::sync::Arc::new(open(dir.path()));
    for round in 0..12 {
        let taken = (0..256).map(|at| {
            let store = store.clone();
            let name = format!("{round}-{at}");
            tokio::spawn(async move {
                store.acquire_lease(name, "x".into(), Duration::from_millis(1)).await.unwrap()
            })
        });
        for lease in taken.collect::<Vec<_>>() {
            lease.await.unwrap();
        }
    }
    assert!(store.leases().unwrap() < 2048, "{}", store.leases().unwrap());
}
