//! Secrets at rest and on the way: in no file of anybody.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    path::Path,
    time::Duration,
};

use base64ct::{Base64, Encoding as _};
use commissaire::{Client, testkit::Process};
use commissaire_api::{
    ContainerManagerConfig, HostCreds, StorageClient,
    container::{NodeParams, RegisterNode},
};
use commissaire_integration::{
    Cluster, ClusterKind, Kind, Outcome, Place, Server, Site, Sort, each_server, ensure, until,
};
use serde_json::json;

each_server!(
    a_private_key_is_in_no_file_of_the_broker_the_store_or_the_service,
    a_key_that_hosts_are_logged_in_to_with_is_in_no_file,
    a_token_of_a_container_manager_is_in_no_file
);

/// What must be nowhere, and what must be somewhere, or else the search is at fault.
const SECRET: &str = "c4n4ry-Pr1v4te-Key";
const KNOWN: &str = "c4n4ry-known";

/// The files below `folder` that hold `text`.
pub(crate) fn holding(folder: &Path, text: &str) -> Outcome<Vec<String>> {
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

/// An SSH server of this machine's, with its keys in a folder of their own.
async fn sshd(folder: &Path) -> Outcome<(Process, String)> {
    for name in ["host", "user"] {
        let keygen = std::process::Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(folder.join(name))
            .status()?;
        ensure!(keygen.success(), "ssh-keygen failed");
    }
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let path = |name: &str| folder.join(name).display().to_string();
    let config = format!(
        "ListenAddress {address}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nUsePAM no\nStrictModes no\n\
         PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\n",
        path("host"),
        path("user.pub"),
    );
    fs::write(folder.join("config"), config)?;
    fs::create_dir_all("/run/sshd")?;
    let mut command = Process::command("/usr/sbin/sshd");
    command.args(["-D", "-e", "-f", &path("config")]).stderr(fs::File::create(folder.join("log"))?);
    let process = Process::spawn("sshd", command)?;
    until("sshd listens", Duration::from_secs(10), async || TcpStream::connect(address).is_ok()).await?;
    Ok((process, address.to_string()))
}

async fn a_key_that_hosts_are_logged_in_to_with_is_in_no_file(kind: Kind) -> Outcome {
    let mut site = Site::alone(kind).await?;
    let elsewhere = Place::new()?;
    let (_sshd, address) = sshd(elsewhere.path()).await?;
    let data = site.place.data().display().to_string();
    let services = [
        site.service("storage", &["--data-dir", &data, "-v"]).await?,
        site.service("investigator", &["-v"]).await?,
        site.service("watcher", &["-v"]).await?,
    ];
    let key = elsewhere.path().join("user");
    let host = |arguments: &[&str]| site.order("commissaire").map(|order| order.arg("host").args(arguments));
    let key_file = key.display().to_string();
    let arguments = ["add", &address, "--key", &key_file, "--user", &user(), "--facts-only"];
    let added = host(&arguments)?.run().await?.expect(0)?;
    let mut heard = format!("{added:?}");
    until("it is well", Duration::from_secs(60), async || {
        let Ok(order) = host(&["check", "--json", &address]) else { return false };
        let checked = order.run().await.and_then(|ended| ended.json());
        checked.is_ok_and(|checked| checked["well"] == true && checked["boot_id"] != "")
    })
    .await?;
    for service in services {
        heard.push_str(&format!("{:?}", service.terminate().await?.expect(0)?));
    }
    let text = fs::read_to_string(&key)?;
    let line = text.lines().nth(2).unwrap_or_default();
    // As records have it.
    let packed = Base64::encode_string(text.as_bytes());
    let packed = packed.get(80..160).unwrap_or_default();
    ensure!(line.len() > 30 && packed.len() == 80, "no part of the key is looked for");
    let broker = site.broker.server()?.dir().to_owned();
    for secret in [line, packed] {
        ensure!(!heard.contains(secret), "a service tells the key");
        for folder in [&broker, site.place.path()] {
            let found = holding(folder, secret)?;
            ensure!(found.is_empty(), "the key is in {found:?}");
        }
    }
    ensure!(!holding(&site.place.data(), &address)?.is_empty(), "not even the address is in the store");
    Ok(())
}

async fn a_token_of_a_container_manager_is_in_no_file(kind: Kind) -> Outcome {
    let mut site = Site::alone(kind).await?;
    let cluster = Cluster::start(ClusterKind::Fake).await?;
    let data = site.place.data().display().to_string();
    let services = [
        site.service("storage", &["--data-dir", &data, "-v"]).await?,
        site.service("containermgr", &["-vv"]).await?,
    ];
    let bus = site.join().await?;
    let client = Client::new(bus.clone()).with_timeout(Duration::from_secs(30));
    let ca = cluster.certificates().of("ca");
    let options = json!({"server_url": cluster.url(), "token": Cluster::TOKEN, "certificate_ca_path": ca});
    let config = json!({"name": KNOWN, "type": "kubernetes", "options": options});
    let config: ContainerManagerConfig = serde_json::from_value(config).map_err(std::io::Error::from)?;
    StorageClient::new(client.clone()).save(&config).await?;
    let node =
        NodeParams { container_manager_name: KNOWN.to_owned(), address: "n1".to_owned(), extended: false };
    client.call(RegisterNode, &node).await?;
    ensure!(cluster.get(Sort::Node, "n1").await?.is_some(), "the token was not used");
    bus.close().await?;
    let mut heard = String::new();
    for service in services {
        heard.push_str(&format!("{:?}", service.terminate().await?.expect(0)?));
    }
    ensure!(!heard.contains(Cluster::TOKEN), "a service tells the token");
    let broker = site.broker.server()?.dir().to_owned();
    for folder in [&broker, site.place.path()] {
        let found = holding(folder, Cluster::TOKEN)?;
        ensure!(found.is_empty(), "the token is in {found:?}");
    }
    ensure!(!holding(&site.place.data(), KNOWN)?.is_empty(), "not even the name is in the store");
    Ok(())
}

/// Whoever runs these tests.
fn user() -> String {
    let ended = std::process::Command::new("id").arg("-un").output();
    ended.map(|ended| String::from_utf8_lossy(&ended.stdout).trim().to_owned()).unwrap_or_default()
}
