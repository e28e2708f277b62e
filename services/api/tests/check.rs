//! Checks of given data.

use commissaire_api::{Model, check::MAX_KEY};
use serde_json::{Value, json};

fn faults(model: &str, given: Value) -> Vec<String> {
    match Model::find(model).unwrap().check(given) {
        Ok(_) => Vec::new(),
        Err(faults) => faults.0.iter().map(|fault| format!("{} {}", fault.field, fault.problem)).collect(),
    }
}

fn sound(model: &str, given: Value) -> bool {
    faults(model, given).is_empty()
}

#[test]
fn every_fault_is_told_at_once() {
    let given = json!({"addres": "a", "status": 1, "cpus": true, "memory": -1, "space": 1.5, "os": null});
    let told = faults("Host", given);
    assert_eq!(
        told,
        [
            "addres is not a field of Host: did you mean address?",
            "address is missing",
            "status is a number: it takes text",
            "os is null: it takes text",
            "cpus is a boolean: it takes a whole number",
            "memory is -1: it takes 0 to 9223372036854775807",
            "space is 1.5: it takes a whole number",
        ]
    );
}

#[test]
fn an_unknown_field_is_named_with_the_known_ones() {
    let told = faults("Network", json!({"name": "n", "zzzzzzzz": 1}));
    assert_eq!(told, ["zzzzzzzz is not a field of Network: it has name, type, options"]);
}

#[test]
fn integers_stay_in_their_range() {
    assert!(sound("Host", json!({"address": "a", "cpus": u32::MAX})));
    assert!(!sound("Host", json!({"address": "a", "cpus": u64::from(u32::MAX) + 1})));
    assert!(sound("Host", json!({"address": "a", "space": i64::MAX})));
    assert!(!sound("Host", json!({"address": "a", "space": u64::MAX})));
    assert!(!sound("Host", json!({"address": "a", "cpus": 4.0})));
}

#[test]
fn a_key_cannot_change_a_path() {
    let long = "x".repeat(MAX_KEY + 1);
    for key in ["", "a/b", "/", "..", ".", "a\\b", "a\nb", "a\0b", "\u{7f}", "\u{85}", &long] {
        assert!(!sound("Host", json!({"address": key})), "{key:?}");
    }
    for key in ["10.0.0.7", "fe80::1%eth0", "host name", "...", "ünïcödé", &"x".repeat(MAX_KEY)] {
        assert!(sound("Host", json!({"address": key})), "{key:?}");
    }
}

#[test]
fn a_list_names_the_element_that_is_wrong() {
    let told = faults("Cluster", json!({"name": "c", "hostset": ["a", 1, "b", null]}));
    assert_eq!(told, ["hostset[1] is a number: it takes text", "hostset[3] is null: it takes text"]);
}

#[test]
fn a_flannel_server_has_a_host_and_a_port() {
    for address in ["10.0.0.1:8472", "flannel.example.com:1", "[fe80::1]:65535"] {
        let network = json!({"name": "n", "type": "flannel_server", "options": {"address": address}});
        assert!(sound("Network", network), "{address}");
    }
    for address in
        ["10.0.0.1", "10.0.0.1:", ":1", "h:0", "h:65536", "h:+1", "fe80::1:1", "[x]:1", "a b:1", "h:1 "]
    {
        let network = json!({"name": "n", "type": "flannel_server", "options": {"address": address}});
        assert!(!sound("Network", network), "{address}");
    }
    let bare = faults("Network", json!({"name": "n", "type": "flannel_server"}));
    assert_eq!(bare, ["options.address is missing: flannel_server takes host:port"]);
    assert!(sound("Network", json!({"name": "n", "type": "flannel_etcd", "options": {}})));
}

#[test]
fn types_are_of_the_known_ones() {
    let told = faults("Network", json!({"name": "n", "type": "vxlan"}));
    assert_eq!(told, ["type is \"vxlan\": it takes flannel_etcd, flannel_server"]);
    assert!(!sound("ContainerManagerConfig", json!({"name": "k", "type": "nomad"})));
    for kind in ["openshift", "kubernetes", "trivial"] {
        assert!(sound("ContainerManagerConfig", json!({"name": "k", "type": kind})));
    }
}

#[test]
fn an_option_that_nobody_knows_is_refused_for_it_may_be_a_secret() {
    let manager = |options: Value| json!({"name": "k", "options": options});
    let told = faults("ContainerManagerConfig", manager(json!({"tokn": "c4n4ry", "Password": "c4n4ry"})));
    assert_eq!(told[1], "options.tokn is not known: did you mean token?");
    assert!(told[0].starts_with("options.Password is not known: known are server_url, token,"), "{told:?}");
    assert!(!told.concat().contains("c4n4ry"));
    assert!(sound("ContainerManagerConfig", manager(json!({"server-url": "https://k", "token": "c4n4ry"}))));
}

#[test]
fn a_deployment_has_a_name_and_a_version() {
    let told = faults("ClusterDeploy", json!({"name": "", "version": ""}));
    assert_eq!(told, ["name must not be empty", "version must not be empty"]);
    assert_eq!(faults("ClusterDeploy", json!({"name": "c"})), ["version is missing"]);
}

#[test]
fn for_a_key_only_the_key_is_needed() {
    let model = Model::find("ClusterDeploy").unwrap();
    assert_eq!(model.check_key(json!({"name": "c"})).unwrap(), "c");
    assert_eq!(model.check_key(json!({"name": "c", "version": 7})).unwrap(), "c");
    assert!(model.check_key(json!({"name": "../c"})).is_err());
    assert!(model.check_key(json!({"nmae": "c"})).unwrap_err().to_string().contains("did you mean name?"));
}

#[test]
fn what_is_no_object_is_told_as_a_whole() {
    assert_eq!(faults("Host", json!([])), [" the data is a list: it takes an object, a Host"]);
}

#[test]
fn a_fault_never_quotes_a_secret() {
    let given =
        json!({"address": ["canary"], "ssh_priv_key": ["canary"], "remote_user": 7, "ssh_key": "canary"});
    assert!(!faults("HostCreds", given).join(" ").contains("canary"));
}
