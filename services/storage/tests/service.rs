//! The service on a bus.

use std::time::Duration;

use commissaire::{Pattern, Received, RpcError, Source};
use commissaire_api::{
    Cluster, Host, HostCreds, Network, Record, StorageEvent, Verb,
    client::Guard,
    storage::{
        self, COMPACTED, Fence, LeaseAcquire, LeaseAcquireParams, LeaseRelease, LeaseRenew, MAX_RECORD,
    },
};
use serde_json::{Value, json};

use crate::common::{Place, Served, each_place, serve};

each_place!(
    a_record_is_saved_got_listed_and_deleted,
    data_may_be_a_string_of_json_or_a_list_of_either,
    a_list_with_one_bad_record_saves_none_and_tells_every_fault,
    unknown_models_are_named_with_the_known,
    what_is_not_there_is_a_lookup_error_without_hidden_fields,
    the_default_network_is_there_for_readers_stored_or_not,
    compare_and_swap_tells_the_current_revision,
    the_client_pages_through_more_than_one_answer_holds,
    an_answer_that_the_bus_does_not_carry_is_refused_by_name,
    changes_are_announced_after_they_are_stored,
    changes_can_be_asked_for_from_any_revision_still_known,
    a_lease_fences_what_is_written_under_it,
    store_handlers_are_listed_without_secrets,
    everything_is_there_after_a_restart_and_nothing_is_announced_twice,
    the_embedded_answer_limit_leaves_room_for_the_bus,
);

fn host(address: &str) -> Host {
    Host { address: address.into(), ..Host::default() }
}

/// The call of a method on data of a model.
#[allow(clippy::needless_pass_by_value, reason = "for `json!` at the place of the call")]
fn on(model: &str, data: Value) -> Value {
    json!({"model_type_name": model, "model_json_data": data})
}

async fn a_record_is_saved_got_listed_and_deleted(place: Place) {
    let served = Served::on(place).await;
    let full = json!({"address": "a", "status": "active", "os": "", "cpus": 2, "memory": 0, "space": 0,
        "last_check": "", "source": ""});
    let given = json!({"address": "a", "status": "active", "cpus": 2});
    assert_eq!(served.call("storage.save", on("Host", given)).await.unwrap(), full);
    assert_eq!(served.call("storage.get", on("Host", json!({"address": "a"}))).await.unwrap(), full);
    for name in ["Hosts", "Host"] {
        assert_eq!(served.call("storage.list", json!([name])).await.unwrap(), json!([full]));
    }
    assert_eq!(served.call("storage.delete", json!(["Host", {"address": "a"}])).await.unwrap(), Value::Null);
    assert_eq!(served.call("storage.list", json!(["Hosts"])).await.unwrap(), json!([]));
    served.finish().await;
}

async fn data_may_be_a_string_of_json_or_a_list_of_either(place: Place) {
    let served = Served::on(place).await;
    let one = served.call("storage.save", on("Network", json!(r#"{"name": "one"}"#))).await.unwrap();
    assert_eq!(one, json!({"name": "one", "type": "flannel_etcd", "options": {}}));
    let both = on("Network", json!([r#"{"name": "two"}"#, {"name": "three"}]));
    let saved = served.call("storage.save", both).await.unwrap();
    assert_eq!(saved[0]["name"], "two");
    assert_eq!(saved[1]["name"], "three");
    let got = on("Network", json!([{"name": "three"}, r#"{"name": "one"}"#]));
    let mut got = got;
    got["with_revision"] = true.into();
    let got = served.call("storage.get", got).await.unwrap();
    assert_eq!((&got[0]["record"], &got[1]["record"]), (&saved[1], &one));
    assert!(got[0]["revision"].as_u64() > got[1]["revision"].as_u64(), "{got}");
    for broken in [json!("{"), json!(["{\"name\": \"x\"}", "nonsense"])] {
        let error = served.call("storage.get", on("Network", broken)).await.unwrap_err();
        assert_eq!(error.code, RpcError::PARSE);
    }
    assert_eq!(served.call("storage.save", on("Network", json!([]))).await.unwrap(), json!([]));
    served.finish().await;
}

async fn a_list_with_one_bad_record_saves_none_and_tells_every_fault(place: Place) {
    let served = Served::on(place).await;
    let records = json!([{"address": "a"}, {"address": "b/c", "cpus": true}, {"adress": "d"}]);
    let error = served.call("storage.save", on("Host", records)).await.unwrap_err();
    assert_eq!(error.code, RpcError::INVALID_PARAMS);
    let faults = error.data.unwrap()["faults"].clone();
    let fields: Vec<&str> =
        faults.as_array().unwrap().iter().map(|fault| fault["field"].as_str().unwrap()).collect();
    assert_eq!(fields, ["[1].address", "[1].cpus", "[2].adress", "[2].address"]);
    for field in fields {
        assert!(error.message.contains(field), "{}", error.message);
    }
    assert_eq!(served.storage.list::<Host>().await.unwrap(), []);
    let twice = served.call("storage.save", on("Host", json!([{"address": "a"}, {"address": "a"}]))).await;
    assert_eq!(twice.unwrap_err().code, RpcError::INVALID_PARAMS);
    served.finish().await;
}

async fn unknown_models_are_named_with_the_known(place: Place) {
    let served = Served::on(place).await;
    for (method, model) in
        [("save", "Hots"), ("get", "Hosts"), ("delete", "HostStatus"), ("save", "WatcherRecord")]
    {
        let error = served.call(&format!("storage.{method}"), on(model, json!({}))).await.unwrap_err();
        assert_eq!(error.code, RpcError::INVALID_PARAMS);
        assert!(
            error.message.contains(model) && error.message.contains("ClusterDeploy"),
            "{}",
            error.message
        );
    }
    let error = served.call("storage.list", json!(["HostCreds"])).await.unwrap_err();
    assert_eq!(error.code, RpcError::INVALID_PARAMS);
    served.finish().await;
}

async fn what_is_not_there_is_a_lookup_error_without_hidden_fields(place: Place) {
    let served = Served::on(place).await;
    let asked = json!([{"address": "a", "ssh_priv_key": "canary"}, {"address": "b"}]);
    let error = served.call("storage.get", on("HostCreds", asked)).await.unwrap_err();
    assert_eq!(error.code, RpcError::STORAGE_LOOKUP);
    assert!(!format!("{error:?}").contains("canary"));
    assert_eq!(
        error.data.unwrap(),
        json!({"model_type_name": "HostCreds", "model_json_data": [
            {"address": "a", "remote_user": "root"}, {"address": "b", "remote_user": "root"}]})
    );
    let error = served.call("storage.delete", on("Host", json!({"address": "a"}))).await.unwrap_err();
    assert_eq!(error.code, RpcError::STORAGE_LOOKUP);
    assert_eq!(error.data.unwrap()["model_json_data"][0]["address"], "a");
    assert_eq!(served.storage.find::<Host>("a").await.unwrap(), None);
    served.finish().await;
}

async fn the_default_network_is_there_for_readers_stored_or_not(place: Place) {
    let served = Served::on(place).await;
    let names = |networks: Vec<Network>| networks.into_iter().map(|network| network.name).collect::<Vec<_>>();
    assert_eq!(served.storage.get_versioned::<Network>("default").await.unwrap().revision, 0);
    assert_eq!(names(served.storage.list().await.unwrap()), ["default"]);
    for name in ["a", "z"] {
        served.call("storage.save", on("Network", json!({"name": name}))).await.unwrap();
    }
    assert_eq!(names(served.storage.list().await.unwrap()), ["a", "default", "z"]);
    let page =
        |limit: u32, after: &str| json!({"model_type_name": "Networks", "limit": limit, "after": after});
    let mut after = String::new();
    let mut seen = Vec::new();
    loop {
        let answer = served.call("storage.list", page(1, &after)).await.unwrap();
        seen.extend(answer["records"].as_array().unwrap().iter().map(|record| record["name"].clone()));
        match answer["next"].as_str() {
            Some(next) => after = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(seen, ["a", "default", "z"]);
    let lookup = served.storage.delete::<Network>("default").await.unwrap_err();
    assert_eq!(lookup.remote().unwrap().code, RpcError::STORAGE_LOOKUP);
    served
        .call("storage.save", on("Network", json!({"name": "default", "options": {"x": 1}})))
        .await
        .unwrap();
    assert_eq!(names(served.storage.list().await.unwrap()), ["a", "default", "z"]);
    assert_eq!(served.storage.get::<Network>("default").await.unwrap().options["x"], 1);
    served.finish().await;
}

async fn compare_and_swap_tells_the_current_revision(place: Place) {
    let served = Served::on(place).await;
    let storage = &served.storage;
    let first = storage.save_guarded(&host("a"), Guard::revision(0)).await.unwrap();
    let active = Host { status: "active".into(), ..host("a") };
    let second = storage.save_guarded(&active, Guard::default()).await.unwrap().revision;
    assert!(second > first.revision);
    let refused = storage.save_guarded(&host("a"), Guard::revision(first.revision)).await.unwrap_err();
    let refused = refused.remote().unwrap();
    assert_eq!(refused.code, RpcError::CONFLICT);
    assert_eq!(refused.data, Some(json!({"model_type_name": "Host", "key": "a", "revision": second})));
    let refused = storage.delete_guarded::<Host>("a", Guard::revision(first.revision)).await.unwrap_err();
    assert_eq!(refused.remote().unwrap().code, RpcError::CONFLICT);
    storage.delete_guarded::<Host>("a", Guard::revision(second)).await.unwrap();
    let mut many = on("Host", json!([{"address": "a"}, {"address": "b"}]));
    many["expected_revision"] = json!(0);
    assert_eq!(served.call("storage.save", many.clone()).await.unwrap_err().code, RpcError::INVALID_PARAMS);
    many["expected_revision"] = json!([0, null]);
    served.call("storage.save", many).await.unwrap();
    served.finish().await;
}

async fn the_client_pages_through_more_than_one_answer_holds(place: Place) {
    let served = Served::on(place).await;
    for hundreds in 0..23 {
        let hosts: Vec<Host> = (0..100).map(|at| host(&format!("10.0.{hundreds}.{at}"))).collect();
        served.storage.save_all(&hosts).await.unwrap();
    }
    let (hosts, revision) = served.storage.list_versioned::<Host>().await.unwrap();
    assert_eq!(hosts.len(), 2300);
    assert!(hosts.iter().all(|host| host.revision <= revision));
    assert_eq!(served.storage.changes(revision).await.unwrap().changes, []);
    assert!(hosts.is_sorted_by(|one, two| one.record.address < two.record.address));
    served.finish().await;
}

async fn an_answer_that_the_bus_does_not_carry_is_refused_by_name(place: Place) {
    let served = Served::on(place).await;
    let hostset: Vec<String> = (0..30_000).map(|at| format!("10.0.0.{at}")).collect();
    for name in ["a", "b", "c"] {
        let cluster = json!({"name": name, "hostset": hostset});
        let cluster: Cluster = serde_json::from_value(cluster).unwrap();
        served.storage.save(&cluster).await.unwrap();
    }
    let error = served.call("storage.list", json!(["Clusters"])).await.unwrap_err();
    assert_eq!(error.code, RpcError::TOO_LARGE);
    assert!(error.message.contains("limit") && error.message.contains("after"), "{}", error.message);
    let names = json!([{"name": "a"}, {"name": "b"}, {"name": "c"}]);
    let error = served.call("storage.get", on("Cluster", names)).await.unwrap_err();
    assert_eq!(error.code, RpcError::TOO_LARGE);
    assert_eq!(served.storage.list::<Cluster>().await.unwrap().len(), 3, "page by page it is there");
    let twice = json!(vec![json!({"name": "a"}); 2_000]);
    let error = served.call("storage.get", on("Cluster", twice)).await.unwrap_err();
    assert_eq!(error.code, RpcError::TOO_LARGE);
    let text = "x".repeat(MAX_RECORD);
    let error =
        served.call("storage.save", on("Cluster", json!({"name": "d", "status": text}))).await.unwrap_err();
    assert!(error.message.contains(&MAX_RECORD.to_string()), "{}", error.message);
    served.finish().await;
}

async fn changes_are_announced_after_they_are_stored(place: Place) {
    let served = Served::on(place).await;
    let pattern = Pattern::new("notify.storage.Host.*").unwrap();
    let mut heard = served.bus.subscribe(Source::Topic(vec![pattern]), 16).await.unwrap();
    served.storage.save(&host("a")).await.unwrap();
    served.storage.save(&Host { status: "active".into(), ..host("a") }).await.unwrap();
    served.storage.delete::<Host>("a").await.unwrap();
    let secret = json!({"address": "a", "ssh_priv_key": "canary"});
    served.call("storage.save", on("HostCreds", secret)).await.unwrap();
    let mut told = Vec::new();
    while told.len() < 3 {
        let Some(Received::Delivery(delivery)) = heard.next().await else { panic!("a gap") };
        let event: StorageEvent = serde_json::from_slice(delivery.message().body()).unwrap();
        assert_eq!(event.record_key().as_deref(), Some("a"));
        told.push((event.event, event.revision.unwrap()));
    }
    assert_eq!(
        told.iter().map(|(verb, _)| *verb).collect::<Vec<_>>(),
        [Verb::Created, Verb::Updated, Verb::Deleted]
    );
    assert!(told.is_sorted_by(|(_, one), (_, two)| one < two), "{told:?}");
    served.finish().await;
}

async fn changes_can_be_asked_for_from_any_revision_still_known(place: Place) {
    let served = Served::on(place).await;
    let mut saved = Vec::new();
    for at in 0..5 {
        let host = host(&at.to_string());
        saved.push(served.storage.save_guarded(&host, Guard::default()).await.unwrap().revision);
    }
    let creds = HostCreds {
        address: "a".into(),
        ssh_priv_key: String::from("canary").into(),
        remote_user: "x".into(),
    };
    served.storage.save(&creds).await.unwrap();
    let answer = served.call("storage.changes", json!({"since": saved[1], "limit": 2})).await.unwrap();
    let revisions: Vec<&Value> =
        answer["changes"].as_array().unwrap().iter().map(|change| &change["revision"]).collect();
    assert_eq!(revisions, [saved[2], saved[3]]);
    assert_eq!(answer["next"], saved[3]);
    let rest = served.storage.changes(saved[3]).await.unwrap();
    assert_eq!((rest.changes.len(), rest.latest), (2, rest.changes[1].revision));
    assert_eq!(rest.next, rest.latest);
    let secret = rest.changes.last().unwrap();
    assert_eq!((secret.model_type_name.as_str(), &secret.record), ("HostCreds", &None));
    assert_eq!(served.storage.changes(rest.latest).await.unwrap().changes, []);
    let ahead = served.storage.changes(rest.latest + 1_000).await.unwrap_err();
    assert_eq!(ahead.remote().unwrap().code, COMPACTED);
    let data = ahead.remote().unwrap().data.clone().unwrap();
    assert!(data["latest"].as_u64().unwrap() >= rest.latest && data["compacted"].is_u64(), "{data}");
    served.finish().await;
}

async fn a_lease_fences_what_is_written_under_it(place: Place) {
    let served = Served::on(place).await;
    let take =
        |holder: &str| LeaseAcquireParams { name: "op/1".into(), holder: holder.into(), ttl_ms: 60_000 };
    let lease = served.client.call(LeaseAcquire, &take("one")).await.unwrap();
    let held = served.client.call(LeaseAcquire, &take("two")).await.unwrap_err();
    let held = held.remote().unwrap().clone();
    assert_eq!(held.code, RpcError::CONFLICT);
    let data = held.data.unwrap();
    assert_eq!(data["holder"], "one");
    assert!((1..=60_000).contains(&data["expires_in_ms"].as_u64().unwrap()));

    let fence = Fence { name: "op/1".into(), token: lease.token };
    assert_eq!(served.client.call(LeaseRenew, &fence).await.unwrap(), lease);
    let guard = Guard::default().under(fence.clone());
    served.storage.save_guarded(&host("a"), guard.clone()).await.unwrap();
    assert!(served.client.call(LeaseRelease, &fence).await.unwrap().released);
    let next = served.client.call(LeaseAcquire, &take("two")).await.unwrap();
    assert!(next.token > lease.token);
    let late = served.storage.save_guarded(&host("a"), guard.clone()).await.unwrap_err();
    assert_eq!(late.remote().unwrap().code, RpcError::CONFLICT);
    let late = served.storage.delete_guarded::<Host>("a", guard).await.unwrap_err();
    assert_eq!(late.remote().unwrap().code, RpcError::CONFLICT);

    let nobodys = Guard::default().under(Fence { name: "nobody's".into(), token: 0 });
    let refused = served.storage.save_guarded(&host("a"), nobodys).await.unwrap_err();
    assert_eq!(refused.remote().unwrap().code, RpcError::CONFLICT);

    let wrong = json!({"name": "", "holder": "a\nb", "ttl_ms": 0});
    let error = served.call("storage.lease.acquire", wrong).await.unwrap_err();
    assert_eq!(error.data.unwrap()["faults"].as_array().unwrap().len(), 3);
    served.finish().await;
}

async fn store_handlers_are_listed_without_secrets(place: Place) {
    let served = Served::on(place).await;
    let handlers = served.call("storage.list_store_handlers", json!([])).await.unwrap();
    let handler = match place {
        Place::Embedded => "EmbeddedStoreHandler",
        Place::Etcd => "EtcdStoreHandler",
    };
    assert_eq!(handlers[0]["handler_type"], handler);
    assert_eq!(
        handlers[0]["model_types"],
        json!([
            "Cluster",
            "ClusterDeploy",
            "ClusterRestart",
            "ClusterUpgrade",
            "ContainerManagerConfig",
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
    assert_eq!(handlers[1]["model_types"], json!([HostCreds::MODEL.name]));
    let store = served.call("storage.store", json!({})).await.unwrap();
    assert!(uuid::Uuid::parse_str(store["store"].as_str().unwrap()).is_ok());
    served.finish().await;
}

async fn everything_is_there_after_a_restart_and_nothing_is_announced_twice(place: Place) {
    let served = Served::on(place).await;
    let all = vec![Pattern::new("notify.#").unwrap()];
    let mut heard = served.bus.subscribe(Source::Topic(all), 16).await.unwrap();
    served.storage.save(&host("a")).await.unwrap();
    let _ = heard.next_delivery().await.unwrap();
    let creds =
        HostCreds { address: "a".into(), ssh_priv_key: String::from("k").into(), remote_user: "x".into() };
    served.storage.save(&creds).await.unwrap();
    let kept = served.finish().await;

    let bus = crate::common::memory_bus().await;
    let all = vec![Pattern::new("notify.#").unwrap()];
    let mut heard = bus.subscribe(Source::Topic(all), 16).await.unwrap();
    let service = serve(&bus, kept.config()).await.unwrap();
    let storage = commissaire_api::StorageClient::new(commissaire::Client::new(bus.clone()));
    assert_eq!(storage.get::<Host>("a").await.unwrap(), host("a"));
    assert_eq!(storage.get::<HostCreds>("a").await.unwrap(), creds);
    storage.save(&host("b")).await.unwrap();
    let delivery = heard.next_delivery().await.unwrap();
    let event: StorageEvent = serde_json::from_slice(delivery.message().body()).unwrap();
    assert_eq!(event.record_key().as_deref(), Some("b"), "{event:?}");
    service.finish(Duration::from_secs(5)).await;
}

async fn the_embedded_answer_limit_leaves_room_for_the_bus(place: Place) {
    const { assert!(storage::MAX_ANSWER + 8192 < commissaire::MAX_MESSAGE) };
    let served = Served::on(place).await;
    // The largest record there may be is saved, announced, got and told as a change.
    let empty =
        json!({"name": "c", "status": "", "network": "default", "hostset": [], "container_manager": ""});
    let status = "x".repeat(MAX_RECORD - empty.to_string().len());
    let all = vec![Pattern::new("notify.#").unwrap()];
    let mut heard = served.bus.subscribe(Source::Topic(all), 16).await.unwrap();
    served.call("storage.save", on("Cluster", json!({"name": "c", "status": status}))).await.unwrap();
    let _ = heard.next_delivery().await.unwrap();
    assert_eq!(served.storage.get::<Cluster>("c").await.unwrap().status.len(), status.len());
    assert_eq!(served.storage.changes(0).await.unwrap().changes.len(), 1);
    served.finish().await;
}
