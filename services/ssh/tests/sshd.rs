//! A real sshd on the loopback, with keys made by `ssh-keygen`.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use commissaire::testkit::{Process, until};
use commissaire_ssh::{Credentials, Session, Ssh, SshOptions, Target, file_text};
use tempfile::TempDir;

pub(crate) struct Sshd {
    pub(crate) dir: TempDir,
    pub(crate) port: u16,
    process: Option<Process>,
    settings: String,
}

impl Sshd {
    /// One with an Ed25519 key, which takes the key `user` in its folder.
    pub(crate) async fn start() -> Self {
        Self::with("").await
    }

    /// With more lines of its configuration.
    pub(crate) async fn with(settings: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        keygen(&dir.path().join("host"), "ed25519");
        keygen(&dir.path().join("user"), "ed25519");
        fs::copy(dir.path().join("user.pub"), dir.path().join("authorized_keys")).unwrap();
        let mut sshd = Self { dir, port, process: None, settings: settings.to_owned() };
        sshd.restart().await;
        sshd
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) async fn restart(&mut self) {
        self.kill();
        let path = |name: &str| self.path(name).display().to_string();
        // What is said first holds.
        let config = format!(
            "{}\nListenAddress 127.0.0.1:{}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nUsePAM no\nStrictModes no\n\
             PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\n\
             MaxStartups 200\nSubsystem sftp internal-sftp\n",
            self.settings.replace("DIR", &self.dir.path().display().to_string()),
            self.port,
            path("host"),
            path("authorized_keys"),
        );
        fs::write(self.path("sshd_config"), config).unwrap();
        let _ = fs::create_dir_all("/run/sshd");
        let log = fs::File::create(self.path("log")).unwrap();
        let mut command = Process::command("/usr/sbin/sshd");
        command.args(["-D", "-e", "-f"]).arg(self.path("sshd_config")).stderr(log);
        self.process = Some(Process::spawn("sshd", command).unwrap());
        let port = self.port;
        until("sshd answers", Duration::from_secs(10), async || {
            tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok()
        })
        .await
        .unwrap();
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    pub(crate) fn process(&self) -> &Process {
        self.process.as_ref().unwrap()
    }

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(crate) fn target(&self) -> Target {
        Target {
            address: self.address(),
            user: user(),
            credentials: Credentials::of_file(&self.path("user")).unwrap(),
            pinned: Vec::new(),
        }
    }

    pub(crate) async fn session(&self) -> Session {
        Ssh::new(&quick()).unwrap().connect(&self.target()).await.unwrap()
    }
}

/// Whoever runs the tests.
pub(crate) fn user() -> String {
    let output = Command::new("id").arg("-un").output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Options with short limits.
pub(crate) fn quick() -> SshOptions {
    SshOptions { connect_seconds: 3, authenticate_seconds: 5, ..SshOptions::default() }
}

pub(crate) fn keygen(path: &Path, kind: &str) {
    run(&["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", path.to_str().unwrap()]);
}

pub(crate) fn run(words: &[&str]) {
    let output = Command::new(words[0]).args(&words[1..]).output().unwrap();
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A key file as a record holds it.
pub(crate) fn packed(path: &Path) -> String {
    base64ct_encode(file_text(path).unwrap().as_bytes())
}

fn base64ct_encode(bytes: &[u8]) -> String {
    use base64ct::Encoding;
    base64ct::Base64::encode_string(bytes)
}
