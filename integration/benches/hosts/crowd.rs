//! Very many hosts in one process: each an address of the loopback on which SSH is spoken, and some that say nothing.

use std::{
    io::{BufRead, BufReader, Write},
    net::Ipv4Addr,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use base64ct::{Base64, Encoding as _};
use commissaire_integration::{Failure, Outcome, Place};
use russh::{
    Channel, ChannelId,
    keys::{Algorithm, PrivateKey},
    server::{self, Auth, Msg, Session, VerifiedPublicKey},
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};

/// Every so many hosts one says nothing.
const SILENT: usize = 20;
/// Connections of one look follow each other sooner than this.
const ONE_LOOK: Duration = Duration::from_secs(1);
/// What a host answers to a full look.
const ANSWER: &str = "11111111-2222-3333-4444-555555555555\ndisk / 40\n";

/// The address of a host.
pub(crate) fn address(at: usize) -> String {
    let [_, b, c, d] = u32::try_from(at).unwrap_or_default().to_be_bytes();
    Ipv4Addr::new(127, 77 + b, c, d).to_string()
}

fn is_silent(at: usize) -> bool {
    at % SILENT == SILENT - 1
}

/// What the hosts have seen.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Seen {
    /// How many hosts that are well were looked at.
    pub(crate) hosts: usize,
    /// How many there are that say nothing.
    pub(crate) silent: usize,
    /// How often hosts that are well were looked at.
    pub(crate) looks: usize,
    /// How often somebody logged in.
    pub(crate) logins: usize,
    /// The seconds between two looks at a host that is well.
    pub(crate) gaps: Vec<f64>,
    /// The longest time in which such a host was not looked at, be it at the begin or at the end.
    pub(crate) longest: f64,
}

/// The process of the hosts.
pub(crate) struct Crowd {
    pub(crate) count: usize,
    pub(crate) port: u16,
    key: String,
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Crowd {
    pub(crate) fn start(count: usize) -> Outcome<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["serve", &count.to_string()]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (orders, answers) = pipes.ok_or_else(|| Failure::new("there is no way to the hosts"))?;
        let place = Place::new()?;
        let file = place.path().join("key");
        let made =
            Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&file).status()?;
        if !made.success() {
            return Err(Failure::new("ssh-keygen failed"));
        }
        let key = Base64::encode_string(&std::fs::read(&file)?);
        let mut crowd = Self { count, port: 0, key, child, orders, answers: BufReader::new(answers) };
        crowd.port = crowd.answer()?;
        Ok(crowd)
    }

    /// A private key that all of them take, as records have it.
    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    /// What was seen since the last time.
    pub(crate) fn seen(&mut self) -> Outcome<Seen> {
        self.orders.write_all(b"seen\n")?;
        self.answer()
    }

    fn answer<T: serde::de::DeserializeOwned>(&mut self) -> Outcome<T> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        serde_json::from_str(&line).map_err(|_| Failure::new(format!("the hosts say {line:?}")))
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Who came when.
struct Visits {
    began: Instant,
    /// By host.
    at: Vec<Vec<Instant>>,
    logins: usize,
}

impl Visits {
    fn new(count: usize) -> Self {
        Self { began: Instant::now(), at: vec![Vec::new(); count], logins: 0 }
    }

    fn seen(&self) -> Seen {
        let now = Instant::now();
        let mut seen = Seen { logins: self.logins, ..Seen::default() };
        for (at, visits) in self.at.iter().enumerate() {
            if is_silent(at) {
                seen.silent += 1;
                continue;
            }
            seen.hosts += usize::from(!visits.is_empty());
            let mut last = self.began;
            for (number, visit) in visits.iter().enumerate() {
                let gap = visit.duration_since(last);
                if number > 0 && gap < ONE_LOOK {
                    continue;
                }
                seen.looks += 1;
                if number > 0 {
                    seen.gaps.push(gap.as_secs_f64());
                }
                seen.longest = seen.longest.max(gap.as_secs_f64());
                last = *visit;
            }
            seen.longest = seen.longest.max(now.duration_since(last).as_secs_f64());
        }
        seen
    }
}

/// Is the hosts, until nobody wants them any more.
pub(crate) async fn serve(count: usize) -> Outcome {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).map_err(std::io::Error::from)?;
    let key = PrivateKey::random(&mut rand::rng(), Algorithm::Ed25519)
        .map_err(|e| Failure::new(format!("no host key: {e}")))?;
    let config = Arc::new(server::Config {
        keys: vec![key],
        auth_rejection_time: Duration::ZERO,
        inactivity_timeout: Some(Duration::from_secs(60)),
        nodelay: true,
        ..server::Config::default()
    });
    let visits = Arc::new(Mutex::new(Visits::new(count)));
    let mut port = 0;
    for at in 0..count {
        let listener = TcpListener::bind((address(at), port)).await;
        let listener = listener.map_err(|e| Failure::new(format!("host {at} cannot listen: {e}")))?;
        port = listener.local_addr()?.port();
        let (config, visits) = (config.clone(), visits.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                visits.lock().unwrap_or_else(PoisonError::into_inner).at[at].push(Instant::now());
                tokio::spawn(visit(at, stream, config.clone(), visits.clone()));
            }
        });
    }
    println!("{port}");
    let orders = tokio::task::spawn_blocking(move || {
        for _ in std::io::stdin().lines() {
            let mut visits = visits.lock().unwrap_or_else(PoisonError::into_inner);
            let seen = std::mem::replace(&mut *visits, Visits::new(count));
            drop(visits);
            println!("{}", serde_json::to_string(&seen.seen()).unwrap_or_default());
        }
    });
    orders.await.map_err(|e| Failure::new(e.to_string()))
}

async fn visit(at: usize, stream: TcpStream, config: Arc<server::Config>, visits: Arc<Mutex<Visits>>) {
    if is_silent(at) {
        // Whoever waits for a word gives up at some time.
        let mut byte = [0];
        while stream.readable().await.is_ok() && !matches!(stream.try_read(&mut byte), Ok(0)) {}
        return;
    }
    // Whoever only knocks leaves in the middle.
    if let Ok(session) = server::run_stream(config, stream, Guest { visits }).await {
        let _ = session.await;
    }
}

/// One who is logged in.
struct Guest {
    visits: Arc<Mutex<Visits>>,
}

impl server::Handler for Guest {
    type Error = russh::Error;

    async fn auth_publickey(&mut self, _: &str, _: VerifiedPublicKey<'_>) -> Result<Auth, Self::Error> {
        self.visits.lock().unwrap_or_else(PoisonError::into_inner).logins += 1;
        Ok(Auth::Accept)
    }

    async fn channel_open_session(
        &mut self,
        _: Channel<Msg>,
        reply: server::ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        reply.accept().await;
        Ok(())
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        _: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_success(channel)
    }

    async fn channel_eof(&mut self, channel: ChannelId, session: &mut Session) -> Result<(), Self::Error> {
        session.data(channel, ANSWER)?;
        session.exit_status_request(channel, 0)?;
        session.eof(channel)?;
        session.close(channel)
    }
}
