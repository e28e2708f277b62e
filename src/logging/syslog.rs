//! The system's log.

use std::{
    collections::VecDeque,
    io::{self, Write},
    net::{SocketAddr, TcpStream, ToSocketAddrs, UdpSocket},
    os::unix::net::{UnixDatagram, UnixStream},
    sync::mpsc::{Receiver, RecvTimeoutError, sync_channel},
    thread,
    time::{Duration, Instant},
};

/// How long one line may take; a log is not worth more.
const PATIENCE: Duration = Duration::from_millis(250);
/// How long after a failure it is not tried.
const AGAIN: Duration = Duration::from_secs(5);
/// How many lines are kept while a connection is made.
const KEPT: usize = 256;

/// Where a log of the system is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Address {
    Socket(String),
    Host { host: String, port: u16, stream: bool },
}

/// The facilities (RFC 5424, 6.2.1), by the names that Python's `logging` knows.
pub(super) const FACILITIES: [(&str, u8); 24] = [
    ("kern", 0),
    ("user", 1),
    ("mail", 2),
    ("daemon", 3),
    ("auth", 4),
    ("syslog", 5),
    ("lpr", 6),
    ("news", 7),
    ("uucp", 8),
    ("cron", 9),
    ("authpriv", 10),
    ("ftp", 11),
    ("ntp", 12),
    ("security", 13),
    ("console", 14),
    ("solaris-cron", 15),
    ("local0", 16),
    ("local1", 17),
    ("local2", 18),
    ("local3", 19),
    ("local4", 20),
    ("local5", 21),
    ("local6", 22),
    ("local7", 23),
];

/// A connection to it, made when there is something to say.
#[derive(Debug)]
pub(super) struct Syslog {
    address: Address,
    facility: u8,
    peer: Option<Peer>,
    /// A connection that is being made, by a thread of its own: to find a host's address can take long.
    making: Option<Receiver<io::Result<Peer>>>,
    /// What was said meanwhile.
    kept: VecDeque<Vec<u8>>,
    /// When it could not be reached.
    failed: Option<Instant>,
}

#[derive(Debug)]
enum Peer {
    Datagrams(UnixDatagram),
    Stream(UnixStream),
    Udp(UdpSocket),
    Tcp(TcpStream),
}

impl Syslog {
    pub(super) fn new(address: Address, facility: u8) -> Self {
        Self { address, facility, peer: None, making: None, kept: VecDeque::new(), failed: None }
    }

    /// Sends `text`, over a new connection if the one before was lost. For a while after a failure it is not tried: nobody
    /// waits for a log that is not there.
    pub(super) fn write(&mut self, severity: u8, text: &str) -> io::Result<()> {
        // With a zero at its end, as Python sends it: some servers find the end of a message by it.
        let bytes = format!("<{}>{text}\0", (self.facility << 3) | severity).into_bytes();
        if let Some(peer) = &mut self.peer {
            match peer.send(&bytes) {
                Ok(()) => return Ok(()),
                // Too long for one packet: the connection is well.
                Err(error) if error.raw_os_error() == Some(rustix::io::Errno::MSGSIZE.raw_os_error()) => {
                    return Err(error);
                }
                Err(_) => self.peer = None,
            }
        }
        if self.failed.is_some_and(|failed| failed.elapsed() < AGAIN) {
            return Err(io::Error::new(io::ErrorKind::NotConnected, "it could not be reached a moment ago"));
        }
        self.kept.push_back(bytes);
        if self.kept.len() > KEPT {
            self.kept.pop_front();
        }
        let wait = if self.making.is_none() { PATIENCE } else { Duration::ZERO };
        let address = self.address.clone();
        let making = self.making.get_or_insert_with(|| {
            let (made, making) = sync_channel(1);
            // Who no longer waits needs no answer.
            thread::spawn(move || drop(made.send(address.connect())));
            making
        });
        let made = match making.recv_timeout(wait) {
            Err(RecvTimeoutError::Timeout) => return Ok(()),
            Err(RecvTimeoutError::Disconnected) => Err(io::Error::other("connecting panicked")),
            Ok(made) => made,
        };
        self.making = None;
        let kept = std::mem::take(&mut self.kept);
        let sent = made.and_then(|mut peer| {
            kept.iter().try_for_each(|bytes| peer.send(bytes))?;
            Ok(peer)
        });
        self.failed = sent.is_err().then(Instant::now);
        self.peer = Some(sent?);
        Ok(())
    }
}

impl Address {
    fn connect(&self) -> io::Result<Peer> {
        match self {
            Self::Socket(path) => {
                let socket = UnixDatagram::unbound()?;
                if socket.connect(path).is_ok() {
                    socket.set_write_timeout(Some(PATIENCE))?;
                    return Ok(Peer::Datagrams(socket));
                }
                let stream = UnixStream::connect(path)?;
                stream.set_write_timeout(Some(PATIENCE))?;
                Ok(Peer::Stream(stream))
            }
            Self::Host { host, port, stream } => {
                let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
                for address in (host.as_str(), *port).to_socket_addrs()? {
                    match connect(address, *stream) {
                        Ok(peer) => return Ok(peer),
                        Err(error) => last = error,
                    }
                }
                Err(last)
            }
        }
    }
}

fn connect(address: SocketAddr, stream: bool) -> io::Result<Peer> {
    if stream {
        let stream = TcpStream::connect_timeout(&address, AGAIN)?;
        stream.set_write_timeout(Some(PATIENCE))?;
        return Ok(Peer::Tcp(stream));
    }
    let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any)?;
    socket.connect(address)?;
    Ok(Peer::Udp(socket))
}

impl Peer {
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Datagrams(socket) => socket.send(bytes).map(drop),
            Self::Udp(socket) => socket.send(bytes).map(drop),
            Self::Stream(stream) => stream.write_all(bytes),
            Self::Tcp(stream) => stream.write_all(bytes),
        }
    }
}
