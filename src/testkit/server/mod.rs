//! Real servers: one a test, on a port and in a folder of its own, gone when the test is over.

mod etcd;
mod nats;
mod rabbitmq;
mod redis;

use std::{
    collections::BTreeSet,
    fmt, fs, io,
    net::{Ipv4Addr, TcpListener},
    path::Path,
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use futures_util::future::BoxFuture;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

use super::{
    process::{Process, on_path},
    wait::{Failure, Outcome, until},
};

/// A server of one's own. Killed when dropped.
///
/// ```no_run
/// # async fn example() -> Result<(), commissaire::testkit::Failure> {
/// use commissaire::testkit::Server;
/// let mut server = Server::redis(&[("appendonly", "yes"), ("appendfsync", "always")]).await?;
/// println!("bus_uri = {}", server.uri());
/// server.kill();
/// server.restart().await?;
/// # Ok(()) }
/// ```
pub struct Server {
    program: &'static Program,
    settings: Vec<(String, String)>,
    under: Vec<String>,
    dir: TempDir,
    port: u16,
    process: Option<Process>,
    _beside: Option<Process>,
}

/// What is to be known of a server program: one constant a program.
struct Program {
    name: &'static str,
    scheme: &'static str,
    /// How long it may take to start, and to end when it is asked to.
    patience: Duration,
    /// Starts another program that it needs, which runs as long as the server is in use.
    beside: Option<fn(dir: &Path) -> Outcome<Process>>,
    /// Writes the files that it needs into `dir` and gives the command that starts it in the foreground.
    command: fn(dir: &Path, port: u16, settings: &[(String, String)]) -> Outcome<Command>,
    /// Whether it answers on a new connection.
    answers: fn(TcpStream) -> BoxFuture<'static, io::Result<bool>>,
}

impl Server {
    /// A redis-server with these settings (`("appendonly", "yes")`), without snapshots unless they say so, and `users`,
    /// the text of its ACL file.
    pub async fn redis(settings: &[(&str, &str)]) -> Outcome<Self> {
        Self::start(&redis::PROGRAM, settings).await
    }

    /// A nats-server with JetStream and these settings: lines of its configuration file (`("max_payload", "2MB")`).
    pub async fn nats(settings: &[(&str, &str)]) -> Outcome<Self> {
        Self::start(&nats::PROGRAM, settings).await
    }

    /// A RabbitMQ node of its own with these settings: lines of its configuration file (`("heartbeat", "10")`), and
    /// `plugins`, their names, and `definitions`, the text of what it loads at its first start. Takes 5 to 15 s to start.
    pub async fn rabbitmq(settings: &[(&str, &str)]) -> Outcome<Self> {
        Self::start(&rabbitmq::PROGRAM, settings).await
    }

    /// An etcd with these settings, by the names of its options (`("cert-file", "/path/server.pem")`).
    pub async fn etcd(settings: &[(&str, &str)]) -> Outcome<Self> {
        Self::start(&etcd::PROGRAM, settings).await
    }

    async fn start(program: &'static Program, settings: &[(&str, &str)]) -> Outcome<Self> {
        let settings =
            settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let mut builder = tempfile::Builder::new();
        builder.prefix(program.name);
        let dir = match std::env::var_os("COMMISSAIRE_TEST_DIR") {
            Some(parent) => builder.tempdir_in(parent)?,
            None => builder.tempdir()?,
        };
        let beside = program.beside.map(|start| start(dir.path())).transpose()?;
        let mut server =
            Self { program, settings, under: Vec::new(), dir, port: 0, process: None, _beside: beside };
        let mut tries = 0;
        loop {
            server.port = free_port()?;
            tries += 1;
            match server.restart().await {
                Ok(()) => return Ok(server),
                // Another process may have taken the free port first.
                Err(_) if tries < 4 && server.process.as_mut().is_some_and(Process::has_ended) => {}
                Err(failure) => return Err(failure),
            }
        }
    }

    /// Lets another program start it from now on, one that becomes the server itself, so that signals reach it:
    /// `["nsenter", "--mount=…"]`. None with no words.
    pub fn under(&mut self, words: &[&str]) {
        self.under = words.iter().map(|word| (*word).to_owned()).collect();
    }

    /// Starts it again on the same port and folder; kills it first if it still runs.
    pub async fn restart(&mut self) -> Outcome {
        self.kill();
        self.process = Some(Process::spawn(self.program.name, self.command()?)?);
        self.ready().await
    }

    /// Ends it at once, as by `kill -9`: nothing that it still had to write is written.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// Stops it in the middle of whatever it does (SIGSTOP): connections stay open and nothing answers.
    pub fn stop(&self) -> Outcome {
        self.running()?.stop()
    }

    /// Lets it go on after [`stop`](Self::stop).
    pub fn cont(&self) -> Outcome {
        self.running()?.cont()
    }

    /// Asks it to end (SIGTERM) and waits until it has.
    pub async fn terminate(&mut self) -> Outcome {
        match self.process.take() {
            Some(mut process) => process.terminate(self.program.patience).await.map(drop),
            None => Ok(()),
        }
    }

    /// Where it listens, as a `bus_uri`, or as the URL of an etcd without TLS.
    pub fn uri(&self) -> String {
        format!("{}://{}:{}", self.program.scheme, Ipv4Addr::LOCALHOST, self.port)
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The folder of its data and its log.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Its process, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::pid)
    }

    fn running(&self) -> Outcome<&Process> {
        self.process.as_ref().ok_or_else(|| Failure::new(format!("{self:?} does not run")))
    }

    fn command(&self) -> Outcome<Command> {
        let name = self.program.name;
        if !on_path(name) {
            return Err(Failure::new(format!(
                "{name} is not installed: integration/run.sh installs what the tests start"
            )));
        }
        let log = fs::File::options().create(true).append(true).open(self.dir.path().join("log"))?;
        let mut command = (self.program.command)(self.dir.path(), self.port, &self.settings)?;
        if let Some((first, words)) = self.under.split_first() {
            let mut outer = Command::new(first);
            outer.args(words).arg(command.get_program()).args(command.get_args());
            outer.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
            command = outer;
        }
        command.current_dir(self.dir.path()).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        Ok(command)
    }

    async fn ready(&mut self) -> Outcome {
        let (port, program) = (self.port, self.program);
        let mut ended = false;
        let waited = until("the server answers", program.patience, async || {
            ended = self.process.as_mut().is_none_or(Process::has_ended);
            ended || answers(port, program).await
        })
        .await;
        if waited.is_ok() && !ended {
            return Ok(());
        }
        let log = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        let tail: Vec<&str> = log.lines().rev().take(5).collect();
        Err(Failure::new(format!("{self:?} did not start; its log, last line first: {tail:?}")))
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on port {}", self.program.name, self.port)
    }
}

async fn answers(port: u16, program: &Program) -> bool {
    let asked = async {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        (program.answers)(stream).await
    };
    matches!(tokio::time::timeout(Duration::from_secs(1), asked).await, Ok(Ok(true)))
}

/// The first line that `stream` gives after `say`.
async fn first_line(mut stream: TcpStream, say: &str) -> io::Result<String> {
    stream.write_all(say.as_bytes()).await?;
    let mut reply = String::new();
    BufReader::new(stream).read_line(&mut reply).await?;
    Ok(reply)
}

/// A port on which nobody listens, and that this process has given to nobody before: a server takes a while to listen, and
/// its neighbour would be taken for it.
fn free_port() -> Outcome<u16> {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    loop {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        if GIVEN.lock().unwrap_or_else(PoisonError::into_inner).insert(port) {
            return Ok(port);
        }
    }
}
