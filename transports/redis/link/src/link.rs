//! Dialling, and a connection that is made again whenever it breaks.

use std::{fmt, sync::Arc, time::Duration};

use commissaire::{Error, ErrorKind, Result};
use redis::{AsyncConnectionConfig, Client, Cmd, ConnectionAddr, PushInfo, PushKind, Value};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

use crate::{
    lines::Lines,
    script::Scripts,
    wire::{Fault, Wire, no_error},
};

/// A server that says nothing for this long is taken for dead.
pub const DEAF: Duration = Duration::from_secs(10);
/// The most that one dial may take.
const DIAL: Duration = Duration::from_secs(3);
/// The least time between two dials of one connection.
const PACE: Duration = Duration::from_secs(1);
/// After how long the server's time is asked for again: two clocks drift apart by some ms meanwhile.
const CLOCK: Duration = Duration::from_secs(60);
/// After how long a server that is silent is asked whether it lives.
const PING: Duration = Duration::from_secs(3);
/// How often it is looked whether it is silent.
const LOOK: Duration = Duration::from_secs(1);

/// Makes connections.
#[derive(Clone)]
pub struct Dialer {
    client: Client,
    place: Arc<str>,
    name: Arc<str>,
    lines: Arc<Lines>,
    scripts: &'static [&'static str],
    /// The scheme that would be TLS.
    secure: &'static str,
}

/// When the next dial may be.
#[derive(Debug, Default)]
pub struct Pace(Option<Instant>);

/// The one connection for all that does not block. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Link(watch::Receiver<Option<Wire>>);

/// What happens with a connection that a [`Link`] keeps.
#[async_trait::async_trait]
pub trait Tenant: Send + Sync + 'static {
    /// Takes what the server says unasked.
    fn heard(&self, push: PushInfo);
    /// A connection was made; nobody else uses it before this returns.
    async fn up(&self, wire: &Wire) -> Result<(), Fault>;
    /// The connection is gone.
    fn down(&self);
}

/// A tenant with no wishes.
#[derive(Debug)]
pub struct Plain;

impl Dialer {
    /// To the server of `client`, which is at `place`. `name` is what to be called there; `scripts` are loaded into every
    /// connection; `secure` is the scheme that would be TLS.
    pub fn new(
        client: Client,
        place: &str,
        name: &str,
        lines: Arc<Lines>,
        scripts: &'static [&'static str],
        secure: &'static str,
    ) -> Self {
        Self { client, place: place.into(), name: client_name(name).into(), lines, scripts, secure }
    }

    /// One try, bounded in time. `heard` takes what the server says unasked.
    pub async fn dial(&self, heard: impl Fn(PushInfo) + Send + Sync + 'static) -> Result<Wire> {
        let failed = |why: &str| Error::unavailable(format!("connecting to {}: {why}", self.place));
        match timeout(DIAL, self.connect(heard)).await {
            Ok(wire) => wire,
            Err(_) => Err(failed(&format!("no answer within 3 s: check {} the server runs", self.doubt()))),
        }
    }

    async fn connect(&self, heard: impl Fn(PushInfo) + Send + Sync + 'static) -> Result<Wire> {
        let down = CancellationToken::new();
        let gone = down.clone();
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(DIAL))
            .set_response_timeout(None)
            .set_pipeline_buffer_size(512)
            .set_write_backpressure_boundary(64 * 1024)
            .set_push_sender(move |push: PushInfo| -> std::result::Result<(), ()> {
                match push.kind {
                    PushKind::Disconnection => gone.cancel(),
                    _ => heard(push),
                }
                Ok(())
            });
        let mut connection = self
            .client
            .get_multiplexed_async_connection_with_config(&config)
            .await
            .map_err(|error| self.refused(&error))?;
        let mut naming = redis::cmd("CLIENT");
        naming.arg("SETNAME").arg(&*self.name);
        // A user may lack the right to be named.
        let _ = connection.send_packed_command(&naming).await.map_err(|error| self.refused(&error))?;
        let loading = Scripts::new(self.scripts).loading();
        let answers = connection
            .send_packed_commands(&loading, 0, loading.len())
            .await
            .map_err(|error| self.refused(&error))?;
        let digests: Result<Vec<_>, _> = answers.into_iter().map(no_error).collect();
        let digests =
            digests.map_err(|fault| fault.into_error(&format!("loading scripts into {}", self.place)))?;
        Ok(Wire::new(connection, down, Scripts::loaded(self.scripts, digests)))
    }

    /// The library's error as ours. Its text is left out where it might hold what a user wrote.
    fn refused(&self, error: &redis::RedisError) -> Error {
        let place = &self.place;
        let code = error.code().unwrap_or_default();
        let said = error.detail().unwrap_or_default();
        if error.kind() == redis::ErrorKind::AuthenticationFailed
            || ["WRONGPASS", "NOAUTH", "NOPERM"].contains(&code)
        {
            return Error::new(
                ErrorKind::Forbidden,
                format!(
                    "connecting to {place}: the server refused the user or the password of bus_uri, or its ACL forbids a command that the bus needs"
                ),
            );
        }
        if code == "LOADING" {
            return Error::unavailable(format!("connecting to {place}: it is still loading its data"));
        }
        if said.contains("DB index") || said.contains("invalid DB") {
            return Error::config(format!("connecting to {place}: it has no database of that number"));
        }
        let tls = error.to_string();
        for (sign, why) in [
            ("CertificateRequired", "it wants a certificate of ours: give cert_file and key_file"),
            (
                "fatal alert",
                "it refused our TLS, or wants another certificate of ours: see cert_file and key_file",
            ),
            ("UnknownIssuer", "its certificate is of an unknown authority: give ca_file"),
            ("NotValidForName", "its certificate is for another name: write that host into bus_uri"),
            ("not valid for name", "its certificate is for another name: write that host into bus_uri"),
            ("Expired", "its certificate has expired: renew it"),
            ("expired", "its certificate has expired: renew it"),
            ("NotValidYet", "its certificate is not valid yet"),
            ("not valid yet", "its certificate is not valid yet"),
            ("certificate", "its certificate was refused"),
        ] {
            if tls.contains(sign) {
                return Error::new(ErrorKind::Forbidden, format!("connecting to {place}: {why}"));
            }
        }
        let why = if error.is_connection_refusal() {
            "nothing listens there"
        } else if error.is_timeout() {
            "no answer in time"
        } else if error.is_io_error() {
            "the connection could not be made, or was closed at once"
        } else {
            "it did not speak as redis 6 or later does"
        };
        Error::unavailable(format!("connecting to {place}: {why}: check {} the server runs", self.doubt()))
    }

    /// What may be wrong where nothing is known, as the beginning of a list.
    fn doubt(&self) -> String {
        match self.client.get_connection_info().addr() {
            ConnectionAddr::TcpTls { .. } => "bus_uri, that the port is one for TLS, and that".into(),
            ConnectionAddr::Tcp(..) => {
                format!("bus_uri, that the port is none for TLS ({}://), and that", self.secure)
            }
            _ => "bus_uri and that".into(),
        }
    }
}

impl Pace {
    /// Waits until the next dial may be: at most one a second, spread out.
    pub async fn wait(&mut self) {
        if let Some(last) = self.0 {
            sleep_until(last + PACE.mul_f64(1.0 + 0.3 * rand::random::<f64>())).await;
        }
        self.0 = Some(Instant::now());
    }
}

impl Link {
    /// Keeps a connection up, called `line` among those of the bus, beginning with `first` if there is one, until `closing`. It dials only when `after` is up.
    pub fn keep(
        line: &'static str,
        dialer: Dialer,
        tenant: Arc<dyn Tenant>,
        first: Option<Wire>,
        after: Option<Self>,
        closing: CancellationToken,
    ) -> Self {
        let (sender, receiver) = watch::channel(first.clone());
        tokio::spawn(async move {
            let kept = keep_up(line, &dialer, &tenant, first, after, &sender);
            closing.run_until_cancelled(kept).await;
            if let Some(wire) = sender.send_replace(None) {
                wire.cut();
            }
        });
        Self(receiver)
    }

    /// The connection, waited for until `deadline`.
    pub async fn wire(&self, deadline: Instant) -> Option<Wire> {
        if let Some(wire) = self.now() {
            return Some(wire);
        }
        let mut receiver = self.0.clone();
        let up = receiver.wait_for(|wire| wire.as_ref().is_some_and(|wire| !wire.is_down()));
        timeout_at(deadline, up).await.ok()?.ok()?.clone()
    }

    /// The connection, if it is up.
    pub fn now(&self) -> Option<Wire> {
        self.0.borrow().clone().filter(|wire| !wire.is_down())
    }

    /// Asks when connected, and again as long as nothing was sent. `command` makes the command with the digests of the
    /// scripts.
    pub async fn until(
        &self,
        deadline: Instant,
        command: impl Fn(&[String]) -> Cmd + Send + Sync,
    ) -> Result<Value, Fault> {
        loop {
            let Some(wire) = self.wire(deadline).await else { return Err(Fault::NotSent) };
            let left = deadline.saturating_duration_since(Instant::now());
            match wire.ask(&command(wire.digests()), left).await {
                Err(Fault::NotSent) if !left.is_zero() => tokio::task::yield_now().await,
                Err(fault) if fault.passes() && left > Duration::from_millis(100) => {
                    sleep(Duration::from_millis(50)).await;
                }
                answer => return answer,
            }
        }
    }

    /// Whether the connection took the place of a lost one less than `age` ago.
    pub fn is_new_again(&self, age: Duration) -> bool {
        self.now().is_some_and(|wire| wire.is_new_again(age))
    }

    /// The connection, however long it takes; `None` when the bus has closed.
    pub async fn up(&self) -> Option<Wire> {
        let mut receiver = self.0.clone();
        let up = receiver.wait_for(|wire| wire.as_ref().is_some_and(|wire| !wire.is_down())).await;
        up.ok()?.clone()
    }

    /// Waits until the connection is up and the server has just answered on it, however long that takes: only then is
    /// another one worth a dial. `false` when the bus has closed.
    pub async fn answers(&self) -> bool {
        while let Some(wire) = self.up().await {
            match wire.ask(&redis::cmd("PING"), DIAL).await {
                Ok(_) | Err(Fault::Refused { .. }) => return true,
                Err(_) => sleep(Duration::from_millis(20)).await,
            }
        }
        false
    }
}

async fn keep_up(
    line: &'static str,
    dialer: &Dialer,
    tenant: &Arc<dyn Tenant>,
    first: Option<Wire>,
    after: Option<Link>,
    sender: &watch::Sender<Option<Wire>>,
) {
    let mut pace = Pace::default();
    let mut next = first;
    let mut lost = false;
    loop {
        let wire = match next.take() {
            Some(wire) => wire,
            None => {
                pace.wait().await;
                if let Some(after) = &after
                    && !after.answers().await
                {
                    return;
                }
                let ears = tenant.clone();
                match dialer.dial(move |push| ears.heard(push)).await {
                    Ok(wire) => wire,
                    Err(error) => {
                        dialer.lines.lost(line, "redis is out of reach");
                        tracing::debug!(error = %error, "redis is out of reach");
                        continue;
                    }
                }
            }
        };
        if wire.set_clock(DEAF).await.is_err() || tenant.up(&wire).await.is_err() {
            wire.cut();
            dialer.lines.lost(line, "redis does not answer as it should");
            continue;
        }
        let wire = if lost { wire.made_again() } else { wire };
        sender.send_replace(Some(wire.clone()));
        dialer.lines.back(line);
        lost = true;
        watch_over(&wire).await;
        wire.cut();
        sender.send_replace(None);
        tenant.down();
        dialer.lines.lost(line, "a connection to redis broke");
    }
}

/// Returns when `wire` is down, or so silent that it must be: [`PING`] after its last word it is asked whether it lives,
/// and is given [`DEAF`] for the answer.
async fn watch_over(wire: &Wire) {
    let (mut heard, mut since) = (wire.heard(), Instant::now());
    loop {
        tokio::select! {
            () = wire.down() => return,
            () = sleep(LOOK) => {}
        }
        if wire.heard() != heard {
            (heard, since) = (wire.heard(), Instant::now());
        }
        let old = wire.clock_is_older(CLOCK);
        if !old && since.elapsed() < PING {
            continue;
        }
        let answer = match old {
            true => wire.set_clock(DEAF).await,
            false => wire.ask(&redis::cmd("PING"), DEAF).await.map(drop),
        };
        match answer {
            // Slow is not dead: other answers may have come while this one waited its turn.
            Err(Fault::Late) if wire.heard() != heard => {}
            Err(Fault::Late | Fault::Lost | Fault::NotSent) => return,
            Ok(()) | Err(Fault::Refused { .. }) => {}
        }
        (heard, since) = (wire.heard(), Instant::now());
    }
}

#[async_trait::async_trait]
impl Tenant for Plain {
    fn heard(&self, _: PushInfo) {}

    async fn up(&self, _: &Wire) -> Result<(), Fault> {
        Ok(())
    }

    fn down(&self) {}
}

/// What the server takes for a name: no spaces, nothing odd.
fn client_name(name: &str) -> String {
    let name: String = name.chars().map(|c| if c.is_ascii_graphic() { c } else { '_' }).take(64).collect();
    if name.is_empty() { "commissaire".to_owned() } else { name }
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Dialer to {}", self.place)
    }
}
