//! A TCP proxy that does to connections what networks do.

mod pump;

use std::{
    fmt, io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde::Serialize;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    time::sleep,
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::wait::{Failure, Outcome};
use pump::pump;

/// The way of bytes through a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// From who dialled to the server.
    In,
    /// From the server to who dialled.
    Out,
}

/// What happens to bytes on one way. The default lets them pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Traffic {
    /// Nothing moves, as in a network that lost its route: what was sent arrives when it is lifted. On both ways a
    /// blackhole, on one a half-open connection.
    pub stalled: bool,
    /// How much later everything arrives.
    pub delay: Duration,
    /// How many bytes a second pass.
    pub rate: Option<u32>,
    /// How many bytes are written at one time at most.
    pub slice: Option<usize>,
    /// One bit of each so many bytes on average is turned over.
    pub flip: Option<u32>,
}

/// How a connection is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cut {
    /// With RST, as by a firewall that forgot it: what was under way is lost.
    Reset,
    /// With FIN on both ends, as by a proxy that restarts.
    Finish,
}

/// What happens once to a connection, wherever it is in what it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mishap {
    /// It is cut.
    Cut(Cut),
    /// One bit is turned over.
    Flip,
}

/// A proxy in front of one server on 127.0.0.1. Connections through it end when it is dropped.
///
/// ```no_run
/// # async fn example() -> Result<(), commissaire::testkit::Failure> {
/// use commissaire::testkit::{Cut, Proxy, Server, Traffic};
/// let server = Server::redis(&[]).await?;
/// let proxy = Proxy::to(server.port()).await?;
/// let uri = format!("redis://127.0.0.1:{}", proxy.port());
/// proxy.set(Traffic { stalled: true, ..Traffic::default() }); // a blackhole
/// proxy.cut(Cut::Reset);
/// # Ok(()) }
/// ```
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    _accepting: AbortOnDropHandle<()>,
}

struct Shared {
    server: SocketAddr,
    seed: u64,
    way_in: watch::Sender<Traffic>,
    way_out: watch::Sender<Traffic>,
    open: Mutex<Vec<Arc<Line>>>,
    refusing: watch::Sender<bool>,
    dialled: AtomicU64,
    connected: AtomicUsize,
    passed: AtomicU64,
    met: AtomicU64,
}

/// One open connection, to cut it.
struct Line {
    cut: watch::Sender<Option<Cut>>,
    /// What happens once so many more bytes have passed, both ways together.
    ahead: Mutex<Option<(usize, Mishap)>>,
    end: CancellationToken,
}

impl Proxy {
    /// A proxy to `port` on 127.0.0.1 that lets everything pass.
    pub async fn to(port: u16) -> Outcome<Self> {
        Self::seeded(port, rand::random()).await
    }

    /// The same, with the seed of what is random in it.
    pub async fn seeded(port: u16, seed: u64) -> Outcome<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let own = listener.local_addr()?.port();
        let shared = Arc::new(Shared {
            server: (Ipv4Addr::LOCALHOST, port).into(),
            seed,
            way_in: watch::Sender::new(Traffic::default()),
            way_out: watch::Sender::new(Traffic::default()),
            open: Mutex::default(),
            refusing: watch::Sender::new(false),
            dialled: AtomicU64::new(0),
            connected: AtomicUsize::new(0),
            passed: AtomicU64::new(0),
            met: AtomicU64::new(0),
        });
        let accepting = tokio::spawn(accept(listener, shared.clone()));
        Ok(Self { port: own, shared, _accepting: AbortOnDropHandle::new(accepting) })
    }

    /// The port to dial.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `uri` with the server's port replaced by this proxy's.
    pub fn uri(&self, uri: &str) -> Outcome<String> {
        let server = format!(":{}", self.shared.server.port());
        if !uri.contains(&server) {
            return Err(Failure::new(format!("this proxy does not stand before a server on port {server}")));
        }
        Ok(uri.replacen(&server, &format!(":{}", self.port), 1))
    }

    /// What happens on both ways from now on, on open connections and on new ones.
    pub fn set(&self, traffic: Traffic) {
        self.set_way(Way::In, traffic);
        self.set_way(Way::Out, traffic);
    }

    /// What happens on one way from now on.
    pub fn set_way(&self, way: Way, traffic: Traffic) {
        self.shared.way(way).send_replace(traffic);
    }

    /// Whether new connections are refused (closed with RST as soon as they are there).
    pub fn refuse(&self, refusing: bool) {
        self.shared.refusing.send_replace(refusing);
    }

    /// Cuts all open connections; how many there were.
    pub fn cut(&self, how: Cut) -> usize {
        let mut open = self.shared.lines();
        for line in open.iter() {
            line.cut.send_replace(Some(how));
        }
        std::mem::take(&mut *open).len()
    }

    /// Lets `mishap` happen to each open connection once `bytes` more have passed on it, in the middle of whatever they
    /// say; `None`: nothing that was to happen and did not will. How many connections there are.
    pub fn after(&self, bytes: usize, mishap: Option<Mishap>) -> usize {
        let open = self.shared.lines();
        for line in open.iter() {
            *line.ahead() = mishap.map(|mishap| (bytes, mishap));
        }
        open.len()
    }

    /// How many mishaps have happened.
    pub fn met(&self) -> u64 {
        self.shared.met.load(Ordering::Relaxed)
    }

    /// How many connections were dialled so far.
    pub fn dialled(&self) -> u64 {
        self.shared.dialled.load(Ordering::Relaxed)
    }

    /// How many connections are open.
    pub fn connected(&self) -> usize {
        self.shared.connected.load(Ordering::Relaxed)
    }

    /// How many bytes have passed, both ways together.
    pub fn passed(&self) -> u64 {
        self.shared.passed.load(Ordering::Relaxed)
    }
}

impl Shared {
    fn way(&self, way: Way) -> &watch::Sender<Traffic> {
        match way {
            Way::In => &self.way_in,
            Way::Out => &self.way_out,
        }
    }

    /// The connections that are open.
    fn lines(&self) -> MutexGuard<'_, Vec<Arc<Line>>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|line| !line.end.is_cancelled());
        open
    }

    /// Waits until something can move on both ways: until then neither end learns that the other has gone.
    async fn passable(&self) {
        for way in [Way::In, Way::Out] {
            // The sender of the watch lives as long as the proxy.
            let _ = self.way(way).subscribe().wait_for(|traffic| !traffic.stalled).await;
        }
    }
}

impl Line {
    /// Does to `bytes`, which are about to pass, what is to happen within them: how the connection is to be cut behind
    /// them.
    fn meet(&self, bytes: &mut Vec<u8>, shared: &Shared) -> Option<Cut> {
        let mut ahead = self.ahead();
        let (left, mishap) = (*ahead)?;
        if left >= bytes.len() {
            *ahead = Some((left - bytes.len(), mishap));
            return None;
        }
        *ahead = None;
        shared.met.fetch_add(1, Ordering::Relaxed);
        match mishap {
            Mishap::Cut(how) => {
                bytes.truncate(left);
                Some(how)
            }
            Mishap::Flip => {
                bytes[left] ^= 1 << (left % 8);
                None
            }
        }
    }

    fn ahead(&self) -> MutexGuard<'_, Option<(usize, Mishap)>> {
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    // Dropping the set ends all that is open.
    let mut lines = tokio::task::JoinSet::new();
    loop {
        while lines.try_join_next().is_some() {}
        let Ok((client, _)) = listener.accept().await else {
            sleep(Duration::from_millis(10)).await;
            continue;
        };
        let number = shared.dialled.fetch_add(1, Ordering::Relaxed);
        if *shared.refusing.borrow() {
            // Whatever it says: the connection ends with a reset.
            let _ = client.set_zero_linger();
            continue;
        }
        let shared = shared.clone();
        lines.spawn(async move {
            shared.connected.fetch_add(1, Ordering::Relaxed);
            let end = CancellationToken::new();
            let _ended = end.clone().drop_guard();
            // A connection that cannot be made, or that breaks, is for its ends to notice.
            let _ = serve(client, &shared, number, end).await;
            shared.connected.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

async fn serve(
    client: TcpStream,
    shared: &Arc<Shared>,
    number: u64,
    end: CancellationToken,
) -> io::Result<()> {
    let (cut, mut cuts) = watch::channel(None);
    let line = Arc::new(Line { cut, ahead: Mutex::default(), end });
    shared.lines().push(line.clone());
    let server = TcpStream::connect(shared.server).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let seed = shared.seed.wrapping_add(number.wrapping_mul(2));
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let how = {
        let inward = pump(&mut from_client, &mut to_server, shared, &line, Way::In, seed);
        let outward = pump(&mut from_server, &mut to_client, shared, &line, Way::Out, seed + 1);
        let ended = async {
            let ended = tokio::try_join!(inward, outward);
            shared.passable().await;
            ended
        };
        tokio::select! {
            ended = ended => match ended {
                Ok(_) => Some(Cut::Finish),
                Err(_) => Some(Cut::Reset),
            },
            _ = cuts.changed() => *cuts.borrow(),
        }
    };
    if how == Some(Cut::Reset) {
        // Whole again: half a stream that is dropped says FIN first.
        for (reader, writer) in [(from_client, to_client), (from_server, to_server)] {
            reader.reunite(writer).map_err(io::Error::other)?.set_zero_linger()?;
        }
    }
    Ok(())
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "proxy on port {} to {}", self.port, self.shared.server)
    }
}
