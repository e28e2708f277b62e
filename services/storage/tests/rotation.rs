//! The master key is replaced: at once for all secrets, whatever happens in between.

use std::{fs, path::Path, time::Duration};

use commissaire::Client;
use commissaire_api::{HostCreds, StorageClient};
use commissaire_storage::{StorageConfig, routes::Routes};

use crate::common::{Kept, Place, Served, dir, each_place, memory_bus, serve};

fn creds(address: &str) -> HostCreds {
    HostCreds {
        address: address.into(),
        ssh_priv_key: format!("key-{address}").into(),
        remote_user: "fedora".into(),
    }
}

fn key(dir: &Path) -> Vec<u8> {
    fs::read(dir.join("master.key")).unwrap()
}

/// Whether a service at these places finds the secrets that a test saves.
async fn finds(config: StorageConfig) -> bool {
    let bus = memory_bus().await;
    let service = serve(&bus, config).await.unwrap();
    let storage = StorageClient::new(Client::new(bus.clone()));
    let found = storage.get::<HostCreds>("a").await.unwrap() == creds("a");
    storage.save(&creds("b")).await.unwrap();
    service.finish(Duration::from_secs(5)).await;
    bus.close().await.unwrap();
    found
}

each_place!(all_secrets_open_with_the_new_key_and_none_with_the_old, a_rotation_may_end_anywhere);

async fn all_secrets_open_with_the_new_key_and_none_with_the_old(place: Place) {
    let served = Served::on(place).await;
    served.storage.save(&creds("a")).await.unwrap();
    let revision = served.storage.get_versioned::<HostCreds>("a").await.unwrap().revision;
    let kept = served.finish().await;
    let (dir, old) = (kept.dir.path(), key(kept.dir.path()));
    let routes = Routes::open(&kept.config()).await.unwrap();
    let keys = routes.rotate_keys().await.unwrap();
    drop(routes);
    assert_eq!(keys.into_iter().collect::<Vec<_>>(), [dir.join("master.key")]);
    assert_ne!(key(dir), old);
    assert!(!dir.join("master.key.next").exists());
    assert!(finds(kept.config()).await);
    let served = Served::with(kept.config(), kept).await;
    // Nothing but the key has changed.
    assert_eq!(served.storage.get_versioned::<HostCreds>("a").await.unwrap().revision, revision);
    let kept = served.finish().await;
    let new = key(kept.dir.path());
    fs::write(kept.dir.path().join("master.key"), &old).unwrap();
    let refused = Routes::open(&kept.config()).await.unwrap_err().to_string();
    assert!(refused.contains("is not the one") && refused.contains("rotated"), "{refused}");
    fs::write(kept.dir.path().join("master.key"), &new).unwrap();
    assert!(finds(kept.config()).await);
}

async fn a_rotation_may_end_anywhere(place: Place) {
    let served = Served::on(place).await;
    served.storage.save(&creds("a")).await.unwrap();
    let kept = served.finish().await;
    let (dir, old) = (kept.dir.path(), key(kept.dir.path()));
    // When the new key is there, and nothing is wrapped with it.
    let next = dir.join("master.key.next");
    fs::copy(dir.join("master.key"), &next).unwrap();
    fs::write(&next, [9; 32]).unwrap();
    assert!(finds(kept.config()).await);
    assert_eq!(key(dir), old);
    // When it is wrapped, and the new key has not got its name.
    let routes = Routes::open(&kept.config()).await.unwrap();
    for handler in routes.handlers() {
        handler.rewrap().await.unwrap();
    }
    drop(routes);
    assert_eq!(key(dir), old);
    assert!(finds(kept.config()).await);
    // It is finished by saying it again, with the key that was made for it.
    let routes = Routes::open(&kept.config()).await.unwrap();
    routes.rotate_keys().await.unwrap();
    drop(routes);
    assert_eq!(key(dir), [9; 32]);
    assert!(!next.exists());
    assert!(finds(kept.config()).await);
}

#[tokio::test]
async fn services_at_work_go_on_and_other_machines_need_the_new_key() {
    let kept = Kept::new(Place::Etcd).await;
    let served = Served::with(kept.config(), kept).await;
    served.storage.save(&creds("a")).await.unwrap();
    let other = dir();
    fs::copy(served.kept.dir.path().join("master.key"), other.path().join("master.key")).unwrap();
    let elsewhere = StorageConfig { data_dir: other.path().to_owned(), ..served.kept.config() };
    let second = serve(&served.bus, elsewhere.clone()).await.unwrap();
    let late = Routes::open(&elsewhere).await.unwrap();
    Routes::open(&served.kept.config()).await.unwrap().rotate_keys().await.unwrap();
    // What has the key of the place has no need of the master key.
    for round in 0..20 {
        served.storage.save(&creds("b")).await.unwrap();
        assert_eq!(served.storage.get::<HostCreds>("a").await.unwrap(), creds("a"), "round {round}");
    }
    // Of two rotations at one moment one is.
    let refused = late.rotate_keys().await.unwrap_err().to_string();
    assert!(refused.contains("rotated by another"), "{refused}");
    second.finish(Duration::from_secs(5)).await;
    let refused = Routes::open(&elsewhere).await.unwrap_err().to_string();
    assert!(refused.contains("copy it from there"), "{refused}");
    fs::copy(served.kept.dir.path().join("master.key"), other.path().join("master.key")).unwrap();
    let second = serve(&served.bus, elsewhere).await.unwrap();
    for round in 0..20 {
        assert_eq!(served.storage.get::<HostCreds>("a").await.unwrap(), creds("a"), "round {round}");
    }
    second.finish(Duration::from_secs(5)).await;
    served.finish().await;
}
