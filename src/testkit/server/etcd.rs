//! etcd. Not a broker: where configurations and records may be kept.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Process, Program, free_port};

pub(super) const PROGRAM: Program = Program {
    name: "etcd",
    scheme: "http",
    patience: std::time::Duration::from_secs(30),
    beside: None,
    command: |dir, port, settings| {
        let scheme = if settings.iter().any(|(name, _)| name == "cert-file") { "https" } else { "http" };
        let clients = format!("{scheme}://127.0.0.1:{port}");
        let peers = format!("http://127.0.0.1:{}", free_port()?);
        let mut command = Process::command("etcd");
        command.arg("--data-dir").arg(dir.join("data")).args(["--name", "one", "--log-level", "warn"]);
        for (name, value) in [
            ("listen-client-urls", &clients),
            ("advertise-client-urls", &clients),
            ("listen-peer-urls", &peers),
            ("initial-advertise-peer-urls", &peers),
            ("initial-cluster", &format!("one={peers}")),
        ] {
            command.arg(format!("--{name}={value}"));
        }
        command.args(settings.iter().map(|(name, value)| format!("--{name}={value}")));
        Ok(command)
    },
    answers: |mut stream| {
        Box::pin(async move {
            stream.write_all(b"GET /health HTTP/1.0\r\n\r\n").await?;
            let mut answer = [0; 12];
            // One that wants TLS has no word of HTTP for this; one that has no leader yet says 503.
            let spoken = stream.read_exact(&mut answer).await.is_ok() && answer.starts_with(b"HTTP");
            Ok(!spoken || answer.ends_with(b" 200"))
        })
    },
};
