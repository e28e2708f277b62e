//! Files that are no store of ours, or not now.

use std::fs;

use redb::{Database, TableDefinition};

use crate::common::{commit, dir, get, host, open, refusal};

#[tokio::test]
async fn a_store_that_another_has_open_is_refused_by_name() {
    let dir = dir();
    let first = open(dir.path());
    let refused = refusal(dir.path());
    assert!(refused.contains("storage.redb") && refused.contains("another process"), "{refused}");
    drop(first);
    drop(open(dir.path()));
}

#[tokio::test]
async fn a_file_of_anything_else_is_refused_and_left_as_it_is() {
    for content in [b"not a store at all".to_vec(), vec![0; 4096], vec![0xff; 70_000]] {
        let dir = dir();
        let path = dir.path().join("storage.redb");
        fs::write(&path, &content).unwrap();
        let refused = refusal(dir.path());
        assert!(refused.contains("storage.redb") && refused.contains("backup"), "{refused}");
        assert_eq!(fs::read(&path).unwrap(), content);
        assert!(!dir.path().join("master.key").exists());
    }
}

#[tokio::test]
async fn the_database_of_another_program_is_refused() {
    let dir = dir();
    let database = Database::create(dir.path().join("storage.redb")).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(TableDefinition::<'_, u64, u64>::new("theirs")).unwrap();
    transaction.commit().unwrap();
    drop(database);
    assert!(refusal(dir.path()).contains("another program"));
}

#[tokio::test]
async fn a_store_of_another_format_is_refused_with_both_versions() {
    let dir = dir();
    drop(open(dir.path()));
    let database = Database::open(dir.path().join("storage.redb")).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction
        .open_table(TableDefinition::<'_, &str, u64>::new("meta"))
        .unwrap()
        .insert("format", 99)
        .unwrap();
    transaction.commit().unwrap();
    drop(database);
    let refused = refusal(dir.path());
    assert!(refused.contains("format 99") && refused.contains("reads 1"), "{refused}");
}

#[tokio::test]
async fn a_damaged_store_is_an_error_and_never_a_panic_of_the_program() {
    let original = dir();
    let store = open(original.path());
    for at in 0..50 {
        commit(&store, vec![host(&at.to_string(), "x")]).await.unwrap();
    }
    drop(store);
    let sound = fs::read(original.path().join("storage.redb")).unwrap();
    let key = fs::read(original.path().join("master.key")).unwrap();
    let damage = |at: usize, bytes: &mut Vec<u8>| bytes[at..at + 64].fill(0xa5);
    let mut refused = 0;
    let used = sound.iter().rposition(|byte| *byte != 0).unwrap();
    let anywhere = (0..100).map(|_| rand::random_range(0..used.min(sound.len() - 64)));
    for at in (0..used.min(sound.len() - 64)).step_by(4096).chain([9, 64, 128, 192]).chain(anywhere) {
        let dir = dir();
        let mut bytes = sound.clone();
        damage(at, &mut bytes);
        fs::write(dir.path().join("storage.redb"), &bytes).unwrap();
        fs::write(dir.path().join("master.key"), &key).unwrap();
        let chmod = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o600);
        fs::set_permissions(dir.path().join("master.key"), chmod).unwrap();
        let options = commissaire_storage::handler::embedded::StoreOptions {
            dir: dir.path().to_owned(),
            change_log: 10,
        };
        // Damage in a page that is free, or that is read later, is not noticed by opening.
        if let Err(error) = commissaire_storage::Store::open(&options) {
            assert!(error.to_string().contains("storage.redb"), "{error}");
            refused += 1;
        }
    }
    assert!(refused > 0);
}

#[tokio::test]
async fn a_store_cut_short_is_refused() {
    let dir = dir();
    let store = open(dir.path());
    commit(&store, vec![host("a", "x")]).await.unwrap();
    drop(store);
    let path = dir.path().join("storage.redb");
    let length = fs::metadata(&path).unwrap().len();
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(length / 2).unwrap();
    assert!(refusal(dir.path()).contains("storage.redb"));
}

#[tokio::test]
async fn a_crash_while_the_key_was_made_is_no_obstacle() {
    let dir = dir();
    fs::write(dir.path().join("master.key.new"), b"half").unwrap();
    fs::write(dir.path().join("storage.redb"), b"").unwrap();
    let store = open(dir.path());
    commit(&store, vec![host("a", "x")]).await.unwrap();
    assert!(get(&store, "Host", "a").is_some());
    assert!(!dir.path().join("master.key.new").exists());
}
