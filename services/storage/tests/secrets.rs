//! Secret records: sealed on the disk, silent everywhere else.

use std::{fs, os::unix::fs::PermissionsExt};

use commissaire_api::storage::MAX_ANSWER;
use commissaire_storage::handler::StoreError;
use redb::ReadableTable;
use serde_json::json;

use crate::common::{commit, dir, get, gone, open, put, refusal};

const CANARY: &str = "Q0FOQVJZLUNBTkFSWS1DQU5BUlk";

fn contains(haystack: &[u8], needle: &str) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle.as_bytes())
}

#[tokio::test]
async fn a_secret_stands_in_no_byte_of_the_files() {
    let dir = dir();
    let store = open(dir.path());
    let creds = json!({"address": "10.0.0.7", "ssh_priv_key": CANARY, "remote_user": "mole"});
    for _ in 0..3 {
        commit(&store, vec![put("HostCreds", creds.clone())]).await.unwrap();
    }
    commit(&store, vec![put("HostCreds", json!({"address": "b", "ssh_priv_key": CANARY}))]).await.unwrap();
    commit(&store, vec![gone("HostCreds", "b")]).await.unwrap();
    assert_eq!(get(&store, "HostCreds", "10.0.0.7").unwrap().0, creds);
    drop(store);
    let mut looked = 0;
    for entry in fs::read_dir(dir.path()).unwrap() {
        let bytes = fs::read(entry.unwrap().path()).unwrap();
        assert!(!contains(&bytes, CANARY) && !contains(&bytes, "mole"));
        looked += 1;
    }
    assert_eq!(looked, 2, "the store and the master key");
    let store = open(dir.path());
    assert_eq!(get(&store, "HostCreds", "10.0.0.7").unwrap().0, creds);
}

#[tokio::test]
async fn a_secret_is_logged_without_its_record_and_never_announced() {
    let dir = dir();
    let store = open(dir.path());
    commit(&store, vec![put("HostCreds", json!({"address": "a", "ssh_priv_key": CANARY}))]).await.unwrap();
    commit(&store, vec![gone("HostCreds", "a")]).await.unwrap();
    assert!(store.outbox(0, 10, MAX_ANSWER).unwrap().is_empty());
    let log = store.changes(0, 10, MAX_ANSWER).unwrap();
    assert_eq!(log.changes.len(), 2);
    assert!(log.changes.iter().all(|change| change.record.is_none() && change.key == "a"));
}

#[tokio::test]
async fn the_master_key_is_its_owners_alone() {
    let dir = dir();
    let key = dir.path().join("master.key");
    drop(open(dir.path()));
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o7777, 0o600);
    assert_eq!(fs::metadata(dir.path().join("storage.redb")).unwrap().permissions().mode() & 0o7777, 0o600);
    for mode in [0o640, 0o604, 0o660, 0o644, 0o700] {
        fs::set_permissions(&key, fs::Permissions::from_mode(mode)).unwrap();
        let refused = refusal(dir.path());
        assert!(refused.contains("master.key") && refused.contains(&format!("{mode:04o}")), "{refused}");
    }
    fs::set_permissions(&key, fs::Permissions::from_mode(0o400)).unwrap();
    drop(open(dir.path()));
}

#[tokio::test]
async fn a_master_key_of_another_owner_is_refused() {
    if rustix::process::geteuid().as_raw() != 0 {
        println!("not run: only root can give a file away");
        return;
    }
    let dir = dir();
    drop(open(dir.path()));
    std::os::unix::fs::chown(dir.path().join("master.key"), Some(12345), None).unwrap();
    let refused = refusal(dir.path());
    assert!(refused.contains("master.key") && refused.contains("12345"), "{refused}");
}

#[tokio::test]
async fn a_lost_or_wrong_master_key_is_found_at_start_and_never_replaced() {
    let dir = dir();
    let key = dir.path().join("master.key");
    drop(open(dir.path()));
    let good = fs::read(&key).unwrap();
    fs::remove_file(&key).unwrap();
    let refused = refusal(dir.path());
    assert!(refused.contains("is missing") && refused.contains("backup"), "{refused}");
    assert!(!key.exists());
    for wrong in [vec![7; 32], vec![7; 31], vec![7; 33], Vec::new()] {
        fs::write(&key, &wrong).unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(refusal(dir.path()).contains("master.key"));
        assert_eq!(fs::read(&key).unwrap(), wrong);
    }
    fs::write(&key, good).unwrap();
    drop(open(dir.path()));
}

#[tokio::test]
async fn a_sealed_record_opens_in_its_own_place_only() {
    let dir = dir();
    let store = open(dir.path());
    commit(&store, vec![put("HostCreds", json!({"address": "a", "ssh_priv_key": CANARY}))]).await.unwrap();
    drop(store);
    // Somebody with the file, without the key, gives the secret of one host to another.
    let table: redb::TableDefinition<'_, (&str, &str), (u64, &[u8])> = redb::TableDefinition::new("sealed");
    let database = redb::Database::open(dir.path().join("storage.redb")).unwrap();
    let transaction = database.begin_write().unwrap();
    {
        let mut sealed = transaction.open_table(table).unwrap();
        let stolen = sealed.get(("HostCreds", "a")).unwrap().unwrap().value().1.to_vec();
        sealed.insert(("HostCreds", "b"), (1, stolen.as_slice())).unwrap();
    }
    transaction.commit().unwrap();
    drop(database);
    let store = open(dir.path());
    assert!(get(&store, "HostCreds", "a").is_some());
    let model = commissaire_api::Model::find("HostCreds").unwrap();
    let moved = store.get(model, &["b".into()]).map(|_| ());
    assert_eq!(moved, Err(StoreError::Unsealable { key: "b".into() }));
}
