//! What is of etcd alone: other programs that write there, several services, its compaction and its absence.

use std::{collections::HashMap, time::Duration};

use commissaire::{Bus, Client, Pattern, RpcError, Source, Subscription, testkit::Server};
use commissaire_api::{Cluster, Host, HostCreds, StorageClient, StorageEvent, Verb, storage::COMPACTED};
use commissaire_storage::StorageConfig;
use etcd_client::GetOptions;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::common::{Kept, Place, Served, dir, members, memory_bus, serve};

const PATIENCE: Duration = Duration::from_secs(30);

fn host(address: &str) -> Host {
    Host { address: address.into(), ..Host::default() }
}

async fn client(server: &Server) -> etcd_client::Client {
    etcd_client::Client::connect([server.uri()], None).await.unwrap()
}

async fn ears(bus: &std::sync::Arc<dyn Bus>) -> Subscription {
    bus.subscribe(Source::Topic(vec![Pattern::new("notify.storage.#").unwrap()]), 64).await.unwrap()
}

async fn heard(ears: &mut Subscription) -> StorageEvent {
    let delivery = timeout(PATIENCE, ears.next_delivery()).await.expect("heard").unwrap();
    let event = serde_json::from_slice(delivery.message().body()).unwrap();
    delivery.ack().await.unwrap();
    event
}

#[tokio::test]
async fn what_other_programs_write_is_read_announced_and_told() {
    let served = Served::on(Place::Etcd).await;
    let mut etcd = client(served.kept.etcd.as_ref().unwrap()).await;
    let mut ears = ears(&served.bus).await;
    etcd.put("/commissaire/hosts/a", r#"{"status": "active"}"#, None).await.unwrap();
    let told = heard(&mut ears).await;
    assert_eq!((told.event, told.record_key().as_deref()), (Verb::Created, Some("a")));
    let read = served.storage.get::<Host>("a").await.unwrap();
    assert_eq!(read, Host { status: "active".into(), ..host("a") });
    etcd.put("/commissaire/hosts/a", r#"{"status": "failed", "address": "b"}"#, None).await.unwrap();
    assert_eq!(heard(&mut ears).await.event, Verb::Updated);
    assert_eq!(served.storage.get::<Host>("a").await.unwrap().address, "a", "the key is where it is");
    etcd.delete("/commissaire/hosts/a", None).await.unwrap();
    let told = heard(&mut ears).await;
    assert_eq!((told.event, told.record_key().as_deref()), (Verb::Deleted, Some("a")));
    // What is none is refused where it is asked for, left out elsewhere, and can be overwritten.
    etcd.put("/commissaire/hosts/c", "no record", None).await.unwrap();
    etcd.put("/commissaire/hosts/c/d", "{}", None).await.unwrap();
    etcd.put("/commissaire/clusters/c", r#"{"hostset": ["x"]}"#, None).await.unwrap();
    let told = heard(&mut ears).await;
    assert_eq!((told.class.as_str(), told.model.text().contains("hostset")), ("Cluster", false));
    assert_eq!(served.storage.get::<Cluster>("c").await.unwrap().hostset, ["x"]);
    let damaged = served.storage.get::<Host>("c").await.unwrap_err();
    assert!(damaged.to_string().contains("\"c\" is no JSON object"), "{damaged}");
    assert_eq!(served.storage.list::<Host>().await.unwrap(), []);
    // Nor does it take the place of others on a page.
    etcd.put("/commissaire/hosts/d", "{}", None).await.unwrap();
    let page = json!({"model_type_name": "Hosts", "limit": 1});
    let page = served.call("storage.list", page).await.unwrap();
    assert_eq!((&page["records"][0]["address"], &page["next"]), (&json!("d"), &Value::Null));
    served.storage.save(&host("c")).await.unwrap();
    assert_eq!(served.storage.list::<Host>().await.unwrap(), [host("c"), host("d")]);
    // What is deleted is told even where it was no record; what is no one's business is not told.
    etcd.put("/commissaire/hosts/c", "no record", None).await.unwrap();
    etcd.delete("/commissaire/hosts/c", None).await.unwrap();
    while heard(&mut ears).await.event != Verb::Deleted {}
    etcd.put("/commissaire/hosts/e", r#"{"ssh_priv_key": "c4n4ry"}"#, None).await.unwrap();
    let told = heard(&mut ears).await;
    assert!(
        told.record_key().as_deref() == Some("e") && !told.model.text().contains("c4n4ry"),
        "{}",
        told.model.text()
    );
    let got = served.call("storage.get", json!(["Host", {"address": "e"}])).await.unwrap();
    assert!(!got.to_string().contains("c4n4ry"), "{got}");
    // However a program writes its text.
    etcd.put("/commissaire/hosts/f", r#"{"status": "\u0066ailed"}"#, None).await.unwrap();
    let failed = json!({"model_type_name": "Host", "filter": {"status": "failed"}, "fields": ["address"]});
    let failed = served.call("storage.list", failed).await.unwrap();
    assert_eq!(failed, json!([{"address": "f"}]));
    served.finish().await;
}

#[tokio::test]
async fn records_lie_where_the_first_commissaire_had_them() {
    let served = Served::on(Place::Etcd).await;
    for (model, record) in [
        ("Host", json!({"address": "10.0.0.7"})),
        ("Cluster", json!({"name": "web"})),
        ("ClusterDeploy", json!({"name": "web", "version": "1"})),
        ("ClusterRestart", json!({"name": "web"})),
        ("ClusterUpgrade", json!({"name": "web"})),
        ("Network", json!({"name": "net"})),
        ("ContainerManagerConfig", json!({"name": "kube"})),
    ] {
        let params = json!({"model_type_name": model, "model_json_data": record});
        served.call("storage.save", params).await.unwrap();
        let listed = served.call("storage.list", json!([model])).await.unwrap();
        assert!(!listed.as_array().unwrap().is_empty(), "{model}");
    }
    let mut etcd = client(served.kept.etcd.as_ref().unwrap()).await;
    let all = etcd.get("/commissaire/", Some(GetOptions::new().with_prefix())).await.unwrap();
    let keys: Vec<&str> = all.kvs().iter().map(|pair| pair.key_str().unwrap()).collect();
    assert_eq!(
        keys,
        [
            "/commissaire/cluster/web/deploy",
            "/commissaire/cluster/web/restart",
            "/commissaire/cluster/web/upgrade",
            "/commissaire/clusters/web",
            "/commissaire/container_managers/kube",
            "/commissaire/hosts/10.0.0.7",
            "/commissaire/last_change",
            "/commissaire/networks/net",
        ]
    );
    let host: Value = serde_json::from_slice(all.kvs()[5].value()).unwrap();
    assert_eq!(host["address"], "10.0.0.7");
    served.finish().await;
}

#[tokio::test]
async fn secrets_are_sealed_and_another_master_key_is_refused() {
    let served = Served::on(Place::Etcd).await;
    let creds = HostCreds {
        address: "a".into(),
        ssh_priv_key: String::from("c4n4ry").into(),
        remote_user: "fedora".into(),
    };
    served.storage.save(&creds).await.unwrap();
    assert_eq!(served.storage.get::<HostCreds>("a").await.unwrap(), creds);
    let mut etcd = client(served.kept.etcd.as_ref().unwrap()).await;
    let all = etcd.get("", Some(GetOptions::new().with_all_keys())).await.unwrap();
    assert!(all.kvs().iter().any(|pair| pair.key() == b"/commissaire/secrets/hosts/a"));
    for pair in all.kvs() {
        let text = String::from_utf8_lossy(pair.value());
        assert!(!text.contains("c4n4ry") && !text.contains("fedora"), "{}", pair.key_str().unwrap());
    }
    // A service on another machine, without the key of this one, or with its own.
    let other = dir();
    let config = || StorageConfig { data_dir: other.path().to_owned(), ..served.kept.config() };
    let bus = memory_bus().await;
    let refused = serve(&bus, config()).await.err().expect("refused").to_string();
    assert!(refused.contains("master.key is missing") && refused.contains("etcd http://"), "{refused}");
    std::fs::write(other.path().join("master.key"), [7; 32]).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(other.path().join("master.key"), mode).unwrap();
    let refused = serve(&bus, config()).await.err().expect("refused").to_string();
    assert!(refused.contains("is not the one"), "{refused}");
    served.finish().await;
}

#[tokio::test]
async fn two_services_share_an_etcd_and_one_takes_over_what_the_other_announced() {
    let kept = Kept::new(Place::Etcd).await;
    let bus = memory_bus().await;
    let mut ears = ears(&bus).await;
    let storage = StorageClient::new(Client::new(bus.clone()));
    let mut first = Some(serve(&bus, kept.config()).await.unwrap());
    let second = serve(&bus, kept.config()).await.unwrap();
    let mut latest: HashMap<String, u64> = HashMap::new();
    let mut last = HashMap::new();
    for round in 0..40 {
        for address in ["a", "b", "c"] {
            storage.save(&Host { memory: round, ..host(address) }).await.unwrap();
            last.insert(address.to_owned(), round);
        }
        if round == 20 {
            // Dropped, so that it gives nothing back: as if it had been killed.
            drop(first.take());
        }
    }
    let mut seen: HashMap<String, Vec<u64>> = HashMap::new();
    while seen.values().map(Vec::len).sum::<usize>() < 120 {
        let event = heard(&mut ears).await;
        let (key, revision) = (event.record_key().unwrap(), event.revision.unwrap());
        // What was on its way comes twice, and then with the revision that it had.
        if latest.get(&key).is_none_or(|latest| *latest < revision) {
            latest.insert(key.clone(), revision);
            seen.entry(key).or_default().push(event.model.to::<Host>().unwrap().memory);
        }
    }
    for (key, memories) in seen {
        assert_eq!(memories, (0..40).collect::<Vec<_>>(), "of {key}");
    }
    second.finish(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn what_was_compacted_before_it_was_announced_is_told() {
    let served = Served::on(Place::Etcd).await;
    let mut listening = ears(&served.bus).await;
    served.storage.save(&host("a")).await.unwrap();
    heard(&mut listening).await;
    let early = served.storage.changes(0).await.unwrap().latest;
    let kept = served.finish().await;
    let mut etcd = client(kept.etcd.as_ref().unwrap()).await;
    for _ in 0..5 {
        etcd.put("/commissaire/hosts/b", "{}", None).await.unwrap();
    }
    let put = etcd.put("/commissaire/hosts/c", "{}", None).await.unwrap();
    let revision = put.header().unwrap().revision();
    etcd.compact(revision, None).await.unwrap();

    let bus = memory_bus().await;
    let mut listening = ears(&bus).await;
    let service = serve(&bus, kept.config()).await.unwrap();
    let storage = StorageClient::new(Client::new(bus.clone()));
    let told = heard(&mut listening).await;
    assert_eq!((told.event, told.revision), (Verb::Compacted, Some(revision as u64)));
    storage.save(&host("d")).await.unwrap();
    assert_eq!(heard(&mut listening).await.record_key().as_deref(), Some("d"));
    let error = storage.changes(early).await.unwrap_err();
    assert_eq!(error.remote().unwrap().code, COMPACTED);
    // Compacted to where nothing of ours was changed since: that is no loss.
    let latest = storage.changes(revision as u64).await.unwrap().latest;
    service.finish(Duration::from_secs(5)).await;
    let put = etcd.put("/elsewhere", "x", None).await.unwrap();
    etcd.put("/elsewhere", "y", None).await.unwrap();
    etcd.compact(put.header().unwrap().revision(), None).await.unwrap();
    let service = serve(&bus, kept.config()).await.unwrap();
    assert_eq!(storage.changes(latest).await.unwrap().changes, []);
    storage.save(&host("e")).await.unwrap();
    assert_eq!(heard(&mut listening).await.record_key().as_deref(), Some("e"));
    service.finish(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn an_etcd_that_is_away_is_told_and_used_again_when_it_is_back() {
    let mut served = Served::on(Place::Etcd).await;
    served.storage.save(&host("a")).await.unwrap();
    let mut etcd = served.kept.etcd.take().unwrap();
    etcd.kill();
    let error = served.storage.get::<Host>("a").await.unwrap_err();
    let error = error.remote().unwrap();
    assert_eq!(error.code, RpcError::UNAVAILABLE);
    assert!(error.message.contains("etcd does not answer, nothing was changed"), "{}", error.message);
    let error = served.storage.save(&host("b")).await.unwrap_err();
    let data = error.remote().unwrap().data.as_ref().unwrap();
    assert_eq!(*data, json!({"kind": "store", "maybe_executed": false}));
    etcd.restart().await.unwrap();
    let mut ears = ears(&served.bus).await;
    served.storage.save(&host("c")).await.unwrap();
    assert_eq!(served.storage.get::<Host>("a").await.unwrap(), host("a"));
    while heard(&mut ears).await.record_key().as_deref() != Some("c") {}
    served.kept.etcd = Some(etcd);
    served.finish().await;
}

#[tokio::test]
async fn too_much_at_once_is_refused_and_nothing_is_changed() {
    let served = Served::on(Place::Etcd).await;
    let hosts: Vec<Host> = (0..128).map(|at| host(&at.to_string())).collect();
    let refused = served.storage.save_all(&hosts).await.unwrap_err();
    let refused = refused.remote().unwrap();
    assert_eq!(refused.code, RpcError::TOO_LARGE);
    assert!(refused.message.contains("at most 127 records"), "{}", refused.message);
    assert_eq!(served.storage.list::<Host>().await.unwrap(), []);
    served.storage.save_all(&hosts[..127]).await.unwrap();
    served.finish().await;
}

#[tokio::test]
async fn a_full_etcd_takes_nothing_more_and_loses_nothing() {
    let etcd = Server::etcd(&[("quota-backend-bytes", "4194304")]).await.unwrap();
    let kept = Kept { etcd: Some(etcd), ..Kept::new(Place::Embedded).await };
    let served = Served::with(kept.config(), kept).await;
    let mut saved = Vec::new();
    let full = loop {
        let big = Host { status: "x".repeat(500_000), ..host(&saved.len().to_string()) };
        match served.storage.save(&big).await {
            Ok(host) => saved.push(host),
            Err(error) => break error.remote().unwrap().clone(),
        }
    };
    assert_eq!(full.code, RpcError::UNAVAILABLE);
    assert!(full.message.contains("no space left, nothing was changed"), "{}", full.message);
    let key = saved.len().to_string();
    assert!(served.storage.find::<Host>(&key).await.unwrap().is_none());
    for host in &saved {
        assert_eq!(served.storage.get::<Host>(&host.address).await.unwrap(), *host);
    }
    assert!(saved.len() > 2);
    served.finish().await;
}

#[tokio::test]
async fn a_place_that_cannot_be_used_is_named_at_the_start() {
    let etcd = Server::etcd(&[]).await.unwrap();
    let mut admin = client(&etcd).await;
    admin.user_add("root", "r00t", None).await.unwrap();
    admin.role_add("root").await.unwrap();
    admin.user_grant_role("root", "root").await.unwrap();
    admin.user_add("nobody", "n0b0dy", None).await.unwrap();
    admin.auth_enable().await.unwrap();
    let (bus, dir) = (memory_bus().await, dir());
    let start = async |more: Value| {
        let mut handler = json!({"type": "etcd", "name": "main", "server_url": etcd.uri()});
        handler.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let members = members(json!({"storage_handlers": handler}));
        serve(&bus, StorageConfig { members, ..StorageConfig::new(dir.path()) }).await
    };
    for (more, told) in [
        (json!({}), "refuses"),
        (json!({"username": "root", "password": "c4n4ry"}), "refuses"),
        (json!({"username": "nobody", "password": "n0b0dy"}), "refuses"),
        (json!({"server_url": "http://127.0.0.1:1"}), "does not answer"),
    ] {
        let refused = start(more.clone()).await.err().expect("refused").to_string();
        assert!(refused.contains("storage handler \"main\"") && refused.contains(told), "{more}: {refused}");
        assert!(!refused.contains("c4n4ry"), "{refused}");
    }
    let service = start(json!({"username": "root", "password": "r00t"})).await.unwrap();
    let storage = StorageClient::new(Client::new(bus.clone()));
    storage.save(&host("a")).await.unwrap();
    service.finish(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn however_much_has_changed_it_is_told() {
    let served = Served::on(Place::Etcd).await;
    let since = served.storage.save_guarded(&host("first"), Default::default()).await.unwrap().revision;
    let hostset: Vec<String> = (0..40_000).map(|at| format!("10.0.0.{at}")).collect();
    for at in 0..12 {
        let cluster = json!({"name": at.to_string(), "hostset": hostset, "status": "x".repeat(300_000)});
        served.storage.save(&serde_json::from_value::<Cluster>(cluster).unwrap()).await.unwrap();
    }
    // Read by one who is far behind, page by page.
    let (mut since, mut seen) = (since, 0);
    loop {
        let told = served.storage.changes(since).await.unwrap();
        seen += told.changes.len();
        since = told.next;
        if told.next == told.latest {
            break;
        }
    }
    assert_eq!(seen, 12);
    // And by a service that comes to it late.
    let kept = served.finish().await;
    let mut etcd = client(kept.etcd.as_ref().unwrap()).await;
    let text = json!({"hostset": hostset, "status": "y".repeat(300_000)}).to_string();
    for at in 0..12 {
        etcd.put(format!("/commissaire/clusters/{at}"), text.clone(), None).await.unwrap();
    }
    let bus = memory_bus().await;
    let mut ears = ears(&bus).await;
    let service = serve(&bus, kept.config()).await.unwrap();
    for _ in 0..12 {
        assert_eq!(heard(&mut ears).await.event, Verb::Updated);
    }
    service.finish(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn a_deletion_that_was_compacted_is_told_as_lost() {
    let served = Served::on(Place::Etcd).await;
    served.storage.save(&host("a")).await.unwrap();
    let before = served.storage.save_guarded(&host("b"), Default::default()).await.unwrap().revision;
    served.storage.delete::<Host>("a").await.unwrap();
    let deleted = served.storage.changes(before).await.unwrap().latest;
    let mut etcd = client(served.kept.etcd.as_ref().unwrap()).await;
    etcd.compact(i64::try_from(deleted).unwrap(), None).await.unwrap();
    let lost = served.storage.changes(before).await.unwrap_err();
    assert_eq!(lost.remote().unwrap().code, COMPACTED);
    assert_eq!(served.storage.changes(deleted).await.unwrap().changes, []);
    served.finish().await;
}
