//! One store on a bus.

use std::fs;

use commissaire::ErrorKind;
use commissaire_storage::{
    StorageConfig, Store,
    owner::{Claim, Owner},
};
use uuid::Uuid;

use crate::common::{Served, dir, memory_bus, open, serve};

#[tokio::test]
async fn a_second_store_refuses_to_start_and_names_both() {
    let served = Served::new().await;
    let other = dir();
    let id = open(other.path()).id().to_string();
    let refused = serve(&served.bus, StorageConfig::new(other.path())).await.err().expect("refused");
    assert_eq!(*refused.kind(), ErrorKind::Config);
    let there = served.call("storage.store", serde_json::json!({})).await.unwrap();
    let text = refused.to_string();
    assert!(text.contains(&id) && text.contains(there["store"].as_str().unwrap()), "{text}");
    // The store is free again for whoever takes it up rightly.
    drop(open(other.path()));
    let bus = served.bus.clone();
    let first = served.finish().await;
    assert!(bus.close().await.is_ok());
    let bus = memory_bus().await;
    serve(&bus, StorageConfig::new(other.path()))
        .await
        .expect("alone on its bus")
        .finish(std::time::Duration::from_secs(1))
        .await;
    drop(first);
}

#[tokio::test]
async fn a_copy_of_a_store_is_another_store() {
    let copy = dir();
    // Made of a store at rest, as a copy of a running one may be damaged.
    drop(open(copy.path()));
    let taken = dir();
    for file in ["storage.redb", "master.key"] {
        fs::copy(copy.path().join(file), taken.path().join(file)).unwrap();
    }
    let bus = memory_bus().await;
    let first = serve(&bus, StorageConfig::new(copy.path())).await.unwrap();
    let refused = serve(&bus, StorageConfig::new(taken.path())).await.err().expect("refused");
    assert!(refused.to_string().contains("another copy"), "{refused}");
    first.finish(std::time::Duration::from_secs(1)).await;
}

#[tokio::test]
async fn of_two_that_start_at_one_moment_one_stays() {
    for _ in 0..10 {
        let bus = memory_bus().await;
        let (one, two) = (
            Claim::new(Uuid::new_v4(), Uuid::new_v4(), false),
            Claim::new(Uuid::new_v4(), Uuid::new_v4(), false),
        );
        let older = one.clone().min(two.clone());
        let (first, second) = tokio::join!(Owner::claim(&bus, one.clone()), Owner::claim(&bus, two));
        let (held, lost) = match (first, second) {
            (Ok(held), Err(lost)) => {
                assert_eq!(older, one);
                (held, lost)
            }
            (Err(lost), Ok(held)) => {
                assert_ne!(older, one);
                (held, lost)
            }
            both => panic!("{both:?}"),
        };
        assert_eq!(*lost.kind(), ErrorKind::Config);
        assert!(lost.to_string().contains(&older.store));
        drop(held);
    }
}

#[tokio::test]
async fn the_older_store_defends_its_claim_and_the_younger_stops() {
    let bus = memory_bus().await;
    let old = Claim { started: 1, ..Claim::new(Uuid::new_v4(), Uuid::new_v4(), false) };
    let younger = Claim { started: 2, ..Claim::new(Uuid::new_v4(), Uuid::new_v4(), false) };
    let owner = tokio::spawn(Owner::claim(&bus, old.clone()).await.unwrap().defend());
    let lost = Owner::claim(&bus, younger).await.unwrap_err();
    assert!(lost.to_string().contains(&old.store));
    assert!(!owner.is_finished());
    let oldest = Claim { started: 0, ..Claim::new(Uuid::new_v4(), Uuid::new_v4(), false) };
    let _held = Owner::claim(&bus, oldest.clone()).await.unwrap();
    let lost = owner.await.unwrap().expect("gives way to an older one");
    assert!(lost.to_string().contains(&oldest.store));
}

#[tokio::test]
async fn the_same_store_can_start_again_on_its_bus() {
    let bus = memory_bus().await;
    let dir = dir();
    for _ in 0..3 {
        serve(&bus, StorageConfig::new(dir.path()))
            .await
            .unwrap()
            .finish(std::time::Duration::from_secs(1))
            .await;
    }
    let _: Store = open(dir.path());
}
