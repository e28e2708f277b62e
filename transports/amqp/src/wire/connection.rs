//! A connection to the broker: frames in, frames out, and the channels between.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::{Notify, watch},
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    channel::{Channel, Ears, Inner},
    dial::{Reading, Writing},
    fault::Fault,
    handshake::Terms,
    method::{self, Heard},
    value::Malformed,
};

/// Once in so long something is said, so that the broker knows that we live.
const BEAT: Duration = Duration::from_secs(3);
/// A broker that says nothing for this long is taken for dead: it beats as often.
const DEAF: Duration = Duration::from_secs(12);
/// The most that the broker is waited for at the end.
const GOOD_BYE: Duration = Duration::from_secs(2);
const END: u8 = 0xce;

/// A connection that is up, or was. Cheap to clone; it ends when [`cut`](Self::cut) or [closed](Self::close).
#[derive(Clone)]
pub(crate) struct Connection(Arc<Shared>);

/// What channels know of their connection.
pub(super) struct Shared {
    out: Mutex<Out>,
    wake: Notify,
    channels: Mutex<HashMap<u16, Arc<Inner>>>,
    terms: Terms,
    down: CancellationToken,
    why: Mutex<Option<String>>,
    blocked: watch::Sender<Option<String>>,
}

/// What is to be written.
#[derive(Default)]
struct Out {
    bytes: Vec<u8>,
    /// Channels with something to settle.
    settling: Vec<Arc<Inner>>,
    over: bool,
}

/// One frame.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) channel: u16,
    pub(super) payload: Bytes,
}

impl Connection {
    /// Takes over what the handshake has prepared.
    pub(super) fn start(reading: Reading, writing: Writing, rest: BytesMut, terms: Terms) -> Self {
        let shared = Arc::new(Shared {
            out: Mutex::default(),
            wake: Notify::new(),
            channels: Mutex::default(),
            terms,
            down: CancellationToken::new(),
            why: Mutex::default(),
            blocked: watch::Sender::new(None),
        });
        tokio::spawn(write(shared.clone(), writing));
        tokio::spawn(read(shared.clone(), reading, rest));
        Self(shared)
    }

    /// Opens a channel whose deliveries go to `ears`.
    pub(crate) async fn channel(&self, ears: Arc<dyn Ears>) -> Result<Channel, Fault> {
        Channel::open(&self.0, ears).await
    }

    /// Closes every channel and says farewell; all that was said before is known to the broker when this returns, or it
    /// is an error.
    pub(crate) async fn close(&self) -> Result<(), Fault> {
        let channels: Vec<_> = self.0.channels().values().cloned().collect();
        let closing: Vec<_> = channels.iter().map(Inner::close).collect();
        let mut closed = Ok(());
        for channel in closing {
            closed = closed.and(channel.await);
        }
        if self.0.say(0, &method::close()).is_ok() {
            // If it does not answer it is cut off.
            let _ = timeout(GOOD_BYE, self.0.down.cancelled()).await;
        }
        self.cut("closed");
        closed
    }

    /// Gives it up; whoever waits on it is told.
    pub(crate) fn cut(&self, why: &str) {
        self.0.end(why);
    }

    /// Is cancelled when it is down.
    pub(crate) fn down(&self) -> &CancellationToken {
        &self.0.down
    }

    pub(crate) fn is_down(&self) -> bool {
        self.0.down.is_cancelled()
    }

    /// Why it went down.
    pub(crate) fn why(&self) -> String {
        let why = self.0.why.lock().unwrap_or_else(PoisonError::into_inner);
        why.clone().unwrap_or_else(|| "the connection to rabbitmq broke".to_owned())
    }

    /// Why the broker takes no messages for the time being, if it does not.
    pub(crate) fn blocked(&self) -> watch::Receiver<Option<String>> {
        self.0.blocked.subscribe()
    }

    /// Product and version of the broker.
    pub(crate) fn broker(&self) -> &str {
        &self.0.terms.broker
    }

    /// Whether both are the same.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Shared {
    /// Makes a channel of the lowest free number.
    pub(super) fn enter(&self, make: impl FnOnce(u16) -> Arc<Inner>) -> Result<Arc<Inner>, Fault> {
        let mut channels = self.channels();
        if self.down.is_cancelled() {
            return Err(Fault::NotSent);
        }
        let free = (1..=self.terms.channels).find(|id| !channels.contains_key(id));
        let id = free.ok_or_else(|| Fault::Refused {
            code: 504,
            text: format!("all {} channels of the connection are in use (channel_max)", self.terms.channels),
        })?;
        let channel = make(id);
        channels.insert(id, channel.clone());
        Ok(channel)
    }

    /// That number is free again.
    pub(super) fn left(&self, id: u16) {
        self.channels().remove(&id);
    }

    /// Says a method.
    pub(super) fn say(&self, channel: u16, method: &[u8]) -> Result<(), Fault> {
        self.write(|out| frame(out, 1, channel, method))
    }

    /// Says a method and the content that belongs to it.
    pub(super) fn say_content(
        &self,
        channel: u16,
        method: &[u8],
        header: &[u8],
        body: &[u8],
    ) -> Result<(), Fault> {
        self.write(|out| {
            out.reserve(method.len() + header.len() + body.len() + 32);
            frame(out, 1, channel, method);
            frame(out, 2, channel, header);
            for part in body.chunks(self.terms.frame - 8) {
                frame(out, 3, channel, part);
            }
        })
    }

    /// The writer will ask this channel what it has settled.
    pub(super) fn settle_soon(&self, channel: Arc<Inner>) {
        self.out().settling.push(channel);
        self.wake.notify_one();
    }

    fn write(&self, write: impl FnOnce(&mut Vec<u8>)) -> Result<(), Fault> {
        let mut out = self.out();
        if out.over {
            return Err(Fault::NotSent);
        }
        write(&mut out.bytes);
        drop(out);
        self.wake.notify_one();
        Ok(())
    }

    /// What is to be written, in exchange for an empty buffer; and whether nothing comes after it.
    fn take(&self, spare: Vec<u8>) -> (Vec<u8>, bool) {
        let mut out = self.out();
        (std::mem::replace(&mut out.bytes, spare), out.over)
    }

    fn end(&self, why: &str) {
        self.why.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| why.to_owned());
        let mut out = self.out();
        out.over = true;
        out.bytes = Vec::new();
        let settling = std::mem::take(&mut out.settling);
        drop(out);
        drop(settling);
        self.down.cancel();
        let channels = std::mem::take(&mut *self.channels());
        for channel in channels.into_values() {
            channel.lose(&Fault::Lost);
        }
    }

    fn hear(&self, frame: Frame) -> Result<(), Malformed> {
        if frame.kind == 8 {
            return Ok(());
        }
        if frame.channel != 0 {
            let channel = self.channels().get(&frame.channel).cloned();
            // Of a channel that is closed nothing more is wanted.
            return channel.map_or(Ok(()), |channel| channel.hear(frame));
        }
        match method::read(frame.payload)? {
            Heard::Close { code, text } => {
                // The answer is all that may still be said.
                let _ = self.say(0, &method::close_ok());
                self.end(&format!("rabbitmq closed the connection: {code} {text}"));
            }
            Heard::CloseOk => self.end("closed"),
            Heard::Blocked { why } => drop(self.blocked.send_replace(Some(why))),
            Heard::Unblocked => drop(self.blocked.send_replace(None)),
            _ => return Err(Malformed),
        }
        Ok(())
    }

    fn out(&self) -> MutexGuard<'_, Out> {
        self.out.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn channels(&self) -> MutexGuard<'_, HashMap<u16, Arc<Inner>>> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Appends one frame.
pub(super) fn frame(out: &mut Vec<u8>, kind: u8, channel: u16, payload: &[u8]) {
    out.push(kind);
    out.extend(channel.to_be_bytes());
    out.extend((payload.len() as u32).to_be_bytes());
    out.extend_from_slice(payload);
    out.push(END);
}

/// Takes one frame off `from`, if all of it is there.
pub(super) fn next_frame(from: &mut BytesMut, most: usize) -> Result<Option<Frame>, Malformed> {
    if from.len() < 7 {
        return Ok(None);
    }
    let size = u32::from_be_bytes([from[3], from[4], from[5], from[6]]) as usize;
    if size + 8 > most {
        return Err(Malformed);
    }
    if from.len() < size + 8 {
        from.reserve(size + 8 - from.len());
        return Ok(None);
    }
    let (kind, channel) = (from[0], u16::from_be_bytes([from[1], from[2]]));
    from.advance(7);
    let payload = from.split_to(size).freeze();
    if from.get_u8() != END {
        return Err(Malformed);
    }
    Ok(Some(Frame { kind, channel, payload }))
}

async fn read(shared: Arc<Shared>, mut reading: Reading, mut from: BytesMut) {
    let why = loop {
        match next_frame(&mut from, shared.terms.frame) {
            Ok(Some(frame)) => {
                if shared.hear(frame).is_err() {
                    break "what came is not AMQP 0-9-1";
                }
                continue;
            }
            Ok(None) => {}
            Err(Malformed) => break "what came is not AMQP 0-9-1",
        }
        from.reserve(16 * 1024);
        let read = tokio::select! {
            read = timeout(DEAF, reading.read_buf(&mut from)) => read,
            () = shared.down.cancelled() => break "closed",
        };
        match read {
            Ok(Ok(1..)) => {}
            Ok(_) => break "the connection to rabbitmq broke",
            Err(_) => break "rabbitmq was silent for too long",
        }
    };
    shared.end(why);
}

async fn write(shared: Arc<Shared>, mut writing: Writing) {
    let (mut spare, mut later): (Vec<u8>, Vec<(Instant, Arc<Inner>)>) = Default::default();
    let mut spoke = Instant::now();
    loop {
        let mut settling = std::mem::take(&mut shared.out().settling);
        let now = Instant::now();
        settling.extend(later.extract_if(.., |(when, _)| *when <= now).map(|(_, channel)| channel));
        for channel in settling {
            if let Some(when) = channel.settle() {
                later.push((when, channel));
            }
        }
        if spoke.elapsed() >= BEAT {
            let _ = shared.write(|out| frame(out, 8, 0, &[]));
        }
        let (bytes, over) = shared.take(std::mem::take(&mut spare));
        if bytes.is_empty() {
            spare = bytes;
            if over {
                break;
            }
            let next = later.iter().map(|(when, _)| *when).fold(spoke + BEAT, Instant::min);
            tokio::select! {
                () = shared.wake.notified() => {}
                () = sleep_until(next) => {}
                () = shared.down.cancelled() => {}
            }
            continue;
        }
        let written = tokio::select! {
            written = async { writing.write_all(&bytes).await?; writing.flush().await } => written.is_ok(),
            () = shared.down.cancelled() => false,
        };
        if !written {
            break;
        }
        spoke = Instant::now();
        spare = bytes;
        spare.clear();
        if spare.capacity() > 1 << 20 {
            spare = Vec::new();
        }
    }
    // The answer to a farewell, if there is room for it.
    let _ = timeout(Duration::from_millis(200), async {
        let mut farewell = Vec::new();
        frame(&mut farewell, 1, 0, &method::close_ok());
        writing.write_all(&farewell).await?;
        writing.shutdown().await
    })
    .await;
    shared.end("the connection to rabbitmq broke");
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "connection to {}", self.0.terms.broker)
    }
}
