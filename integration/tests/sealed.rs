//! Secrets at rest and on the way: in no file of anybody.

use std::{fs, path::Path, time::Duration};

use commissaire::Client;
use commissaire_api::{HostCreds, StorageClient};
use commissaire_integration::{Kind, Outcome, Server, Site, each_server, ensure};
use serde_json::json;

each_server!(a_private_key_is_in_no_file_of_the_broker_the_store_or_the_service);

/// What must be nowhere, and what must be somewhere, or else the search is at fault.
const SECRET: &str = "c4n4ry-Pr1v4te-Key";
const KNOWN: &str = "c4n4ry-known";

/// The files below `folder` that hold `text`.
fn holding(folder: &Path, text: &str) -> Outcome<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        // Pipes and sockets hold nothing; what is gone by now neither.
        let Ok(about) = fs::symlink_metadata(&path) else { continue };
        if about.is_dir() {
            found.extend(holding(&path, text)?);
        } else if about.is_file()
            && fs::read(&path)
                .is_ok_and(|bytes| bytes.windows(text.len()).any(|part| part == text.as_bytes()))
        {
            found.push(path.display().to_string());
        }
    }
    Ok(found)
}

async fn a_private_key_is_in_no_file_of_the_broker_the_store_or_the_service(kind: Kind) -> Outcome {
    let mut site = Site::alone(kind).await?;
    let etcd = Server::etcd(&[]).await?;
    let file = site.place.path().join("storage.conf");
    let handlers = json!([
        {"type": "etcd", "server_url": etcd.uri(), "models": ["Host"]},
        {"type": "embedded", "models": ["Cluster"]},
    ]);
    fs::write(&file, json!({"storage_handlers": handlers}).to_string())?;
    let data = site.place.data().display().to_string();
    let arguments = ["--config", &file.display().to_string(), "--data-dir", &data, "-v"];
    let service = site.service("storage", &arguments).await?;
    let bus = site.join().await?;
    let storage = StorageClient::new(Client::new(bus.clone()).with_timeout(Duration::from_secs(10)));
    for at in 0..20 {
        let address = format!("{KNOWN}-{at}");
        let creds = HostCreds {
            address: address.clone(),
            ssh_priv_key: format!("{SECRET}-{at}").into(),
            remote_user: "fedora".into(),
        };
        ensure!(storage.save(&creds).await? == creds, "{address} was saved otherwise");
        ensure!(storage.get::<HostCreds>(&address).await? == creds, "{address} is stored otherwise");
    }
    let missing = storage.get::<HostCreds>("nowhere").await;
    ensure!(missing.is_err(), "a secret that is not there was found");
    bus.close().await?;
    let ended = service.terminate().await?.expect(0)?;
    ensure!(!format!("{ended:?}").contains(SECRET), "the log of the service has the key");
    let broker = site.broker.server()?.dir().to_owned();
    for folder in [&broker, etcd.dir(), site.place.path()] {
        let found = holding(folder, SECRET)?;
        ensure!(found.is_empty(), "the key is in {found:?}");
    }
    ensure!(!holding(etcd.dir(), KNOWN)?.is_empty(), "not even the address was found in the files of etcd");
    Ok(())
}
