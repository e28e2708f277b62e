//! Lists by prefix, by what fields hold, and of some fields; changes with who wanted them.

use commissaire::{Client, RpcError};
use commissaire_api::{Host, StorageClient};
use serde_json::{Value, json};

use crate::common::{Place, Served, each_place};

each_place!(
    lists_take_a_prefix_a_filter_and_fields,
    a_filtered_list_pages_through_all_that_it_looks_at,
    changes_tell_who_wanted_them,
);

async fn fleet(served: &Served, count: usize) {
    for hundred in (0..count).collect::<Vec<_>>().chunks(100) {
        let hosts = hundred.iter().map(|at| Host {
            address: format!("{}.{at:04}", if at % 2 == 0 { "even" } else { "odd" }),
            status: if at % 10 == 0 { "failed" } else { "active" }.into(),
            ..Host::default()
        });
        served.storage.save_all(&hosts.collect::<Vec<_>>()).await.unwrap();
    }
}

async fn lists_take_a_prefix_a_filter_and_fields(place: Place) {
    let served = Served::on(place).await;
    fleet(&served, 20).await;
    let list = |more: Value| {
        let mut params = json!({"model_type_name": "Hosts"});
        params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        served.call("storage.list", params)
    };
    let addresses = |answer: &Value| -> Vec<String> {
        answer.as_array().unwrap().iter().map(|host| host["address"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(addresses(&list(json!({"prefix": "odd.000"})).await.unwrap()).len(), 5);
    assert_eq!(list(json!({"prefix": "odder"})).await.unwrap(), json!([]));
    let failed = list(json!({"filter": {"status": "failed"}})).await.unwrap();
    assert_eq!(addresses(&failed), ["even.0000", "even.0010"]);
    let both =
        json!({"filter": {"status": "failed", "cpus": 0}, "prefix": "even.001", "fields": ["address"]});
    assert_eq!(list(both).await.unwrap(), json!([{"address": "even.0010"}]));
    assert_eq!(list(json!({"filter": {"cpus": 1}})).await.unwrap(), json!([]));
    let versioned = json!({"fields": ["os"], "with_revision": true, "prefix": "odd.0001"});
    let versioned = list(versioned).await.unwrap();
    assert_eq!(versioned[0]["record"], json!({"os": ""}));
    assert!(versioned[0]["revision"].as_u64() > Some(0));
    let wrong = list(json!({"filter": {"statsu": 1}, "fields": ["adress", "os"]})).await.unwrap_err();
    assert_eq!(wrong.code, RpcError::INVALID_PARAMS);
    for part in ["did you mean status?", "did you mean address?"] {
        assert!(wrong.message.contains(part), "{}", wrong.message);
    }
    served.finish().await;
}

async fn a_filtered_list_pages_through_all_that_it_looks_at(place: Place) {
    let served = Served::on(place).await;
    fleet(&served, 2_500).await;
    let (mut after, mut seen, mut pages) = (Value::Null, 0, 0);
    loop {
        let page =
            json!({"model_type_name": "Hosts", "limit": 100, "filter": {"status": "failed"}, "after": after});
        let page = served.call("storage.list", page).await.unwrap();
        seen += page["records"].as_array().unwrap().len();
        pages += 1;
        after = page["next"].clone();
        if after.is_null() {
            break;
        }
    }
    assert_eq!((seen, pages), (250, 3));
    served.finish().await;
}

async fn changes_tell_who_wanted_them(place: Place) {
    let served = Served::on(place).await;
    served.storage.save(&Host { address: "a".into(), ..Host::default() }).await.unwrap();
    let operation =
        json!({"model_type_name": "Host", "model_json_data": {"address": "a"}, "operation": "upgrade 7"});
    served.call("storage.delete", operation).await.unwrap();
    let wrong = json!({"model_type_name": "Host", "model_json_data": {"address": "a"}, "operation": "a\nb"});
    assert_eq!(served.call("storage.save", wrong).await.unwrap_err().code, RpcError::INVALID_PARAMS);
    let storage = StorageClient::new(Client::new(served.bus.clone()));
    let mut changes = storage.changes(0).await.unwrap().changes;
    let gone = changes.pop().unwrap();
    assert_eq!((gone.operation.as_deref(), gone.verified), (Some("upgrade 7"), false));
    assert_eq!(changes.pop().unwrap().operation, None);
    assert!(!gone.at.is_empty());
    served.finish().await;
}
