//! The table of models and the record types agree.

use commissaire_api::{
    Cluster, ClusterDeploy, ClusterRestart, ClusterUpgrade, ContainerManagerConfig, Host, HostCreds,
    HostState, HostStatus, Investigation, MODELS, Model, Network, NodeDrain, Operation, OperationHost,
    Record, WatchShard, WatcherRecord,
    model::{Kept, Missing},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};

/// What must be given, and nothing else.
fn least(model: &Model) -> Map<String, Value> {
    let required = model.fields.iter().filter(|field| field.missing == Missing::Fault);
    required
        .map(|field| (field.name.to_owned(), json!("x")))
        .chain(model.key.map(|key| (key.into(), json!("x"))))
        .collect()
}

fn agrees<T: Serialize + DeserializeOwned>(name: &str) {
    let model = Model::find(name).expect("a model of this name");
    let least = Value::Object(least(model));
    let by_table = Value::Object(model.check(least.clone()).expect("what must be given is enough"));
    let typed: T = serde_json::from_value(least).expect("what must be given is enough for the type");
    assert_eq!(serde_json::to_value(&typed).unwrap(), by_table, "defaults of {name}");
    let again: T = serde_json::from_value(by_table.clone()).unwrap();
    assert_eq!(serde_json::to_value(&again).unwrap(), by_table, "round trip of {name}");
    for field in model.fields {
        let mut without = by_table.clone();
        without.as_object_mut().unwrap().remove(field.name);
        let required = serde_json::from_value::<T>(without).is_err();
        let key_with_default = model.key == Some(field.name) && field.missing != Missing::Fault;
        assert_eq!(required, field.missing == Missing::Fault && !key_with_default, "{name}.{}", field.name);
    }
}

#[test]
fn table_and_types_agree_on_every_model() {
    agrees::<Host>("Host");
    agrees::<HostCreds>("HostCreds");
    agrees::<HostStatus>("HostStatus");
    agrees::<HostState>("HostState");
    agrees::<Investigation>("Investigation");
    agrees::<WatchShard>("WatchShard");
    agrees::<NodeDrain>("NodeDrain");
    agrees::<Operation>("Operation");
    agrees::<OperationHost>("OperationHost");
    agrees::<Cluster>("Cluster");
    agrees::<ClusterDeploy>("ClusterDeploy");
    agrees::<ClusterRestart>("ClusterRestart");
    agrees::<ClusterUpgrade>("ClusterUpgrade");
    agrees::<Network>("Network");
    agrees::<ContainerManagerConfig>("ContainerManagerConfig");
    agrees::<NodeDrain>("NodeDrain");
    agrees::<WatcherRecord>("WatcherRecord");
    assert_eq!(MODELS.len(), 16, "a model without a line above");
}

#[test]
fn every_record_type_names_its_own_row() {
    fn row<T: Record>(name: &str) {
        assert_eq!(T::MODEL.name, name);
        assert!(T::MODEL.key.is_some(), "{name} has a key");
    }
    row::<Host>("Host");
    row::<HostCreds>("HostCreds");
    row::<Cluster>("Cluster");
    row::<ClusterDeploy>("ClusterDeploy");
    row::<ClusterRestart>("ClusterRestart");
    row::<ClusterUpgrade>("ClusterUpgrade");
    row::<Network>("Network");
    row::<ContainerManagerConfig>("ContainerManagerConfig");
    row::<WatcherRecord>("WatcherRecord");
}

#[test]
fn lists_are_found_by_both_names_and_secrets_have_none() {
    for (list, one) in [
        ("Hosts", "Host"),
        ("Clusters", "Cluster"),
        ("Networks", "Network"),
        ("ContainerManagerConfigs", "ContainerManagerConfig"),
    ] {
        assert_eq!(Model::find_listed(list), Model::find(one));
        assert_eq!(Model::find_listed(one), Model::find(one));
    }
    assert!(MODELS.iter().all(|model| model.kept == Kept::Plain || model.list.is_none()));
}

#[test]
fn a_safe_rendering_has_neither_hidden_fields_nor_secret_options() {
    let mut cluster = Model::find("Cluster").unwrap().check(json!({"name": "c", "hostset": ["a"]})).unwrap();
    Model::find("Cluster").unwrap().hide(&mut cluster);
    assert!(!cluster.contains_key("hostset") && cluster.contains_key("network"));

    let model = Model::find("ContainerManagerConfig").unwrap();
    let given = json!({"name": "k", "options": {"server_url": "https://k", "token": "canary"}});
    let mut config = model.check(given).unwrap();
    model.hide(&mut config);
    assert_eq!(config["options"], json!({"server_url": "https://k"}));
}

#[test]
fn debug_shows_no_secret() {
    let creds: HostCreds = serde_json::from_value(json!({"address": "a", "ssh_priv_key": "canary"})).unwrap();
    let config: ContainerManagerConfig =
        serde_json::from_value(json!({"name": "k", "options": {"token": "canary"}})).unwrap();
    assert!(!format!("{creds:?} {creds:#?} {config:?}").contains("canary"));
}
