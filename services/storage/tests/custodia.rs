//! What is of Custodia alone.

use std::fs;

use commissaire::{RpcError, testkit::Outcome};
use commissaire_api::HostCreds;
use serde_json::{Value, json};

use crate::{
    keepers::{Custodia, served},
    kept_secrets::creds,
};

#[tokio::test]
async fn secrets_are_where_the_first_commissaire_had_them_and_nowhere_else() {
    let custodia = Custodia::start().await.unwrap();
    let served = served(custodia.handler()).await;
    let handlers = served.call("storage.list_store_handlers", json!([])).await.unwrap();
    assert_eq!(handlers[1]["handler_type"], "CustodiaStoreHandler");
    assert_eq!(handlers[1]["model_types"], json!(["HostCreds"]));
    for address in ["10.0.0.7", "fe80::1%eth0", "a b+c&d?e#f"] {
        for key in ["c4n4ry", "another"] {
            let creds = creds(address, key);
            assert_eq!(served.storage.save(&creds).await.unwrap(), creds);
            assert_eq!(served.storage.get::<HostCreds>(address).await.unwrap(), creds);
        }
    }
    let (status, body) = custodia.ask("GET /secrets/hosts/10.0.0.7", "").await;
    assert!(status.contains("200"), "{status}");
    let read: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(read, json!({"address": "10.0.0.7", "ssh_priv_key": "another", "remote_user": "fedora"}));
    let (_, pending) = custodia.ask("GET /secrets/hosts-pending/", "").await;
    assert_eq!(pending, "[]", "nothing is left behind");
    served.storage.delete::<HostCreds>("10.0.0.7").await.unwrap();
    assert_eq!(served.storage.find::<HostCreds>("10.0.0.7").await.unwrap(), None);
    let missing = served.storage.delete::<HostCreds>("10.0.0.7").await.unwrap_err();
    assert_eq!(missing.remote().unwrap().code, RpcError::STORAGE_LOOKUP);
    let kept = served.finish().await;
    for file in fs::read_dir(kept.dir.path()).unwrap().flatten() {
        let bytes = fs::read(file.path()).unwrap();
        assert!(!bytes.windows(6).any(|part| part == b"c4n4ry"), "{file:?}");
    }
}

#[tokio::test]
async fn a_secret_that_was_being_replaced_at_a_crash_is_there() {
    let custodia = Custodia::start().await.unwrap();
    let served = served(custodia.handler()).await;
    served.storage.save(&creds("a", "old")).await.unwrap();
    served.storage.save(&creds("a", "older")).await.unwrap();
    // What a service leaves that dies between deleting the old and putting the new.
    let new = r#"{"address": "a", "ssh_priv_key": "new", "remote_user": "x"}"#;
    assert!(custodia.ask("PUT /secrets/hosts-pending/a", new).await.0.contains("201"));
    assert_eq!(*served.storage.get::<HostCreds>("a").await.unwrap().ssh_priv_key, "older");
    assert!(custodia.ask("DELETE /secrets/hosts/a", "").await.0.contains("204"));
    assert_eq!(*served.storage.get::<HostCreds>("a").await.unwrap().ssh_priv_key, "new");
    served.storage.save(&creds("a", "newer")).await.unwrap();
    assert_eq!(*served.storage.get::<HostCreds>("a").await.unwrap().ssh_priv_key, "newer");
    assert_eq!(custodia.ask("GET /secrets/hosts-pending/", "").await.1, "[]");
    // Deleting leaves nothing that could come back.
    assert!(custodia.ask("PUT /secrets/hosts-pending/a", new).await.0.contains("201"));
    served.storage.delete::<HostCreds>("a").await.unwrap();
    assert_eq!(served.storage.find::<HostCreds>("a").await.unwrap(), None);
    served.finish().await;
}

#[tokio::test]
async fn readers_never_miss_a_secret_that_is_being_replaced() {
    let custodia = Custodia::start().await.unwrap();
    // Two services with one Custodia, so that no lock of one keeps the other away.
    let (writing, reading) = (served(custodia.handler()).await, served(custodia.handler()).await);
    writing.storage.save(&creds("a", "0")).await.unwrap();
    let storage = reading.storage.clone();
    let reader = tokio::spawn(async move {
        for _ in 0..150 {
            storage.get::<HostCreds>("a").await?;
        }
        Outcome::Ok(())
    });
    let mut written = 0;
    while !reader.is_finished() {
        written += 1;
        writing.storage.save(&creds("a", &written.to_string())).await.unwrap();
    }
    reader.await.unwrap().unwrap();
    assert!(written > 0);
    writing.finish().await;
    reading.finish().await;
}

#[tokio::test]
async fn a_custodia_that_is_away_is_told_and_used_again_when_it_is_back() {
    let mut custodia = Custodia::start().await.unwrap();
    let served = served(custodia.handler()).await;
    served.storage.save(&creds("a", "c4n4ry")).await.unwrap();
    custodia.kill();
    let away = served.storage.save(&creds("a", "c4n4ry2")).await.unwrap_err();
    let away = away.remote().unwrap();
    assert_eq!(away.code, RpcError::UNAVAILABLE);
    assert!(away.message.contains("Custodia does not answer, nothing was changed"), "{}", away.message);
    custodia.restart().await.unwrap();
    assert_eq!(served.storage.get::<HostCreds>("a").await.unwrap(), creds("a", "c4n4ry"));
    served.finish().await;
}
