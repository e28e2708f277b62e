//! Keeping the connection: dialling, listening, and taking everything up again.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use commissaire::{Error, ErrorKind, Feed, Message, Result, Settle, Source, Token, envelope};
use tokio::{
    net::{UnixStream, unix::OwnedReadHalf},
    sync::mpsc,
    time::timeout,
};

use crate::unix::{
    frame::{self, Ask, Say, VERSION},
    link::{Asker, Hand, Link, Taken, Wire},
    settle::Remote,
};

/// How long connecting and saying hello may take.
const DIAL: Duration = Duration::from_secs(5);
/// The rest before the first attempt to connect again, and before each other: at most one attempt a second.
const REST: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));
/// How many frames wait to be written before those who ask wait.
const WAITING_FRAMES: usize = 256;

/// Connects once, and then keeps connected until the link is closed.
pub(super) async fn start(path: PathBuf, exchange: Token, expiry: Duration) -> Result<Arc<Link>> {
    let (reader, wire) = dial(&path, &exchange, 1).await?;
    let link = Arc::new(Link::new(path, exchange, expiry, wire));
    tokio::spawn(keep(link.clone(), reader));
    Ok(link)
}

/// Connects and says hello.
async fn dial(path: &Path, exchange: &Token, epoch: u64) -> Result<(OwnedReadHalf, Wire)> {
    let failed = |e: io::Error| {
        let what = format!("cannot join the bus on {}: {e}: is `commissaire up` running?", path.display());
        Error::unavailable(what)
    };
    let greeted = timeout(DIAL, async {
        let (mut reader, writer) = UnixStream::connect(path).await?.into_split();
        let (frames, waiting) = mpsc::channel(WAITING_FRAMES);
        tokio::spawn(frame::write_all(writer, waiting));
        let hello = Ask::Hello { version: VERSION, exchange: exchange.to_string() };
        let _ = frames.send(frame::pack(&hello, &[])).await;
        let welcome = frame::read::<Say>(&mut reader).await?;
        io::Result::Ok((reader, Wire { epoch, frames }, welcome))
    });
    match greeted.await {
        Err(_) => Err(Error::timeout(format!("joining the bus on {}", path.display()), DIAL)),
        Ok(Err(e)) => Err(failed(e)),
        Ok(Ok((reader, wire, Some((Say::Welcome { version: VERSION }, _))))) => Ok((reader, wire)),
        Ok(Ok(_)) => Err(Error::new(
            ErrorKind::Topology,
            format!(
                "the process that shares {} speaks another version of the bus: use the same release",
                path.display()
            ),
        )),
    }
}

/// Reads until the link is closed; connects again whenever the connection is lost.
async fn keep(link: Arc<Link>, mut reader: OwnedReadHalf) {
    let mut epoch = 1;
    loop {
        let lost = tokio::select! {
            lost = listen(&link, &mut reader, epoch) => lost,
            () = link.closing.cancelled() => break,
        };
        link.wire.send_replace(None);
        link.connectivity.down(lost);
        fail_all(&link);
        let mut rest = REST.0;
        loop {
            tokio::select! {
                () = link.closing.cancelled() => break,
                () = tokio::time::sleep(rest.mul_f64(rand::random_range(1.0..1.3))) => {}
            }
            epoch += 1;
            if let Ok((fresh, wire)) = dial(&link.path, &link.exchange, epoch).await {
                reader = fresh;
                resubscribe(&link, &wire).await;
                link.wire.send_replace(Some(wire));
                link.connectivity.up();
                break;
            }
            rest = REST.1;
        }
        if link.closing.is_cancelled() {
            break;
        }
    }
    let taken: Vec<u64> = link.lock().taken.keys().copied().collect();
    for id in taken {
        link.end(id);
    }
    link.lock().asked.clear();
    link.wire.send_replace(None);
}

/// Takes up every subscription again on a new connection.
async fn resubscribe(link: &Link, wire: &Wire) {
    let all: Vec<(u64, Arc<Taken>)> =
        link.lock().taken.iter().map(|(id, taken)| (*id, taken.clone())).collect();
    for (id, taken) in all {
        if taken.with_feed(Feed::is_closed).unwrap_or(true) {
            link.end(id);
            continue;
        }
        let n = link.expect_answer(Asker::Again(taken.clone()));
        let _ = wire.frames.send(link.pack(&taken, n, id)).await;
    }
}

/// After a lost connection nobody gets an answer and nobody consumes.
fn fail_all(link: &Link) {
    let mut state = link.lock();
    state.asked.clear();
    for taken in state.taken.values() {
        taken.with_feed(|feed| {
            feed.consuming().set(false);
            // Answers went to the connection that is lost: those who wait for them must know at once.
            if matches!(taken.source, Source::Inbox(_)) {
                feed.gap("the connection to the process that shares the bus was lost");
            }
        });
    }
}

/// A subscription consumes again. What it missed cannot be known, so it has a gap here, before anything new.
fn consume_again(taken: &Taken) {
    taken.with_feed(|feed| {
        if matches!(taken.source, Source::Topic(_) | Source::Durable(..)) {
            feed.gap("the connection to the process that shares the bus was lost");
        }
        feed.consuming().set(true);
    });
}

/// Hands on what the other process says, until the connection is lost; says why.
async fn listen(link: &Arc<Link>, reader: &mut OwnedReadHalf, epoch: u64) -> String {
    loop {
        match frame::read::<Say>(reader).await {
            Ok(Some((say, tail))) => hear(link, say, tail, epoch),
            Ok(None) => return "the other process closed it".to_owned(),
            Err(error) => return error.to_string(),
        }
    }
}

fn hear(link: &Arc<Link>, say: Say, tail: Bytes, epoch: u64) {
    match say {
        Say::Welcome { .. } => {}
        Say::Done { n } => answer(link, n, Ok(tail)),
        Say::Failed { n, kind, what } => answer(link, n, Err(frame::failure(&kind, what))),
        Say::End { subscription } => link.end(subscription),
        Say::Gap { subscription, reason } => {
            let taken = link.lock().taken.get(&subscription).cloned();
            if let Some(taken) = taken {
                taken.with_feed(|feed| feed.gap(reason));
            }
        }
        Say::Deliver { subscription, delivery, redelivered } => {
            let taken = link.lock().taken.get(&subscription).cloned();
            let settles = taken.as_ref().is_some_and(|taken| taken.settles());
            let hand = Hand { epoch, delivery, settles };
            let message: Option<Message> = envelope::decode(tail).ok();
            match (taken, message) {
                (Some(taken), Some(message)) => {
                    taken.with_feed(|feed| {
                        let settle = Box::new(Remote { link: link.clone(), hand });
                        match feed.try_place() {
                            Some(place) => feed.deliver(place, message, redelivered, settle),
                            None => settle.release(),
                        }
                    });
                }
                _ => link.release(&hand),
            }
        }
    }
}

fn answer(link: &Link, n: u64, outcome: Result<Bytes>) {
    let asker = link.lock().asked.remove(&n);
    match (asker, outcome) {
        (Some(Asker::Waits(asker)), outcome) => {
            let _ = asker.send(outcome);
        }
        (Some(Asker::Again(taken)), Ok(_)) => consume_again(&taken),
        (Some(Asker::Again(taken)), Err(error)) => {
            tracing::error!(%error, source = %taken.source, "cannot subscribe again");
        }
        (None, _) => {} // who asked has gone
    }
}
