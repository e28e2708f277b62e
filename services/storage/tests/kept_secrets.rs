//! Secrets, whoever keeps them: the same on all keepers.

use commissaire::RpcError;
use commissaire_api::{HostCreds, client::Guard};
use serde_json::{Value, json};

use crate::keepers::{Custodia, OpenBao, served};

/// Who keeps secrets.
enum Keeper {
    Sealed,
    Custodia(Custodia),
    OpenBao(OpenBao),
}

impl Keeper {
    fn configured(&self) -> Value {
        match self {
            Self::Sealed => json!({"secret_handler": {"type": "sealed"}}),
            Self::Custodia(custodia) => custodia.handler(),
            Self::OpenBao(bao) => bao.handler(json!({"token": "r00t"})),
        }
    }
}

/// Makes a test of each function for each keeper, in modules of their names.
macro_rules! each_keeper {
    ($($promise:ident),+ $(,)?) => {
        mod sealed {
            $(#[tokio::test]
            async fn $promise() {
                super::$promise(super::Keeper::Sealed).await;
            })+
        }
        mod custodia {
            $(#[tokio::test]
            async fn $promise() {
                let custodia = super::Custodia::start().await.unwrap();
                super::$promise(super::Keeper::Custodia(custodia)).await;
            })+
        }
        mod openbao {
            $(#[tokio::test]
            async fn $promise() {
                let bao = super::OpenBao::start().await.unwrap();
                super::$promise(super::Keeper::OpenBao(bao)).await;
            })+
        }
    };
}

each_keeper!(
    secrets_are_saved_got_and_deleted,
    conditions_hold_and_a_list_is_saved_whole_or_not_at_all,
    what_is_not_there_is_told_without_what_is_secret,
);

pub(crate) fn creds(address: &str, key: &str) -> HostCreds {
    HostCreds { address: address.into(), ssh_priv_key: key.to_owned().into(), remote_user: "fedora".into() }
}

#[allow(clippy::needless_pass_by_value, reason = "for `json!` at the place of the call")]
fn on(data: Value) -> Value {
    json!({"model_type_name": "HostCreds", "model_json_data": data})
}

async fn secrets_are_saved_got_and_deleted(keeper: Keeper) {
    let served = served(keeper.configured()).await;
    for address in ["10.0.0.7", "fe80::1%eth0", "a b+c&d?e#f", "ü"] {
        for key in ["c4n4ry", "another"] {
            let creds = creds(address, key);
            assert_eq!(served.storage.save(&creds).await.unwrap(), creds);
            assert_eq!(served.storage.get::<HostCreds>(address).await.unwrap(), creds);
        }
    }
    let both = served.storage.get_many::<HostCreds>(&["ü", "10.0.0.7"]).await.unwrap();
    assert_eq!(both[0].record.address, "ü");
    assert!(both.iter().all(|found| found.revision > 0));
    served.storage.delete::<HostCreds>("10.0.0.7").await.unwrap();
    assert_eq!(served.storage.find::<HostCreds>("10.0.0.7").await.unwrap(), None);
    served.storage.save(&creds("10.0.0.7", "new")).await.unwrap();
    assert_eq!(*served.storage.get::<HostCreds>("10.0.0.7").await.unwrap().ssh_priv_key, "new");
    served.finish().await;
}

async fn conditions_hold_and_a_list_is_saved_whole_or_not_at_all(keeper: Keeper) {
    let served = served(keeper.configured()).await;
    let storage = &served.storage;
    let first = storage.save_guarded(&creds("a", "1"), Guard::revision(0)).await.unwrap();
    let taken = storage.save_guarded(&creds("a", "2"), Guard::revision(0)).await.unwrap_err();
    assert_eq!(taken.remote().unwrap().data.as_ref().unwrap()["revision"], first.revision);
    let second = storage.save_guarded(&creds("a", "2"), Guard::revision(first.revision)).await.unwrap();
    let late = storage.save_guarded(&creds("a", "3"), Guard::revision(first.revision)).await.unwrap_err();
    assert_eq!(late.remote().unwrap().code, RpcError::CONFLICT);
    assert_eq!(storage.get_versioned::<HostCreds>("a").await.unwrap(), second);
    let mut both = on(json!([{"address": "b"}, {"address": "a"}]));
    both["expected_revision"] = json!([0, first.revision]);
    assert_eq!(served.call("storage.save", both).await.unwrap_err().code, RpcError::CONFLICT);
    assert_eq!(storage.find::<HostCreds>("b").await.unwrap(), None);
    served.call("storage.save", on(json!([{"address": "b"}, {"address": "a"}]))).await.unwrap();
    let error =
        served.call("storage.get", on(json!([{"address": "b"}, {"address": "c"}]))).await.unwrap_err();
    assert_eq!(error.code, RpcError::STORAGE_LOOKUP);
    assert_eq!(error.data.unwrap()["model_json_data"][0]["address"], "c");
    served.finish().await;
}

async fn what_is_not_there_is_told_without_what_is_secret(keeper: Keeper) {
    let served = served(keeper.configured()).await;
    let asked = json!([{"address": "a", "ssh_priv_key": "c4n4ry"}, {"address": "b"}]);
    for method in ["storage.get", "storage.delete"] {
        let error = served.call(method, on(asked.clone())).await.unwrap_err();
        assert_eq!(error.code, RpcError::STORAGE_LOOKUP);
        assert!(!format!("{error:?}").contains("c4n4ry"));
        let missing = &error.data.unwrap()["model_json_data"];
        assert_eq!((&missing[0]["address"], &missing[1]["address"]), (&json!("a"), &json!("b")));
    }
    served.finish().await;
}
