//! Several places: each model in its own, and hosts where their `source` says.

use commissaire::RpcError;
use commissaire_api::{
    Cluster, Host,
    client::{Guard, Seen},
    storage::{Fence, LeaseAcquire, LeaseAcquireParams},
};
use commissaire_storage::StorageConfig;
use serde_json::{Value, json};

use crate::common::{Kept, Place, Served, members};

/// Hosts and networks in one embedded store, all else in another, and a third that hosts may name.
async fn served() -> Served {
    let kept = Kept::new(Place::Embedded).await;
    let dir = |name: &str| kept.dir.path().join(name);
    let config = StorageConfig {
        members: members(json!({"storage_handlers": [
            {"type": "embedded", "name": "hosts", "models": ["Host", "Network"]},
            {"type": "embedded", "name": "rest", "models": ["Cluster*"], "data_dir": dir("rest")},
            {"type": "embedded", "name": "cloud", "models": ["Container*"], "data_dir": dir("cloud")},
        ]})),
        ..kept.config()
    };
    Served::with(config, kept).await
}

fn host(address: &str, source: &str) -> Host {
    Host { address: address.into(), source: source.into(), ..Host::default() }
}

fn cluster(name: &str) -> Cluster {
    serde_json::from_value(json!({"name": name})).unwrap()
}

#[allow(clippy::needless_pass_by_value, reason = "for `json!` at the place of the call")]
fn on(data: Value) -> Value {
    json!({"model_type_name": "Host", "model_json_data": data})
}

#[tokio::test]
async fn each_model_is_kept_in_its_place_and_listed_with_it() {
    let served = served().await;
    let handlers = served.call("storage.list_store_handlers", json!([])).await.unwrap();
    let models: Vec<_> =
        handlers.as_array().unwrap().iter().map(|place| place["model_types"].clone()).collect();
    assert_eq!(
        models[0],
        json!([
            "Host",
            "HostState",
            "Investigation",
            "Network",
            "NodeDrain",
            "Operation",
            "OperationHost",
            "WatchShard"
        ])
    );
    assert_eq!(models[2], json!(["ContainerManagerConfig"]));
    assert_eq!(models[3], json!(["HostCreds"]));
    // Each counts its own revisions.
    let first = served.storage.save_guarded(&host("a", ""), Guard::default()).await.unwrap();
    let other = served.storage.save_guarded(&cluster("c"), Guard::default()).await.unwrap();
    assert_eq!((first.revision, other.revision), (1, 1));
    let told = |model: &str| json!({"since": 0, "model_type_name": model});
    let changes = served.call("storage.changes", told("Cluster")).await.unwrap();
    assert_eq!(changes["changes"][0]["key"], "c");
    let changes = served.call("storage.changes", json!({"since": 0})).await.unwrap();
    assert_eq!(changes["changes"][0]["key"], "a");
    assert_eq!(changes["changes"].as_array().unwrap().len(), 1);
    served.finish().await;
}

#[tokio::test]
async fn a_host_is_where_its_source_says_and_is_found_without_it() {
    let served = served().await;
    for saved in [host("a", ""), host("b", "cloud"), host("c", "rest"), host("d", "hosts")] {
        assert_eq!(served.storage.save(&saved).await.unwrap(), saved);
        assert_eq!(served.storage.get::<Host>(&saved.address).await.unwrap(), saved);
    }
    let at = |address: &str, source: &str| on(json!({"address": address, "source": source}));
    assert!(served.call("storage.get", at("b", "cloud")).await.is_ok());
    let elsewhere = served.call("storage.get", at("b", "rest")).await.unwrap_err();
    assert_eq!(elsewhere.code, RpcError::STORAGE_LOOKUP);
    let nowhere = served.call("storage.get", at("b", "clod")).await.unwrap_err();
    assert_eq!(nowhere.code, RpcError::INVALID_PARAMS);
    assert!(nowhere.message.contains("\"clod\"") && nowhere.message.contains("cloud"), "{}", nowhere.message);
    let saved = served.call("storage.save", at("e", "clod")).await.unwrap_err();
    assert_eq!(saved.code, RpcError::INVALID_PARAMS);
    // All of them in one list, page by page.
    let addresses = |answer: &Value| -> String {
        answer["records"].as_array().unwrap().iter().map(|host| host["address"].as_str().unwrap()).collect()
    };
    for (after, found, next) in [("", "abc", Some("c")), ("c", "d", None), ("a", "bcd", None)] {
        let page = json!({"model_type_name": "Hosts", "limit": 3, "after": after});
        let page = served.call("storage.list", page).await.unwrap();
        assert_eq!((addresses(&page).as_str(), page["next"].as_str()), (found, next), "after {after:?}");
    }
    served.storage.delete::<Host>("c").await.unwrap();
    assert_eq!(served.storage.find::<Host>("c").await.unwrap(), None);
    served.finish().await;
}

#[tokio::test]
async fn no_host_is_in_two_places_and_no_call_changes_two() {
    let served = served().await;
    served.storage.save(&host("a", "cloud")).await.unwrap();
    let twice = served.storage.save(&host("a", "")).await.unwrap_err();
    let twice = twice.remote().unwrap();
    assert_eq!(twice.code, RpcError::CONFLICT);
    assert!(twice.message.contains("\"cloud\"") && twice.message.contains("\"hosts\""), "{}", twice.message);
    let both = on(json!([{"address": "b", "source": "cloud"}, {"address": "c"}]));
    let both = served.call("storage.save", both).await.unwrap_err();
    assert_eq!(both.code, RpcError::INVALID_PARAMS);
    served.storage.save(&host("c", "")).await.unwrap();
    let both = served.call("storage.delete", on(json!([{"address": "a"}, {"address": "c"}]))).await;
    assert_eq!(both.unwrap_err().code, RpcError::INVALID_PARAMS);
    assert_eq!(served.storage.list::<Host>().await.unwrap(), [host("a", "cloud"), host("c", "")]);
    served.finish().await;
}

#[tokio::test]
async fn a_watch_follows_hosts_wherever_they_are() {
    let served = served().await;
    let mut hosts = served.storage.watch::<Host>().await.unwrap();
    assert_eq!(hosts.next().await.unwrap(), Seen::All(Vec::new()));
    for source in ["", "cloud", "rest"] {
        let address = format!("of {source}");
        served.storage.save(&host(&address, source)).await.unwrap();
        let seen = tokio::time::timeout(std::time::Duration::from_secs(20), hosts.next())
            .await
            .expect("seen")
            .unwrap();
        assert!(matches!(&seen, Seen::Saved(saved) if saved.record == host(&address, source)), "{seen:?}");
    }
    served.finish().await;
}

#[tokio::test]
async fn a_lease_guards_only_what_is_in_its_place() {
    let served = served().await;
    let take = LeaseAcquireParams { name: "op".into(), holder: "one".into(), ttl_ms: 60_000 };
    let token = served.client.call(LeaseAcquire, &take).await.unwrap().token;
    let guard = Guard::default().under(Fence { name: "op".into(), token });
    served.storage.save_guarded(&host("a", ""), guard.clone()).await.unwrap();
    let refused = served.storage.save_guarded(&cluster("c"), guard).await.unwrap_err();
    let refused = refused.remote().unwrap();
    assert_eq!(refused.code, RpcError::INVALID_PARAMS);
    assert!(
        refused.message.contains("\"hosts\"") && refused.message.contains("\"rest\""),
        "{}",
        refused.message
    );
    assert_eq!(served.storage.find::<Cluster>("c").await.unwrap(), None);
    served.finish().await;
}

#[tokio::test]
async fn a_model_that_no_place_keeps_is_refused_by_name() {
    let kept = Kept::new(Place::Embedded).await;
    let members = members(json!({"storage_handlers": {"type": "embedded", "models": ["Host"]}}));
    let config = StorageConfig { members, ..kept.config() };
    let served = Served::with(config, kept).await;
    let refused = served.storage.save(&cluster("c")).await.unwrap_err();
    let refused = refused.remote().unwrap();
    assert_eq!(refused.code, RpcError::INVALID_PARAMS);
    assert!(refused.message.contains("no storage handler keeps Cluster"), "{}", refused.message);
    served.finish().await;
}
