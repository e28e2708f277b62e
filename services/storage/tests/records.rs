//! Records, their changes and their announcements in the store.

use commissaire_api::{event::Verb, model::Model, storage::MAX_ANSWER};
use commissaire_storage::handler::{Query, StoreError, Transaction};
use serde_json::json;

use crate::common::{all, commit, dir, expecting, get, gone, host, open, open_with, put};

#[tokio::test]
async fn every_save_has_its_record_its_change_and_its_announcement() {
    let dir = dir();
    let store = open(dir.path());
    assert_eq!(commit(&store, vec![host("a", "new")]).await.unwrap(), [1]);
    assert_eq!(commit(&store, vec![host("a", "active")]).await.unwrap(), [2]);
    assert_eq!(commit(&store, vec![gone("Host", "a")]).await.unwrap(), [3]);

    let log = store.changes(0, 100, MAX_ANSWER).unwrap();
    let told: Vec<_> =
        log.changes.iter().map(|change| (change.revision, change.event, &*change.key)).collect();
    assert_eq!(told, [(1, Verb::Created, "a"), (2, Verb::Updated, "a"), (3, Verb::Deleted, "a")]);
    let statuses: Vec<String> = log
        .changes
        .iter()
        .map(|change| change.record.as_ref().unwrap().to::<commissaire_api::Host>().unwrap().status)
        .collect();
    assert_eq!(statuses, ["new", "active", "active"], "a deletion tells what was there");
    assert_eq!(store.outbox(0, 100, MAX_ANSWER).unwrap(), log.changes);
    assert_eq!((log.latest, log.oldest), (3, 1));
    assert_eq!(get(&store, "Host", "a"), None);
}

#[tokio::test]
async fn records_and_revisions_survive_a_restart() {
    let dir = dir();
    let store = open(dir.path());
    let id = store.id();
    commit(&store, vec![host("a", "1"), host("b", "1")]).await.unwrap();
    drop(store);
    let store = open(dir.path());
    assert_eq!(store.id(), id);
    assert_eq!(get(&store, "Host", "b").unwrap().1, 2);
    assert_eq!(commit(&store, vec![host("c", "1")]).await.unwrap(), [3]);
    assert_eq!(store.outbox(0, 100, MAX_ANSWER).unwrap().len(), 3);
}

#[tokio::test]
async fn a_transaction_is_done_whole_or_not_at_all() {
    let dir = dir();
    let store = open(dir.path());
    commit(&store, vec![host("b", "old")]).await.unwrap();
    let refused = commit(&store, vec![host("a", "new"), expecting(host("b", "new"), 7)]).await;
    assert_eq!(refused, Err(StoreError::Conflict { key: "b".into(), revision: 1 }));
    let refused = commit(&store, vec![gone("Host", "b"), gone("Host", "c"), gone("Host", "d")]).await;
    assert_eq!(refused, Err(StoreError::Missing(vec!["c".into(), "d".into()])));
    assert_eq!(get(&store, "Host", "a"), None);
    assert_eq!(get(&store, "Host", "b").unwrap().0["status"], "old");
    assert_eq!(store.changes(0, 10, MAX_ANSWER).unwrap().latest, 1);
}

#[tokio::test]
async fn of_many_who_expect_one_revision_one_wins() {
    let dir = dir();
    let store = std::sync::Arc::new(open(dir.path()));
    commit(&store, vec![host("a", "0")]).await.unwrap();
    let attempts = (0..50).map(|at| {
        let store = store.clone();
        tokio::spawn(async move { commit(&store, vec![expecting(host("a", &at.to_string()), 1)]).await })
    });
    let mut won = 0;
    for attempt in attempts.collect::<Vec<_>>() {
        match attempt.await.unwrap() {
            Ok(_) => won += 1,
            Err(StoreError::Conflict { revision: 2, .. }) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(won, 1);
}

#[tokio::test]
async fn revision_0_creates_only() {
    let dir = dir();
    let store = open(dir.path());
    commit(&store, vec![expecting(host("a", "1"), 0)]).await.unwrap();
    let again = commit(&store, vec![expecting(host("a", "2"), 0)]).await;
    assert_eq!(again, Err(StoreError::Conflict { key: "a".into(), revision: 1 }));
    let absent = commit(&store, vec![expecting(host("b", "2"), 5)]).await;
    assert_eq!(absent, Err(StoreError::Conflict { key: "b".into(), revision: 0 }));
}

#[tokio::test]
async fn a_quiet_save_of_the_same_changes_nothing() {
    let dir = dir();
    let store = open(dir.path());
    for record in
        [("Host", json!({"address": "a"})), ("HostCreds", json!({"address": "a", "ssh_priv_key": "k"}))]
    {
        let first = commit(&store, vec![put(record.0, record.1.clone())]).await.unwrap();
        let quiet = |write| Transaction { quiet_if_unchanged: true, ..Transaction::of(vec![write]) };
        assert_eq!(store.commit(quiet(put(record.0, record.1.clone()))).await.unwrap(), first);
        let loud = commit(&store, vec![put(record.0, record.1)]).await.unwrap();
        assert_eq!(loud, [first[0] + 1], "without asking for quiet it is an update");
    }
}

#[tokio::test]
async fn hidden_fields_are_neither_announced_nor_logged() {
    let dir = dir();
    let store = open(dir.path());
    commit(&store, vec![put("Cluster", json!({"name": "c", "hostset": ["canary"]}))]).await.unwrap();
    let options = json!({"server_url": "https://k", "token": "canary"});
    commit(&store, vec![put("ContainerManagerConfig", json!({"name": "k", "options": options}))])
        .await
        .unwrap();
    commit(&store, vec![gone("Cluster", "c")]).await.unwrap();
    let told = store.outbox(0, 10, MAX_ANSWER).unwrap();
    assert_eq!(told.len(), 3);
    assert!(told.iter().all(|change| !change.record.as_ref().unwrap().text().contains("canary")));
}

#[tokio::test]
async fn lists_are_sorted_and_page_by_number_and_by_size() {
    let dir = dir();
    let store = open(dir.path());
    let model = Model::find("Host").unwrap();
    let hosts = ["b", "c", "a", "d"].map(|address| host(address, "x")).into();
    commit(&store, hosts).await.unwrap();
    // Neighbours in the table that must not be taken for hosts.
    commit(&store, vec![put("Cluster", json!({"name": "z"})), put("Network", json!({"name": "0"}))])
        .await
        .unwrap();
    let keys = |after: Option<&str>, most, bytes| {
        let query = Query { after: after.map(str::to_owned), bytes, ..all(most) };
        let rows = store.list(model, &query).unwrap();
        (rows.rows.into_iter().map(|(key, _)| key).collect::<String>(), rows.more)
    };
    assert_eq!(keys(None, 100, MAX_ANSWER), ("abcd".into(), false));
    assert_eq!(keys(None, 2, MAX_ANSWER), ("ab".into(), true));
    assert_eq!(keys(Some("b"), 2, MAX_ANSWER), ("cd".into(), false));
    assert_eq!(keys(Some("bb"), 100, MAX_ANSWER), ("cd".into(), false));
    assert_eq!(keys(None, 100, 1), ("a".into(), true), "one at least");
    assert_eq!(keys(Some("d"), 100, MAX_ANSWER), (String::new(), false));
}

#[tokio::test]
async fn the_log_is_exact_and_says_what_it_has_forgotten() {
    let dir = dir();
    let store = open_with(dir.path(), 10);
    for at in 1..=200_u64 {
        commit(&store, vec![host("a", &at.to_string())]).await.unwrap();
        store.sent(vec![at]).await.unwrap();
    }
    let oldest = match store.changes(0, 1000, MAX_ANSWER) {
        Err(StoreError::Compacted { oldest, latest: 200 }) => oldest,
        other => panic!("{other:?}"),
    };
    assert!((180..=191).contains(&oldest), "about ten are kept, and ten at least: {oldest}");
    let log = store.changes(oldest - 1, 1000, MAX_ANSWER).unwrap();
    let revisions: Vec<u64> = log.changes.iter().map(|change| change.revision).collect();
    assert_eq!(revisions, (oldest..=200).collect::<Vec<_>>(), "none is missing, none stands twice");
    assert!(matches!(store.changes(oldest - 2, 1000, MAX_ANSWER), Err(StoreError::Compacted { .. })));
    assert!(
        matches!(store.changes(201, 1000, MAX_ANSWER), Err(StoreError::Compacted { .. })),
        "ahead of the store"
    );
    assert!(store.changes(200, 1000, MAX_ANSWER).unwrap().changes.is_empty());
}

#[tokio::test]
async fn what_is_not_announced_yet_is_not_compacted() {
    let dir = dir();
    let store = open_with(dir.path(), 1);
    for at in 1..=100_u64 {
        commit(&store, vec![host("a", &at.to_string())]).await.unwrap();
    }
    assert_eq!(store.outbox(0, 1000, MAX_ANSWER).unwrap().len(), 100);
    store.sent((1..=60).collect()).await.unwrap();
    commit(&store, vec![host("a", "more")]).await.unwrap();
    let due: Vec<u64> =
        store.outbox(0, 1000, MAX_ANSWER).unwrap().iter().map(|change| change.revision).collect();
    assert_eq!(due, (61..=101).collect::<Vec<_>>());
    assert!(matches!(store.changes(0, 10, MAX_ANSWER), Err(StoreError::Compacted { .. })));
}

#[tokio::test]
async fn readers_see_a_transaction_whole() {
    let dir = dir();
    let store = std::sync::Arc::new(open(dir.path()));
    let both = |at: u64| vec![host("a", &at.to_string()), host("b", &at.to_string())];
    commit(&store, both(0)).await.unwrap();
    let reader = tokio::task::spawn_blocking({
        let store = store.clone();
        move || {
            for _ in 0..2000 {
                let model = Model::find("Host").unwrap();
                let seen = store.get(model, &["a".into(), "b".into()]).unwrap();
                let status = |at: usize| {
                    let host: serde_json::Value =
                        serde_json::from_slice(&seen[at].as_ref().unwrap().json).unwrap();
                    host["status"].clone()
                };
                assert_eq!(status(0), status(1));
            }
        }
    });
    let mut at = 0;
    while !reader.is_finished() {
        at += 1;
        commit(&store, both(at)).await.unwrap();
    }
    reader.await.unwrap();
}
