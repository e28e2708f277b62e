//! One process that has joined, seen from the process that shares the bus.

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use commissaire::{
    Delivery, Error, Ledger, MessageId, Origin, Received, Result, Settlement, Source, Subscription, Token,
    What, envelope,
};
use serde::Serialize;
use tokio::{net::UnixStream, sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    bus::Connection,
    unix::{
        frame::{self, Ask, Say, VERSION, Verdict, WireBegun},
        server::Hubs,
    },
};

/// How long a process may take to say hello.
const HELLO: Duration = Duration::from_secs(5);
/// How long the last frames may take.
const FAREWELL: Duration = Duration::from_secs(1);
/// How many frames wait for a slow process before its subscriptions wait too.
const WAITING_FRAMES: usize = 256;

struct Session {
    connection: Connection,
    frames: mpsc::Sender<Bytes>,
    /// What the process has in hand, by number.
    in_hand: Arc<Mutex<HashMap<u64, Delivery>>>,
    closers: HashMap<u64, CancellationToken>,
    last: Arc<AtomicU64>,
}

/// Serves one process until it leaves or the bus closes.
pub(crate) async fn serve(stream: UnixStream, hubs: Arc<Hubs>, closing: CancellationToken) {
    let (mut reader, writer) = stream.into_split();
    let hello = tokio::select! {
        () = closing.cancelled() => return,
        hello = timeout(HELLO, frame::read::<Ask>(&mut reader)) => hello,
    };
    let Ok(Ok(Some((Ask::Hello { version, exchange }, _)))) = hello else { return };
    let (frames, waiting) = mpsc::channel(WAITING_FRAMES);
    let writing = tokio::spawn(frame::write_all(writer, waiting));
    let _ = frames.send(frame::pack(&Say::Welcome { version: VERSION }, &[])).await;
    if let (VERSION, Ok(exchange)) = (version, Token::new(exchange)) {
        let connection = Connection::new(hubs.get(exchange));
        let mut session = Session {
            connection,
            frames,
            in_hand: Arc::default(),
            closers: HashMap::new(),
            last: Arc::default(),
        };
        let ended = tokio::select! {
            () = closing.cancelled() => Ok(()),
            ended = session.listen(&mut reader) => ended,
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a process left the bus socket in disorder");
        }
        // What it still has in hand comes again, as suspect: it may have died of it.
        session.connection.abort();
        session.lock().clear();
    } else {
        drop(frames);
    }
    // A process that does not read must not keep this one from leaving.
    let abort = writing.abort_handle();
    if timeout(FAREWELL, writing).await.is_err() {
        abort.abort();
    }
}

impl Session {
    async fn listen(&mut self, reader: &mut tokio::net::unix::OwnedReadHalf) -> io::Result<()> {
        while let Some((ask, tail)) = frame::read::<Ask>(reader).await? {
            match ask {
                Ask::Hello { .. } => return Err(io::Error::other("hello twice")),
                Ask::Publish { n } => {
                    let outcome = envelope::decode(tail).and_then(|message| self.connection.publish(message));
                    self.answer(n, outcome).await;
                }
                Ask::Subscribe { n, subscription, source, prefetch, expiry_ms } => {
                    let expiry = Duration::from_millis(expiry_ms);
                    let taken = Source::try_from(source)
                        .and_then(|source| self.connection.subscribe(source, prefetch, expiry));
                    // The answer goes first, so that a gap can be put before all that comes from here.
                    match taken {
                        Err(error) => self.answer::<()>(n, Err(error)).await,
                        Ok(taken) => {
                            self.answer(n, Ok(())).await;
                            self.pump(subscription, taken);
                        }
                    }
                }
                Ask::Settle { n, delivery, verdict } => {
                    let delivery = self.lock().remove(&delivery);
                    let outcome = match delivery {
                        Some(delivery) => settle(delivery, verdict, tail).await,
                        None => Err(Error::invalid("this delivery is not in hand")),
                    };
                    self.answer(n, outcome).await;
                }
                Ask::Release { delivery } => drop(self.lock().remove(&delivery)),
                Ask::Close { subscription } => {
                    if let Some(closer) = self.closers.remove(&subscription) {
                        closer.cancel();
                    }
                }
                Ask::Survey { n } => self.answer(n, self.connection.survey("in another process")).await,
                Ask::Remove { n, name, idle_ms } => {
                    let idle = idle_ms.map(Duration::from_millis);
                    let outcome =
                        Token::new(name).and_then(|name| self.connection.remove_durable(&name, idle));
                    self.answer(n, outcome).await;
                }
                Ask::Begin { n, place, id, holder, lease_ms } => {
                    let outcome = self.begin(&place, &id, &holder, Duration::from_millis(lease_ms)).await;
                    self.answer(n, outcome).await;
                }
                Ask::Finish { n, place, id, holder, done_ms } => {
                    let done = done_ms.map(Duration::from_millis);
                    let outcome = self.finish(&place, &id, &holder, done).await;
                    self.answer(n, outcome).await;
                }
            }
        }
        Ok(())
    }

    async fn begin(&self, place: &What, id: &str, holder: &str, lease: Duration) -> Result<WireBegun> {
        let (place, id, holder) = line(place, id, holder)?;
        self.connection.ledger().begin(&place, id, holder, lease).await.map(WireBegun::from)
    }

    async fn finish(&self, place: &What, id: &str, holder: &str, done: Option<Duration>) -> Result<()> {
        let (place, id, holder) = line(place, id, holder)?;
        self.connection.ledger().end(&place, id, holder, done).await
    }

    /// Sends what `taken` yields to the process.
    fn pump(&mut self, number: u64, mut taken: Subscription) {
        let closer = CancellationToken::new();
        self.closers.insert(number, closer.clone());
        let (frames, in_hand, last) = (self.frames.clone(), self.in_hand.clone(), self.last.clone());
        tokio::spawn(async move {
            let mut told = false;
            loop {
                let received = tokio::select! {
                    () = closer.cancelled(), if !told => {
                        told = true;
                        taken.close();
                        continue;
                    }
                    received = taken.next() => received,
                };
                let packed = match received {
                    None => break,
                    Some(Received::Gap(gap)) => {
                        frame::pack(&Say::Gap { subscription: number, reason: gap.reason }, &[])
                    }
                    Some(Received::Delivery(delivery)) => {
                        let id = last.fetch_add(1, Ordering::Relaxed);
                        let head = Say::Deliver {
                            subscription: number,
                            delivery: id,
                            redelivered: delivery.redelivered(),
                        };
                        let packed = frame::pack(&head, &envelope::encode(delivery.message()));
                        in_hand.lock().unwrap_or_else(PoisonError::into_inner).insert(id, delivery);
                        packed
                    }
                };
                if frames.send(packed).await.is_err() {
                    return;
                }
            }
            // Without having been asked it ends because the bus does; the process will take it up again elsewhere.
            if closer.is_cancelled() {
                let _ = frames.send(frame::pack(&Say::End { subscription: number }, &[])).await;
            }
        });
    }

    async fn answer<T: Serialize>(&self, n: u64, outcome: Result<T>) {
        let (say, tail) = match outcome {
            Ok(told) => (Say::Done { n }, serde_json::to_vec(&told).unwrap_or_default()),
            Err(error) => {
                let (kind, what) = (error.kind().name().to_owned(), error.to_string());
                (Say::Failed { n, kind, what }, Vec::new())
            }
        };
        let _ = self.frames.send(frame::pack(&say, &tail)).await;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Delivery>> {
        self.in_hand.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A line of the ledger and who holds it.
fn line(place: &What, id: &str, holder: &str) -> Result<(Origin, MessageId, u128)> {
    let bad = |what: &str| Error::malformed(format!("a frame names {what} of the ledger that is none"));
    let place = place.origin().ok_or_else(|| bad("a place"))?;
    let id = id.parse().map(MessageId).map_err(|_| bad("a message"))?;
    let holder = u128::from_str_radix(holder, 16).map_err(|_| bad("a holder"))?;
    Ok((place, id, holder))
}

async fn settle(delivery: Delivery, verdict: Verdict, tail: Bytes) -> Result<()> {
    let settlement = match verdict {
        Verdict::Ack => Settlement::Ack,
        Verdict::Retry { after_us } => {
            Settlement::Retry { after: Duration::from_micros(after_us), message: envelope::decode(tail)? }
        }
        Verdict::Dead => Settlement::DeadLetter { message: envelope::decode(tail)? },
        Verdict::Redrive => Settlement::Redrive { message: envelope::decode(tail)? },
    };
    delivery.settle(settlement).await
}
