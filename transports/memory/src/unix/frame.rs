//! Frames: what both ends of the socket say to each other.
//!
//! A frame is the length of the rest (u32, little-endian), the length of the head (u16), the head as JSON, and a tail
//! of bytes: an [envelope](commissaire::envelope), or nothing.

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use commissaire::{
    Begun, Error, ErrorKind, Inbox, Key, MAX_RECEIVED, Origin, Pattern, Result, Source, Token, What,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The version of these frames: both ends must speak the same.
pub(crate) const VERSION: u32 = 2;
/// The most bytes of a frame: a message, its address and the head.
const MAX_FRAME: usize = MAX_RECEIVED + (64 << 10);

/// What a client says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Ask {
    /// First of all.
    Hello { version: u32, exchange: String },
    /// The tail is the message. Answered with `Done` or `Failed`.
    Publish { n: u64 },
    /// Answered with `Done` or `Failed`. Whoever reads a durable subscription last says after how long without a
    /// reader it may be removed.
    Subscribe { n: u64, subscription: u64, source: WireSource, prefetch: u16, expiry_ms: u64 },
    /// Answered with `Done` or `Failed`. The tail is the message of a retry, a dead letter or what is brought back.
    Settle { n: u64, delivery: u64, verdict: Verdict },
    /// Not answered.
    Release { delivery: u64 },
    /// Take no more for this subscription; answered with `End` after what was taken already.
    Close { subscription: u64 },
    /// Answered with `Done`, its tail a survey as JSON, or `Failed`.
    Survey { n: u64 },
    /// Answered with `Done`, its tail `true` or `false`, or `Failed`.
    Remove { n: u64, name: String, idle_ms: Option<u64> },
    /// Answered with `Done`, its tail a [`WireBegun`] as JSON, or `Failed`. The place is dead letters of it.
    Begin { n: u64, place: What, id: String, holder: String, lease_ms: u64 },
    /// Answered with `Done` or `Failed`.
    Finish { n: u64, place: What, id: String, holder: String, done_ms: Option<u64> },
}

/// What the server says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Say {
    Welcome {
        version: u32,
    },
    /// The tail is what was asked for, if anything was.
    Done {
        n: u64,
    },
    Failed {
        n: u64,
        kind: String,
        what: String,
    },
    /// The tail is the message.
    Deliver {
        subscription: u64,
        delivery: u64,
        redelivered: u32,
    },
    Gap {
        subscription: u64,
        reason: String,
    },
    End {
        subscription: u64,
    },
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    Ack,
    Retry { after_us: u64 },
    Dead,
    Redrive,
}

/// [`Begun`] as text.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum WireBegun {
    Fresh,
    Running,
    Done,
}

impl From<Begun> for WireBegun {
    fn from(begun: Begun) -> Self {
        match begun {
            Begun::Fresh => Self::Fresh,
            Begun::Running => Self::Running,
            Begun::Done => Self::Done,
        }
    }
}

impl From<WireBegun> for Begun {
    fn from(begun: WireBegun) -> Self {
        match begun {
            WireBegun::Fresh => Self::Fresh,
            WireBegun::Running => Self::Running,
            WireBegun::Done => Self::Done,
        }
    }
}

/// A [`Source`] in plain text.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct WireSource {
    kind: String,
    name: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    patterns: Vec<String>,
}

impl From<&Source> for WireSource {
    fn from(source: &Source) -> Self {
        let texts = |patterns: &[Pattern]| patterns.iter().map(Pattern::to_string).collect();
        let (kind, name, patterns) = match source {
            Source::Service(key) => ("service", key.to_string(), Vec::new()),
            Source::Queue(key) => ("queue", key.to_string(), Vec::new()),
            Source::Control(key) => ("control", key.to_string(), Vec::new()),
            Source::Inbox(inbox) => ("inbox", inbox.to_string(), Vec::new()),
            Source::Topic(patterns) => ("topic", String::new(), texts(patterns)),
            Source::Durable(name, patterns) => ("durable", name.to_string(), texts(patterns)),
            Source::DeadLetters(Origin::Queue(key)) => ("dead_queue", key.to_string(), Vec::new()),
            Source::DeadLetters(Origin::Durable(name)) => ("dead_durable", name.to_string(), Vec::new()),
        };
        Self { kind: kind.to_owned(), name, patterns }
    }
}

impl TryFrom<WireSource> for Source {
    type Error = Error;

    fn try_from(wire: WireSource) -> Result<Self> {
        let patterns = || wire.patterns.iter().map(Pattern::new).collect::<Result<Vec<_>>>();
        Ok(match wire.kind.as_str() {
            "service" => Self::Service(Key::new(&wire.name)?),
            "queue" => Self::Queue(Key::new(&wire.name)?),
            "control" => Self::Control(Key::new(&wire.name)?),
            "inbox" => Self::Inbox(wire.name.parse::<Inbox>()?),
            "topic" => Self::Topic(patterns()?),
            "durable" => Self::Durable(Token::new(&wire.name)?, patterns()?),
            "dead_queue" => Self::DeadLetters(Origin::Queue(Key::new(&wire.name)?)),
            "dead_durable" => Self::DeadLetters(Origin::Durable(Token::new(&wire.name)?)),
            other => return Err(Error::malformed(format!("unknown kind of source {other:?}"))),
        })
    }
}

/// The error that a `Failed` frame tells of.
pub(crate) fn failure(kind: &str, what: String) -> Error {
    Error::new(ErrorKind::from_name(kind).unwrap_or(ErrorKind::Unavailable), what)
}

/// A span of time in whole milliseconds, rounded up.
pub(crate) fn millis(span: std::time::Duration) -> u64 {
    u64::try_from(span.as_micros().div_ceil(1_000)).unwrap_or(u64::MAX)
}

/// The tail of an answer as what it should be.
pub(crate) fn told<T: DeserializeOwned>(tail: &[u8]) -> Result<T> {
    serde_json::from_slice(tail)
        .map_err(|_| Error::malformed("the process that shares the bus gave an answer that cannot be read"))
}

/// One frame as bytes.
pub(crate) fn pack(head: &impl Serialize, tail: &[u8]) -> Bytes {
    let head = serde_json::to_vec(head).unwrap_or_default();
    let mut out = BytesMut::with_capacity(6 + head.len() + tail.len());
    out.extend_from_slice(&((2 + head.len() + tail.len()) as u32).to_le_bytes());
    out.extend_from_slice(&(head.len() as u16).to_le_bytes());
    out.extend_from_slice(&head);
    out.extend_from_slice(tail);
    out.freeze()
}

/// Reads one frame; `None` when the other end has closed between frames.
pub(crate) async fn read<H: DeserializeOwned>(
    stream: &mut (impl AsyncRead + Unpin),
) -> io::Result<Option<(H, Bytes)>> {
    let length = match stream.read_u32_le().await {
        Ok(length) => length as usize,
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(e) => return Err(e),
    };
    let bad = |what: &'static str| io::Error::new(io::ErrorKind::InvalidData, what);
    if !(2..=MAX_FRAME).contains(&length) {
        return Err(bad("a frame of impossible length"));
    }
    let mut frame = vec![0; length];
    stream.read_exact(&mut frame).await?;
    let mut frame = Bytes::from(frame);
    let head_length = usize::from(frame.get_u16_le());
    if head_length > frame.len() {
        return Err(bad("a frame shorter than its head"));
    }
    let head = frame.split_to(head_length);
    let head = serde_json::from_slice(&head).map_err(|_| bad("a frame with an unreadable head"))?;
    Ok(Some((head, frame)))
}

/// Writes frames from `frames` until it ends, many in one go while more are waiting.
pub(crate) async fn write_all(
    stream: impl AsyncWrite + Unpin,
    mut frames: tokio::sync::mpsc::Receiver<Bytes>,
) -> io::Result<()> {
    let mut stream = tokio::io::BufWriter::with_capacity(32 << 10, stream);
    while let Some(frame) = frames.recv().await {
        stream.write_all(&frame).await?;
        while let Ok(frame) = frames.try_recv() {
            stream.write_all(&frame).await?;
        }
        stream.flush().await?;
    }
    stream.shutdown().await
}
