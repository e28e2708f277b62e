//! A TCP proxy that does to connections what networks do.

use std::{
    fmt, io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, watch},
    time::{Instant, sleep, sleep_until},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::wait::{Failure, Outcome};

/// The way of bytes through a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From who dialled to the server.
    In,
    /// From the server to who dialled.
    Out,
}

/// What happens to bytes on one way. The default lets them pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// With RST, as by a firewall that forgot it: what was under way is lost.
    Reset,
    /// With FIN on both ends, as by a proxy that restarts.
    Finish,
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
    /// Cut when it changes, or once as many bytes have passed.
    open: Mutex<Vec<Line>>,
    refusing: watch::Sender<bool>,
    dialled: AtomicU64,
    connected: AtomicUsize,
    passed: AtomicU64,
}

/// One open connection, to cut it.
struct Line {
    cut: watch::Sender<Option<Cut>>,
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
        let mut open = self.shared.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|line| !line.end.is_cancelled());
        for line in open.iter() {
            line.cut.send_replace(Some(how));
        }
        std::mem::take(&mut *open).len()
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
    shared.open.lock().unwrap_or_else(PoisonError::into_inner).push(Line { cut, end });
    let server = TcpStream::connect(shared.server).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let seed = shared.seed.wrapping_add(number.wrapping_mul(2));
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let how = {
        let inward = pump(&mut from_client, &mut to_server, shared, Way::In, seed);
        let outward = pump(&mut from_server, &mut to_client, shared, Way::Out, seed + 1);
        tokio::select! {
            ended = async { tokio::try_join!(inward, outward) } => match ended {
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

/// Bytes on their way, and when they may arrive.
type Chunk = (Instant, Vec<u8>);

/// Moves bytes on one way until the sender has finished.
async fn pump(
    from: &mut OwnedReadHalf,
    to: &mut OwnedWriteHalf,
    shared: &Shared,
    way: Way,
    seed: u64,
) -> io::Result<()> {
    // Bounded, as the buffers of a network are: who sends faster than that waits.
    let (taken, given) = mpsc::channel(64);
    tokio::try_join!(take(from, taken, shared.way(way).subscribe(), seed), give(to, given, shared, way))?;
    Ok(())
}

async fn take(
    from: &mut OwnedReadHalf,
    taken: mpsc::Sender<Chunk>,
    mut traffic: watch::Receiver<Traffic>,
    seed: u64,
) -> io::Result<()> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut buffer = vec![0; 16 << 10];
    loop {
        let now = *traffic.borrow_and_update();
        if now.stalled {
            // The sender of the watch lives as long as the proxy.
            let _ = traffic.changed().await;
            continue;
        }
        let most = now.slice.unwrap_or(buffer.len()).clamp(1, buffer.len());
        let most = now.rate.map_or(most, |rate| most.min((rate as usize / 10).max(1)));
        let read = tokio::select! {
            _ = traffic.changed() => continue,
            read = from.read(&mut buffer[..most]) => read?,
        };
        if read == 0 {
            return Ok(());
        }
        let mut bytes = buffer[..read].to_vec();
        if let Some(mean) = now.flip {
            for byte in &mut bytes {
                if random.random_range(0..mean.max(1)) == 0 {
                    *byte ^= 1 << random.random_range(0..8_u8);
                }
            }
        }
        if taken.send((Instant::now() + now.delay, bytes)).await.is_err() {
            return Ok(());
        }
    }
}

async fn give(
    to: &mut OwnedWriteHalf,
    mut given: mpsc::Receiver<Chunk>,
    shared: &Shared,
    way: Way,
) -> io::Result<()> {
    let mut traffic = shared.way(way).subscribe();
    while let Some((due, bytes)) = given.recv().await {
        sleep_until(due).await;
        // What was read before a stall waits for its end.
        while traffic.borrow_and_update().stalled {
            let _ = traffic.changed().await;
        }
        to.write_all(&bytes).await?;
        shared.passed.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        let rate = traffic.borrow().rate;
        if let Some(rate) = rate {
            sleep(Duration::from_secs_f64(bytes.len() as f64 / f64::from(rate.max(1)))).await;
        }
    }
    to.shutdown().await
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "proxy on port {} to {}", self.port, self.shared.server)
    }
}
