//! The contracts on the wire.

use commissaire::{Event, Method, jsonrpc::from_params};
use commissaire_api::{
    StorageEvent, Verb,
    storage::{self, Data, Expected, GetParams, ListParams, SaveParams},
};
use serde_json::{json, value::to_raw_value};

#[test]
fn parameters_are_named_or_positional() {
    let named =
        to_raw_value(&json!({"model_type_name": "Host", "model_json_data": {"address": "a"}})).unwrap();
    let positional = to_raw_value(&json!(["Host", {"address": "a"}])).unwrap();
    for params in [named, positional] {
        let params: GetParams = from_params(Some(&params)).unwrap();
        assert_eq!(params.model_type_name, "Host");
        assert_eq!(params.model_json_data.text(), r#"{"address":"a"}"#);
        assert!(!params.with_revision);
    }
    let list = to_raw_value(&json!(["Hosts"])).unwrap();
    assert_eq!(from_params::<ListParams>(Some(&list)).unwrap().limit, None);
}

#[test]
fn unknown_parameters_are_refused() {
    let params =
        to_raw_value(&json!({"model_type_name": "Host", "model_json_data": {}, "forse": true})).unwrap();
    assert!(from_params::<SaveParams>(Some(&params)).is_err());
}

#[test]
fn an_expected_revision_is_one_or_one_each() {
    assert_eq!(serde_json::from_value::<Expected>(json!(7)).unwrap(), Expected::One(7));
    assert_eq!(
        serde_json::from_value::<Expected>(json!([7, null])).unwrap(),
        Expected::Each(vec![Some(7), None])
    );
    assert!(serde_json::from_value::<Expected>(json!(-1)).is_err());
}

#[test]
fn an_event_goes_by_its_model_and_what_happened() {
    let event = StorageEvent {
        event: Verb::Created,
        class: "Host".into(),
        model: Data::of(&json!({"address": "a"})).unwrap(),
        revision: Some(7),
    };
    assert_eq!(event.key().unwrap().as_str(), "notify.storage.Host.created");
    assert_eq!(event.record_key().as_deref(), Some("a"));
    let body = serde_json::to_value(&event).unwrap();
    assert_eq!(body, json!({"event": "created", "class": "Host", "model": {"address": "a"}, "revision": 7}));
    let old: StorageEvent = serde_json::from_str(r#"{"event":"deleted","class":"Host","model":{}}"#).unwrap();
    assert_eq!(old.revision, None);
}

#[test]
fn leases_have_an_address_of_their_own() {
    let key = commissaire::Key::new(storage::LeaseAcquire::NAME).unwrap();
    assert_eq!(key.service().unwrap().as_str(), "storage.lease");
}
