//! What the typed client does beyond one call: changing a record, and following all of a type.

use std::time::Duration;

use commissaire::{Client, RpcError};
use commissaire_api::{Host, StorageClient, client::Seen};
use tokio::time::timeout;

use crate::common::{Place, Served, each_place, serve};

each_place!(
    no_change_of_many_is_lost,
    of_a_record_that_is_not_there_nothing_is_changed,
    a_watch_shows_what_there_is_and_then_what_changes,
    a_watch_goes_on_over_a_restart_of_the_service,
);

fn host(address: &str) -> Host {
    Host { address: address.into(), ..Host::default() }
}

async fn no_change_of_many_is_lost(place: Place) {
    let served = Served::on(place).await;
    served.storage.save(&host("a")).await.unwrap();
    let writers = (0..8).map(|_| {
        let storage = StorageClient::new(Client::new(served.bus.clone()));
        tokio::spawn(async move {
            for _ in 0..25 {
                storage.update::<Host>("a", |host| host.memory += 1).await.unwrap();
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    assert_eq!(served.storage.get::<Host>("a").await.unwrap().memory, 200);
    served.finish().await;
}

async fn of_a_record_that_is_not_there_nothing_is_changed(place: Place) {
    let served = Served::on(place).await;
    let mut called = false;
    let missing = served.storage.update::<Host>("a", |_| called = true).await.unwrap_err();
    assert_eq!(missing.remote().unwrap().code, RpcError::STORAGE_LOOKUP);
    assert!(!called);
    served.finish().await;
}

async fn a_watch_shows_what_there_is_and_then_what_changes(place: Place) {
    let served = Served::on(place).await;
    served.storage.save(&host("a")).await.unwrap();
    let mut hosts = served.storage.watch::<Host>().await.unwrap();
    let mut next = async || timeout(Duration::from_secs(20), hosts.next()).await.expect("seen").unwrap();
    let Seen::All(all) = next().await else { panic!("no list") };
    assert_eq!(all.iter().map(|host| host.record.address.as_str()).collect::<Vec<_>>(), ["a"]);
    served.storage.save(&host("b")).await.unwrap();
    let Seen::Saved(saved) = next().await else { panic!("not seen") };
    assert_eq!(saved.record, host("b"));
    served.storage.update::<Host>("a", |host| host.cpus = 4).await.unwrap();
    let Seen::Saved(saved) = next().await else { panic!("not seen") };
    assert_eq!((saved.record.address.as_str(), saved.record.cpus), ("a", 4));
    served.storage.delete::<Host>("b").await.unwrap();
    assert_eq!(next().await, Seen::Deleted("b".into()));
    // Nothing is shown twice, and what another program writes is shown as well.
    served.storage.save(&host("c")).await.unwrap();
    assert!(matches!(next().await, Seen::Saved(saved) if saved.record == host("c")));
    if let Some(etcd) = &served.kept.etcd {
        let mut etcd = etcd_client::Client::connect([etcd.uri()], None).await.unwrap();
        etcd.put("/commissaire/hosts/d", "{}", None).await.unwrap();
        assert!(matches!(next().await, Seen::Saved(saved) if saved.record == host("d")));
        etcd.delete("/commissaire/hosts/d", None).await.unwrap();
        assert_eq!(next().await, Seen::Deleted("d".into()));
    }
    served.finish().await;
}

async fn a_watch_goes_on_over_a_restart_of_the_service(place: Place) {
    let served = Served::on(place).await;
    let mut hosts = served.storage.watch::<Host>().await.unwrap();
    assert_eq!(hosts.next().await.unwrap(), Seen::All(Vec::new()));
    let (bus, storage) = (served.bus.clone(), served.storage.clone());
    let kept = served.leave().await;
    let service = serve(&bus, kept.config()).await.unwrap();
    storage.save(&host("a")).await.unwrap();
    let seen = timeout(Duration::from_secs(20), hosts.next()).await.expect("seen").unwrap();
    assert!(matches!(seen, Seen::Saved(saved) if saved.record == host("a")));
    service.finish(Duration::from_secs(5)).await;
    bus.close().await.unwrap();
}
