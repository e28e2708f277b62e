//! What is of OpenBao alone.

use std::time::Duration;

use commissaire::{RpcError, testkit::Outcome};
use commissaire_api::HostCreds;
use serde_json::json;
use tokio::time::sleep;

use crate::{
    keepers::{OpenBao, served},
    kept_secrets::creds,
};

#[tokio::test]
async fn secrets_are_members_of_a_secret_and_versions_are_kept_until_it_is_deleted() -> Outcome {
    let bao = OpenBao::start().await?;
    let served = served(bao.handler(json!({"token": "r00t"}))).await;
    let handlers = served.call("storage.list_store_handlers", json!([])).await.unwrap();
    assert_eq!(handlers[1]["handler_type"], "OpenBaoSecretHandler");
    assert!(!handlers.to_string().contains("r00t"));
    for key in ["c4n4ry", "another"] {
        served.storage.save(&creds("10.0.0.7", key)).await?;
    }
    let read = bao.run(&["kv", "get", "-mount=secret", "commissaire/hosts/10.0.0.7"])?;
    let wanted = json!({"address": "10.0.0.7", "ssh_priv_key": "another", "remote_user": "fedora"});
    assert_eq!(read["data"]["data"], wanted);
    assert_eq!(read["data"]["metadata"]["version"], 2);
    // What others write is read; what they delete for a while can be saved again.
    bao.run(&[
        "kv",
        "put",
        "-mount=secret",
        "commissaire/hosts/10.0.0.8",
        "address=10.0.0.8",
        "ssh_priv_key=x",
    ])?;
    assert_eq!(*served.storage.get::<HostCreds>("10.0.0.8").await?.ssh_priv_key, "x");
    bao.run(&["kv", "delete", "-mount=secret", "commissaire/hosts/10.0.0.7"])?;
    assert_eq!(served.storage.find::<HostCreds>("10.0.0.7").await?, None);
    served.storage.save(&creds("10.0.0.7", "again")).await?;
    assert_eq!(*served.storage.get::<HostCreds>("10.0.0.7").await?.ssh_priv_key, "again");
    served.storage.delete::<HostCreds>("10.0.0.7").await?;
    assert!(bao.run(&["kv", "metadata", "get", "-mount=secret", "commissaire/hosts/10.0.0.7"]).is_err());
    served.finish().await;
    Ok(())
}

#[tokio::test]
async fn a_role_logs_in_again_when_its_token_is_over_and_does_no_more_than_it_may() -> Outcome {
    let bao = OpenBao::start().await?;
    let policy = r#"path "secret/data/commissaire/*" { capabilities = ["create", "read", "update"] }
        path "secret/metadata/commissaire/*" { capabilities = ["read", "list"] }"#;
    let policy = bao.file("policy.hcl", policy)?;
    bao.run(&["policy", "write", "storage", &policy])?;
    bao.run(&["auth", "enable", "approle"])?;
    bao.run(&[
        "write",
        "auth/approle/role/storage",
        "token_policies=storage",
        "token_ttl=3s",
        "token_max_ttl=3s",
    ])?;
    let role = bao.run(&["read", "auth/approle/role/storage/role-id"])?["data"]["role_id"].clone();
    let secret =
        bao.run(&["write", "-f", "auth/approle/role/storage/secret-id"])?["data"]["secret_id"].clone();
    let secret = bao.file("secret-id", &format!("{}\n", secret.as_str().unwrap()))?;
    let served = served(bao.handler(json!({"role_id": role, "secret_id_path": secret}))).await;
    served.storage.save(&creds("a", "c4n4ry")).await?;
    sleep(Duration::from_millis(3_500)).await;
    assert_eq!(*served.storage.get::<HostCreds>("a").await?.ssh_priv_key, "c4n4ry");
    let refused = served.storage.delete::<HostCreds>("a").await.unwrap_err();
    let refused = refused.remote().unwrap();
    assert_eq!(refused.code, RpcError::UNAVAILABLE);
    assert!(
        refused.message.contains("OpenBao refuses the storage service, nothing was changed"),
        "{}",
        refused.message
    );
    served.finish().await;
    Ok(())
}

#[tokio::test]
async fn an_openbao_that_is_silent_or_of_another_authority_is_told() -> Outcome {
    let bao = OpenBao::start().await?;
    let stranger = json!({"secret_handler": {"type": "openbao", "server_url": bao.url(), "token": "r00t"}});
    let stranger = served(stranger).await;
    let served = served(bao.handler(json!({"token": "r00t"}))).await;
    let refused = stranger.storage.save(&creds("a", "c4n4ry")).await.unwrap_err();
    assert!(refused.to_string().contains("OpenBao does not answer, nothing was changed"), "{refused}");
    bao.stop()?;
    let silent = served.storage.find::<HostCreds>("a").await.unwrap_err();
    assert_eq!(silent.remote().unwrap().code, RpcError::UNAVAILABLE);
    bao.cont()?;
    served.storage.save(&creds("a", "c4n4ry")).await?;
    served.finish().await;
    stranger.finish().await;
    Ok(())
}
