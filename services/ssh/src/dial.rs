//! To a host's port: names, addresses, time limits, and whether SSH is spoken there.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    net::{TcpStream, lookup_host},
    time::{Instant, timeout, timeout_at},
};

use crate::failure::{Failure, FailureKind};

/// The most bytes before a banner, which may have other lines before it: RFC 4253, section 4.2.
const BEFORE_BANNER: usize = 8192;

/// Two ways, to be spoken on.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// A stream with what was read of it already in front.
pub(crate) struct Rewound {
    seen: Vec<u8>,
    given: usize,
    stream: Box<dyn Stream>,
}

/// A connection to `host`, within `limit` in all.
pub(crate) async fn connect(host: &str, port: u16, limit: Duration) -> Result<TcpStream, Failure> {
    let deadline = Instant::now() + limit;
    let unknown =
        |why: String| Failure::new(FailureKind::Name, format!("the name {host} cannot be resolved: {why}"));
    let found = timeout_at(deadline, lookup_host((host, port))).await;
    let found = found.map_err(|_| unknown(format!("no answer within {limit:?}")))?;
    let addresses: Vec<SocketAddr> = found.map_err(|e| unknown(e.to_string()))?.collect();
    let mut last = unknown("it has no address".to_owned());
    for (at, address) in addresses.iter().enumerate() {
        // The first addresses leave time for the others.
        let share = deadline.saturating_duration_since(Instant::now()) / (addresses.len() - at) as u32;
        match timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Ok(Err(error)) => last = failed(address, &error),
            Err(_) => {
                let text = format!("{address} did not answer within {share:.1?}");
                last = Failure::new(FailureKind::TimedOut, text);
            }
        }
    }
    Err(last)
}

fn failed(address: &SocketAddr, error: &io::Error) -> Failure {
    let (kind, what) = match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            (FailureKind::Refused, "refuses the connection: is sshd running?")
        }
        io::ErrorKind::TimedOut => (FailureKind::TimedOut, "did not answer"),
        io::ErrorKind::ConnectionReset => (FailureKind::Lost, "reset the connection"),
        _ => (FailureKind::Unreachable, "cannot be reached"),
    };
    Failure::new(kind, format!("{address} {what} ({error})"))
}

/// Waits for the banner that every SSH server sends first, and puts it back.
pub(crate) async fn banner(
    mut stream: Box<dyn Stream>,
    address: &str,
    limit: Duration,
) -> Result<Rewound, Failure> {
    let mut seen = Vec::with_capacity(256);
    let no_banner = |what: String| {
        Failure::new(FailureKind::NoBanner, format!("{address} takes connections, and {what}"))
    };
    let read = async {
        loop {
            if seen.split_inclusive(|byte| *byte == b'\n').any(is_banner) {
                return Ok(());
            }
            if seen.len() > BEFORE_BANNER {
                return Err("does not speak SSH".to_owned());
            }
            match stream.read_buf(&mut seen).await {
                Ok(0) if seen.is_empty() => return Err("closes them at once".to_owned()),
                Ok(0) => return Err("does not speak SSH".to_owned()),
                Ok(_) => {}
                Err(error) => return Err(format!("breaks them ({error})")),
            }
        }
    };
    let read = timeout(limit, read).await;
    read.unwrap_or_else(|_| Err(format!("says nothing for {limit:?}: it hangs, or it is no SSH server")))
        .map_err(no_banner)?;
    Ok(Rewound { seen, given: 0, stream })
}

fn is_banner(line: &[u8]) -> bool {
    line.starts_with(b"SSH-") && line.ends_with(b"\n")
}

impl AsyncRead for Rewound {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.given < this.seen.len() {
            let some = &this.seen[this.given..];
            let count = some.len().min(buffer.remaining());
            buffer.put_slice(&some[..count]);
            this.given += count;
            return Poll::Ready(Ok(()));
        }
        ready!(Pin::new(&mut *this.stream).poll_read(context, buffer))?;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Rewound {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream).poll_shutdown(context)
    }
}
