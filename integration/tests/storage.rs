//! The storage service, as commands see it: records, and what is told of them.

use commissaire_integration::{Kind, Outcome, Process, Site, each_bus, ensure};
use serde_json::{Value, json};

each_bus!(
    a_save_answers_the_full_record,
    what_was_saved_and_deleted_is_announced,
    what_is_secret_is_never_announced,
    records_outlive_the_service,
);

async fn storage(site: &Site) -> Outcome<Process> {
    site.service("storage", &["--data-dir", &site.place.data().display().to_string()]).await
}

/// `storage.METHOD` of one record.
async fn call(site: &Site, method: &str, model: &str, record: Value) -> Outcome<Value> {
    let params = json!({"model_type_name": model, "model_json_data": record}).to_string();
    site.cli(&["call", &format!("storage.{method}"), &params])?.run().await?.expect(0)?.json()
}

async fn a_save_answers_the_full_record(kind: Kind) -> Outcome {
    let site = Site::on(kind).await?;
    let _storage = storage(&site).await?;
    let saved = call(&site, "save", "Cluster", json!({"name": "web", "hostset": ["10.0.0.7"]})).await?;
    let full = json!({
        "name": "web", "status": "", "network": "default", "hostset": ["10.0.0.7"], "container_manager": "",
    });
    ensure!(saved == full, "saved as {saved}");
    let got = call(&site, "get", "Cluster", json!({"name": "web"})).await?;
    ensure!(got == full, "got {got}");
    let listed = site.cli(&["call", "storage.list", r#"["Clusters"]"#])?.run().await?.expect(0)?.json()?;
    ensure!(listed == json!([full]), "listed {listed}");
    let deleted = call(&site, "delete", "Cluster", json!({"name": "web"})).await?;
    ensure!(deleted.is_null(), "deleting gave {deleted}");
    let gone = json!({"model_type_name": "Cluster", "model_json_data": {"name": "web"}}).to_string();
    let error = site.cli(&["call", "storage.get", &gone])?.run().await?.expect(1)?.error()?;
    ensure!(error["code"] == -20000, "after the deletion: {error}");
    Ok(())
}

async fn what_was_saved_and_deleted_is_announced(kind: Kind) -> Outcome {
    let site = Site::on(kind).await?;
    let _storage = storage(&site).await?;
    let pattern = "notify.storage.Cluster.*";
    let mut listen = site.cli(&["listen", pattern, "--count", "3", "--timeout", "30s"])?.start()?;
    listen.logs("listening", |line| line == "listening").await?;
    call(&site, "save", "Cluster", json!({"name": "web", "hostset": ["10.0.0.7"]})).await?;
    call(&site, "save", "Host", json!({"address": "10.0.0.7"})).await?;
    call(&site, "save", "Cluster", json!({"name": "web", "status": "ok"})).await?;
    call(&site, "delete", "Cluster", json!({"name": "web"})).await?;
    let ended = listen.ended().await?.expect(0)?;
    let mut told = Vec::new();
    for line in ended.out.lines() {
        let event: Value = serde_json::from_str(line).map_err(std::io::Error::from)?;
        let body = &event["body"];
        ensure!(body["class"] == "Cluster" && body["model"]["name"] == "web", "announced {event}");
        ensure!(body["model"].get("hostset").is_none(), "a hidden field was announced: {event}");
        ensure!(
            event["key"] == format!("notify.storage.Cluster.{}", body["event"].as_str().unwrap_or("")),
            "{event}"
        );
        told.push((body["event"].clone(), body["model"]["status"].clone()));
    }
    let all = [("created", ""), ("updated", "ok"), ("deleted", "ok")];
    ensure!(told == all.map(|(event, status)| (json!(event), json!(status))), "announced {told:?}");
    Ok(())
}

async fn what_is_secret_is_never_announced(kind: Kind) -> Outcome {
    let site = Site::on(kind).await?;
    let storage = storage(&site).await?;
    let mut listen = site.cli(&["listen", "#", "--count", "1", "--timeout", "30s"])?.start()?;
    listen.logs("listening", |line| line == "listening").await?;
    let key = "c2VjcmV0IGtleQ==";
    let creds = json!({"address": "10.0.0.7", "ssh_priv_key": key});
    call(&site, "save", "HostCreds", creds.clone()).await?;
    call(&site, "save", "HostCreds", creds).await?;
    call(&site, "delete", "HostCreds", json!({"address": "10.0.0.7"})).await?;
    // What is announced after that is the first that is heard.
    call(&site, "save", "Host", json!({"address": "10.0.0.7"})).await?;
    let heard = listen.ended().await?.expect(0)?;
    ensure!(heard.json()?["body"]["class"] == "Host", "heard {}", heard.out);
    let changes = site.cli(&["call", "storage.changes", "[0]"])?.run().await?.expect(0)?;
    ensure!(!changes.out.contains(key), "the change log tells the secret: {}", changes.out);
    let said = storage.terminate().await?.expect(0)?;
    ensure!(!said.err.contains(key) && !said.out.contains(key), "the service said the secret: {said:?}");
    Ok(())
}

async fn records_outlive_the_service(kind: Kind) -> Outcome {
    let site = Site::on(kind).await?;
    let first = storage(&site).await?;
    call(&site, "save", "Host", json!({"address": "10.0.0.7", "cpus": 4})).await?;
    call(&site, "save", "HostCreds", json!({"address": "10.0.0.7", "ssh_priv_key": "a2V5"})).await?;
    first.terminate().await?.expect(0)?;
    let second = storage(&site).await?;
    let host = call(&site, "get", "Host", json!({"address": "10.0.0.7"})).await?;
    ensure!(host["cpus"] == 4, "the host is {host}");
    second.kill().await?;
    let _third = storage(&site).await?;
    let creds = call(&site, "get", "HostCreds", json!({"address": "10.0.0.7"})).await?;
    ensure!(creds["ssh_priv_key"] == "a2V5", "the credentials are {creds}");
    Ok(())
}
