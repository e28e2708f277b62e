//! The engine: from an address to a session.

use std::{fmt, io::Read, os::unix::fs::MetadataExt, path::Path, sync::Arc, time::Duration};

use commissaire::{Error, Result};
use russh::client::Handle;
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};
use zeroize::Zeroizing;

use crate::{
    authenticate::Asking,
    credentials::{Credentials, Way},
    dial::{self, Stream},
    failure::{Failure, FailureKind},
    handshake::{Checker, handshake},
    limits::Limits,
    options::{Jump, SshOptions},
    session::Session,
    trust::{Expected, Trust},
};

/// Logs in to hosts. Cheap to clone.
#[derive(Clone)]
pub struct Ssh(Arc<Engine>);

struct Engine {
    options: SshOptions,
    trust: Trust,
    jumps: Vec<Hop>,
    /// The way over the jump hosts, which all connections share.
    way: Mutex<Option<Arc<Chain>>>,
    sudo_password: Option<Zeroizing<String>>,
    limits: Limits,
}

struct Hop {
    jump: Jump,
    credentials: Credentials,
    expected: Expected,
}

/// The connections to the jump hosts, the last of which reaches the others.
pub(crate) struct Chain(Vec<Handle<Checker>>);

/// Whom to log in to, and how.
#[derive(Debug, Clone)]
pub struct Target {
    /// The host's address, with a port where that is not the usual one.
    pub address: String,
    /// Whom to log in as.
    pub user: String,
    /// With what.
    pub credentials: Credentials,
    /// The host keys that were pinned, as lines of OpenSSH's.
    pub pinned: Vec<String>,
}

impl Ssh {
    /// With these options. Fails when a file that they name cannot be used.
    pub fn new(options: &SshOptions) -> Result<Self> {
        let trust = Trust::new(options)?;
        let password = options.sudo_password_path.as_deref().map(|path| {
            let text = secret(path)?;
            Ok::<_, Error>(Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned()))
        });
        let jumps = options.jump.iter().map(|jump| {
            let credentials = match &jump.key_path {
                Some(path) => {
                    Credentials::of_file(path).map_err(|e| Error::config(format!("ssh.jump: {e}")))?
                }
                None => Credentials(Way::Agent),
            };
            let (host, port) = options.host_and_port(&jump.address);
            let expected = trust.of(&jump.address, host, port, &[]);
            let expected = expected.map_err(|e| Error::config(e.text))?.strictly(jump.host_key.as_deref())?;
            Ok(Hop { jump: jump.clone(), credentials, expected })
        });
        let jumps = jumps.collect::<Result<_>>()?;
        Ok(Self(Arc::new(Engine {
            trust,
            jumps,
            way: Mutex::default(),
            sudo_password: password.transpose()?,
            limits: Limits::new(options.connections, options.connections_per_network),
            options: options.clone(),
        })))
    }

    /// Logs in. Waits for a place first, for as long as that takes.
    pub async fn connect(&self, target: &Target) -> Result<Session, Failure> {
        let engine = &*self.0;
        let (host, port) = engine.options.host_and_port(&target.address);
        let closed = || Failure::new(FailureKind::Lost, "the engine is closing");
        let counted = engine.limits.enter(host).await.ok_or_else(closed)?;
        let expected = engine.trust.of(&target.address, host, port, &target.pinned)?;
        let (stream, way) = engine.reach(host, port).await?;
        let (handle, new_host_key) =
            handshake(engine.options.connect_limit(), stream, &target.address, expected).await?;
        let asking = engine.asking(&target.address, &target.user);
        let handle = asking.with(handle, &target.credentials).await?;
        Ok(Session::new(handle, target.clone(), new_host_key, engine.sudo_password.clone(), counted, way))
    }

    /// Whether SSH is spoken at `address`, without logging in; how long it took to say so. Takes no place.
    pub async fn knock(&self, address: &str) -> Result<Duration, Failure> {
        let engine = &*self.0;
        let began = Instant::now();
        let (host, port) = engine.options.host_and_port(address);
        let (stream, _way) = engine.reach(host, port).await?;
        dial::banner(stream, address, engine.options.connect_limit()).await?;
        Ok(began.elapsed())
    }
}

impl Engine {
    /// A stream to the host, directly or over the jump hosts.
    async fn reach(&self, host: &str, port: u16) -> Result<(Box<dyn Stream>, Option<Arc<Chain>>), Failure> {
        let limit = self.options.connect_limit();
        if self.jumps.is_empty() {
            return Ok((Box::new(dial::connect(host, port, limit).await?), None));
        }
        // One that broke unnoticed is made anew, once.
        let mut way = self.way(None).await?;
        for fresh in [false, true] {
            let Some(last) = way.0.last() else { break };
            match self.through(last, host, port, limit).await {
                Ok(stream) => return Ok((stream, Some(way))),
                Err(failure) if fresh || !last.is_closed() => return Err(failure),
                Err(_) => way = self.way(Some(&way)).await?,
            }
        }
        Err(Failure::new(FailureKind::Unreachable, format!("there is no way to {host}")))
    }

    async fn through(
        &self,
        last: &Handle<Checker>,
        host: &str,
        port: u16,
        limit: Duration,
    ) -> Result<Box<dyn Stream>, Failure> {
        let jump = self.jumps.last().map_or("", |hop| &hop.jump.address);
        let opened = timeout(limit, last.channel_open_direct_tcpip(host, port.into(), "127.0.0.1", 0)).await;
        match opened {
            Ok(Ok(channel)) => Ok(Box::new(channel.into_stream())),
            Ok(Err(error)) => {
                let text = format!("{host}:{port} cannot be reached through {jump} ({error})");
                Err(Failure::new(FailureKind::Unreachable, text))
            }
            Err(_) => {
                let text = format!("{host}:{port} did not answer through {jump} within {limit:?}");
                Err(Failure::new(FailureKind::TimedOut, text))
            }
        }
    }

    /// The way over the jump hosts; another than `broken`.
    async fn way(&self, broken: Option<&Arc<Chain>>) -> Result<Arc<Chain>, Failure> {
        let mut way = self.way.lock().await;
        if let Some(way) = &*way
            && broken.is_none_or(|broken| !Arc::ptr_eq(broken, way))
            && way.0.iter().all(|handle| !handle.is_closed())
        {
            return Ok(way.clone());
        }
        let limit = self.options.connect_limit();
        let mut chain: Vec<Handle<Checker>> = Vec::new();
        for hop in &self.jumps {
            let address = &hop.jump.address;
            let of_jump = |failure: Failure| {
                Failure::new(failure.kind, format!("on the way, at jump host {address}: {failure}"))
            };
            let (host, port) = self.options.host_and_port(address);
            let stream: Box<dyn Stream> = match chain.last() {
                None => Box::new(dial::connect(host, port, limit).await.map_err(of_jump)?),
                Some(last) => self.through(last, host, port, limit).await.map_err(of_jump)?,
            };
            let (handle, _) =
                handshake(limit, stream, address, hop.expected.clone()).await.map_err(of_jump)?;
            let handle = self.asking(address, &hop.jump.user).with(handle, &hop.credentials).await;
            chain.push(handle.map_err(of_jump)?);
        }
        let chain = Arc::new(Chain(chain));
        *way = Some(chain.clone());
        Ok(chain)
    }

    fn asking<'a>(&'a self, address: &'a str, user: &'a str) -> Asking<'a> {
        let limit = self.options.authenticate_limit();
        Asking { address, user, agent: self.options.agent.as_deref(), limit }
    }
}

/// What a file holds that only its owner can read.
fn secret(path: &Path) -> Result<Zeroizing<String>> {
    let shown = path.display();
    let unread =
        |e: std::io::Error| Error::config(format!("ssh.sudo_password_path {shown} cannot be read: {e}"));
    let mut file = std::fs::File::open(path).map_err(unread)?;
    let mode = file.metadata().map_err(unread)?.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(Error::config(format!(
            "ssh.sudo_password_path {shown} has mode {mode:04o}, so that others can read it: chmod 0600"
        )));
    }
    let mut text = Zeroizing::new(String::new());
    file.read_to_string(&mut text).map_err(unread)?;
    Ok(text)
}

impl fmt::Debug for Ssh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ssh").field("options", &self.0.options).finish_non_exhaustive()
    }
}
