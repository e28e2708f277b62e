//! Secrets in a real Custodia.

use std::{fs, path::Path, time::Duration};

use commissaire::{
    RpcError,
    testkit::{Failure, Outcome, Process, until},
};
use commissaire_api::{HostCreds, client::Guard};
use commissaire_storage::StorageConfig;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

use crate::common::{Kept, Place, Served, dir, members};

/// A Custodia of one's own, which keeps secrets in a file.
struct Custodia {
    dir: TempDir,
    process: Option<Process>,
}

impl Custodia {
    async fn start() -> Outcome<Self> {
        let mut custodia = Self { dir: dir(), process: None };
        custodia.restart().await?;
        Ok(custodia)
    }

    fn socket(&self) -> std::path::PathBuf {
        self.dir.path().join("custodia.sock")
    }

    async fn restart(&mut self) -> Outcome {
        let exe = std::env::current_exe()?;
        let tools = exe.ancestors().nth(3).map(|target| target.join("tools/custodia"));
        let tools = tools.filter(|tools| tools.join("custodia").is_dir()).ok_or_else(|| {
            Failure::new(
                "there is no Custodia: integration/run.sh fetches it into the folder of what is built",
            )
        })?;
        self.kill();
        let path = |name: &str| self.dir.path().join(name).display().to_string();
        let config = format!(
            "[global]\nserver_socket = {}\nauditlog = {}\n\
             [auth:header]\nhandler = custodia.httpd.authenticators.SimpleHeaderAuth\nheader = REMOTE_USER\n\
             value = commissaire\n\
             [authz:paths]\nhandler = custodia.httpd.authorizers.SimplePathAuthz\npaths = /. /secrets\n\
             [store:sqlite]\nhandler = custodia.store.sqlite.SqliteStore\ndburi = {}\ntable = secrets\n\
             [/]\nhandler = custodia.root.Root\n[/secrets]\nhandler = custodia.secrets.Secrets\nstore = sqlite\n",
            path("custodia.sock"),
            path("audit.log"),
            path("secrets.db"),
        );
        fs::write(self.dir.path().join("custodia.conf"), config)?;
        let mut command = Process::command("python3");
        command.args(["-m", "custodia.server"]).arg(self.dir.path().join("custodia.conf"));
        command.env("PYTHONPATH", tools).current_dir(self.dir.path());
        let log = fs::File::create(self.dir.path().join("log"))?;
        command.stdout(log.try_clone()?).stderr(log);
        self.process = Some(Process::spawn("custodia", command)?);
        let socket = self.socket();
        until("Custodia answers", Duration::from_secs(30), async || {
            UnixStream::connect(&socket).await.is_ok()
        })
        .await
    }

    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
        let _ = fs::remove_file(self.socket());
    }

    /// What it answers, the first line and the body.
    async fn ask(&self, request: &str, body: &str) -> (String, String) {
        let mut stream = UnixStream::connect(self.socket()).await.unwrap();
        let head = format!(
            "{request} HTTP/1.0\r\nREMOTE_USER: commissaire\r\nContent-Type: application/octet-stream\r\n\
             Accept: application/octet-stream\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.lines().next().unwrap().to_owned(), body.to_owned())
    }
}

async fn served(socket: &Path) -> Served {
    let kept = Kept::new(Place::Embedded).await;
    let config = StorageConfig { members: members(json!({"custodia_socket_path": socket})), ..kept.config() };
    Served::with(config, kept).await
}

fn creds(address: &str, key: &str) -> HostCreds {
    HostCreds { address: address.into(), ssh_priv_key: key.to_owned().into(), remote_user: "fedora".into() }
}

#[allow(clippy::needless_pass_by_value, reason = "for `json!` at the place of the call")]
fn on(data: Value) -> Value {
    json!({"model_type_name": "HostCreds", "model_json_data": data})
}

#[tokio::test]
async fn secrets_are_where_the_first_commissaire_had_them_and_nowhere_else() {
    let custodia = Custodia::start().await.unwrap();
    let served = served(&custodia.socket()).await;
    let handlers = served.call("storage.list_store_handlers", json!([])).await.unwrap();
    assert_eq!(handlers[1]["handler_type"], "CustodiaStoreHandler");
    assert_eq!(handlers[1]["model_types"], json!(["HostCreds"]));
    for address in ["10.0.0.7", "fe80::1%eth0", "a b+c&d?e#f"] {
        for key in ["c4n4ry", "another"] {
            let creds = creds(address, key);
            assert_eq!(served.storage.save(&creds).await.unwrap(), creds);
            assert_eq!(served.storage.get::<HostCreds>(address).await.unwrap(), creds);
        }
    }
    let (status, body) = custodia.ask("GET /secrets/hosts/10.0.0.7", "").await;
    assert!(status.contains("200"), "{status}");
    let read: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(read, json!({"address": "10.0.0.7", "ssh_priv_key": "another", "remote_user": "fedora"}));
    let (_, pending) = custodia.ask("GET /secrets/hosts-pending/", "").await;
    assert_eq!(pending, "[]", "nothing is left behind");
    served.storage.delete::<HostCreds>("10.0.0.7").await.unwrap();
    assert_eq!(served.storage.find::<HostCreds>("10.0.0.7").await.unwrap(), None);
    let missing = served.storage.delete::<HostCreds>("10.0.0.7").await.unwrap_err();
    assert_eq!(missing.remote().unwrap().code, RpcError::STORAGE_LOOKUP);
    let kept = served.finish().await;
    for file in fs::read_dir(kept.dir.path()).unwrap().flatten() {
        let bytes = fs::read(file.path()).unwrap();
        assert!(!bytes.windows(6).any(|part| part == b"c4n4ry"), "{file:?}");
    }
}

#[tokio::test]
async fn conditions_hold_and_a_list_is_saved_whole_or_not_at_all() {
    let custodia = Custodia::start().await.unwrap();
    let served = served(&custodia.socket()).await;
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

#[tokio::test]
async fn a_secret_that_was_being_replaced_at_a_crash_is_there() {
    let custodia = Custodia::start().await.unwrap();
    let served = served(&custodia.socket()).await;
    served.storage.save(&creds("a", "old")).await.unwrap();
    served.storage.save(&creds("a", "older")).await.unwrap();
    // What a service leaves that dies between deleting the old and putting the new.
    let new = r#"{"address": "a", "ssh_priv_key": "new", "remote_user": "x"}"#;
    assert!(custodia.ask("PUT /secrets/hosts-pending/a", new).await.0.contains("201"));
    assert_eq!(*served.storage.get::<HostCreds>("a").await.unwrap().ssh_priv_key, "older");
    assert!(custodia.ask("DELETE /secrets/hosts/a", "").await.0.contains("204"));
    assert_eq!(*served.storage.get::<HostCreds>("a").await.unwrap().ssh_priv_key, "new");
    served.storage.save(&creds("a", "newer")).await.unwrap();
    assert_eq!(*served.storage.get::<HostCreds>("a").await.unwrap().ssh_priv_key, "newer");
    assert_eq!(custodia.ask("GET /secrets/hosts-pending/", "").await.1, "[]");
    // Deleting leaves nothing that could come back.
    assert!(custodia.ask("PUT /secrets/hosts-pending/a", new).await.0.contains("201"));
    served.storage.delete::<HostCreds>("a").await.unwrap();
    assert_eq!(served.storage.find::<HostCreds>("a").await.unwrap(), None);
    served.finish().await;
}

#[tokio::test]
async fn readers_never_miss_a_secret_that_is_being_replaced() {
    let custodia = Custodia::start().await.unwrap();
    // Two services with one Custodia, so that no lock of one keeps the other away.
    let (writing, reading) = (served(&custodia.socket()).await, served(&custodia.socket()).await);
    writing.storage.save(&creds("a", "0")).await.unwrap();
    let storage = reading.storage.clone();
    let reader = tokio::spawn(async move {
        for _ in 0..150 {
            storage.get::<HostCreds>("a").await?;
        }
        Outcome::Ok(())
    });
    let mut written = 0;
    while !reader.is_finished() {
        written += 1;
        writing.storage.save(&creds("a", &written.to_string())).await.unwrap();
    }
    reader.await.unwrap().unwrap();
    assert!(written > 0);
    writing.finish().await;
    reading.finish().await;
}

#[tokio::test]
async fn a_custodia_that_is_away_is_told_and_used_again_when_it_is_back() {
    let mut custodia = Custodia::start().await.unwrap();
    let served = served(&custodia.socket()).await;
    served.storage.save(&creds("a", "c4n4ry")).await.unwrap();
    custodia.kill();
    let away = served.storage.save(&creds("a", "c4n4ry2")).await.unwrap_err();
    let away = away.remote().unwrap();
    assert_eq!(away.code, RpcError::UNAVAILABLE);
    assert!(away.message.contains("Custodia does not answer, nothing was changed"), "{}", away.message);
    custodia.restart().await.unwrap();
    assert_eq!(served.storage.get::<HostCreds>("a").await.unwrap(), creds("a", "c4n4ry"));
    served.finish().await;
}
