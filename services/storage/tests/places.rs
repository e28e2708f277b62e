//! The member `storage_handlers`: which places there are, and what keeps which model.

use commissaire_storage::{
    StorageConfig,
    config::{Kind, Members, Secrets},
};
use serde_json::{Value, json};

use crate::common::members;

#[allow(clippy::needless_pass_by_value, reason = "for `json!` at the place of the call")]
/// The names of the places with the models that they keep.
fn kept(handlers: Value) -> Vec<(String, Vec<&'static str>)> {
    let members = members(json!({"storage_handlers": handlers}));
    let places = members.storage_handlers.all().iter();
    places.map(|place| (place.name.clone(), place.models.iter().map(|model| model.name).collect())).collect()
}

/// The error of these.
#[allow(clippy::needless_pass_by_value, reason = "for `json!` at the place of the call")]
fn refusal(handlers: Value) -> String {
    let members = json!({"storage_handlers": handlers});
    serde_json::from_value::<Members>(members).expect_err("refused").to_string()
}

#[test]
fn without_any_one_embedded_store_keeps_everything() {
    for nothing in [Members::default(), members(json!({})), members(json!({"storage_handlers": []}))] {
        let [place] = nothing.storage_handlers.all() else { panic!("{nothing:?}") };
        assert_eq!((place.name.as_str(), place.models.len()), ("embedded", 13));
        assert!(matches!(place.kind, Kind::Embedded(None)));
    }
}

#[test]
fn one_place_or_a_list_of_them() {
    let one = kept(json!({"type": "etcd", "server_url": "http://127.0.0.1:1"}));
    assert_eq!(one[0].1.len(), 13);
    // As the first Commissaire wrote it.
    let old = kept(
        json!([{"type": "commissaire.storage.etcd", "server_url": "http://127.0.0.1:1", "models": ["*"]}]),
    );
    assert_eq!(one, old);
    // As the file that came with it had it.
    let bare = json!([{"name": "etcd", "server_url": "http://127.0.0.1:1", "models": ["*"]}]);
    assert_eq!(kept(bare), one);
    let several = kept(json!([
        {"type": "embedded", "models": ["Cluster*"]},
        {"type": "etcd", "models": ["Host*", "Network"]},
        {"type": "etcd", "models": ["Container*"]},
    ]));
    assert_eq!(
        several,
        [
            ("embedded".to_owned(), vec!["Cluster", "ClusterDeploy", "ClusterRestart", "ClusterUpgrade"]),
            (
                "etcd".to_owned(),
                vec![
                    "Host",
                    "HostState",
                    "Network",
                    "Investigation",
                    "NodeDrain",
                    "Operation",
                    "OperationHost",
                    "WatchShard"
                ]
            ),
            ("etcd-1".to_owned(), vec!["ContainerManagerConfig"]),
        ]
    );
}

#[test]
fn a_name_that_somebody_chose_is_not_made_for_another() {
    let named = kept(json!([
        {"type": "etcd", "models": ["Host"]},
        {"type": "etcd", "name": "etcd", "models": ["Network"]},
        {"type": "etcd", "models": ["Cluster"]},
    ]));
    assert_eq!(named.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["etcd-1", "etcd", "etcd-2"]);
}

#[test]
fn every_mistake_names_the_handler_and_what_is_wrong() {
    let etcd = |more: Value| {
        let mut handler = json!({"type": "etcd", "name": "one", "models": ["*"]});
        handler.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        handler
    };
    let file = std::env::current_exe().unwrap();
    let file = file.to_str().unwrap();
    for (handlers, told) in [
        (json!("etcd"), vec!["an object, or a list of objects"]),
        (json!([{"name": "one"}]), vec!["[0] (\"one\")", "type is missing"]),
        (json!([etcd(json!({"type": "etdc"}))]), vec!["(\"one\")", "did you mean etcd?"]),
        (
            json!([etcd(json!({"type": "my.module.Handler"}))]),
            vec!["my.module.Handler", "known are embedded, etcd"],
        ),
        (
            json!([etcd(json!({"models": ["Hots*"]}))]),
            vec!["(\"one\")", "\"Hots*\" is no model", "ClusterDeploy"],
        ),
        (json!([etcd(json!({"models": ["HostCreds"]}))]), vec!["(\"one\")", "HostCreds is secret"]),
        (json!([etcd(json!({"models": ["HostC*"]}))]), vec!["HostCreds is secret"]),
        (json!([etcd(json!({"models": ["WatcherRecord"]}))]), vec!["WatcherRecord is never stored"]),
        (json!([etcd(json!({"models": []}))]), vec!["models: names none"]),
        (
            json!([etcd(json!({"models": ["Host*"]})), {"type": "embedded", "models": ["Host"]}]),
            vec!["[1]", "Host is kept by \"one\" already"],
        ),
        (
            json!([etcd(json!({"models": ["Host"]})), etcd(json!({"models": ["Cluster"]}))]),
            vec!["[1] (\"one\")", "another has the name \"one\" already"],
        ),
        (
            json!([{"type": "embedded", "models": ["Host"]}, {"type": "embedded", "models": ["Cluster"]}]),
            vec!["second embedded store in one directory"],
        ),
        (
            json!([etcd(json!({"server_url": "https://e:1", "certificate_path": file}))]),
            vec!["(\"one\")", "certificate_path is set, but certificate_key_path is not"],
        ),
        (
            json!([etcd(
                json!({"server_url": "http://e:1", "certificate_path": file, "certificate_key_path": file})
            )]),
            vec!["certificate_path is set, but no URL of server_url is https"],
        ),
        (json!([etcd(json!({"username": "u"}))]), vec!["username is set, but password is not"]),
        (json!([etcd(json!({"server_url": "e:1"}))]), vec!["server_url: must be URLs such as"]),
        (
            json!([etcd(json!({"server_url": "http://u:canary@e:1"}))]),
            vec!["put who is asking into username"],
        ),
        (
            json!([etcd(json!({"certificate_ca_path": "/nowhere", "server_url": "https://e:1"}))]),
            vec!["certificate_ca_path: cannot read /nowhere"],
        ),
        (json!([etcd(json!({"server-url": "http://e:1"}))]), vec!["server-url"]),
        (
            json!([{"type": "embedded", "server_url": "http://e:1"}]),
            vec!["server_url is no setting of an embedded store"],
        ),
        (json!([etcd(json!({"data_dir": "/x"}))]), vec!["data_dir is no setting of an etcd"]),
        (json!([etcd(json!({"name": "a/b"}))]), vec!["name must not hold '/'"]),
    ] {
        let refused = refusal(handlers.clone());
        for part in told {
            assert!(refused.contains(part), "{handlers}: {refused}");
        }
        assert!(!refused.contains("canary"), "{refused}");
    }
}

#[test]
fn what_keeps_secrets_is_checked_as_well() {
    let openbao = |more: Value| {
        let mut handler = json!({"type": "openbao", "token": "c4n4ry"});
        handler.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        handler
    };
    for (handler, told) in [
        (json!({}), "type is missing: it takes sealed, custodia, openbao"),
        (json!({"type": "opnbao"}), "did you mean openbao?"),
        (json!({"type": "sealed", "token": "c4n4ry"}), "token is no setting of sealed"),
        (json!({"type": "custodia", "mount": "x"}), "mount is no setting of custodia"),
        (json!({"type": "openbao"}), "needs either token"),
        (openbao(json!({"role_id": "r"})), "needs either token"),
        (openbao(json!({"token_path": "/nowhere"})), "token and token_path are both set"),
        (json!({"type": "openbao", "token_path": "/nowhere"}), "token_path: cannot read /nowhere"),
        (openbao(json!({"server_url": "http://bao.example.com:8200"})), "https only, except on this machine"),
        (openbao(json!({"server_url": "bao"})), "server_url: must be a URL such as"),
        (openbao(json!({"server_url": "https://u:c4n4ry@bao"})), "server_url: names a user"),
        (
            openbao(json!({"server_url": "http://127.0.0.1:1", "certificate_ca_path": "/x"})),
            "server_url is not https",
        ),
        (openbao(json!({"path": "../x"})), "path: takes letters"),
        (openbao(json!({"tokn": "x"})), "tokn"),
    ] {
        let refused = serde_json::from_value::<Members>(json!({"secret_handler": handler.clone()}));
        let refused = refused.expect_err("refused").to_string();
        assert!(refused.contains(told), "{handler}: {refused}");
        assert!(!refused.contains("c4n4ry"), "{refused}");
    }
    let both = json!({"secret_handler": {"type": "sealed"}, "custodia_socket_path": "/x"});
    let config = StorageConfig { members: members(both), ..StorageConfig::new("/nowhere") };
    assert!(config.secrets().unwrap_err().to_string().contains("both set"));
    let bao = json!({"secret_handler": openbao(json!({"server_url": "http://localhost:8200"}))});
    let config = StorageConfig { members: members(bao), ..StorageConfig::new("/nowhere") };
    assert!(matches!(config.secrets().unwrap(), Secrets::OpenBao(_)));
    assert!(!format!("{config:?}").contains("c4n4ry"));
}
