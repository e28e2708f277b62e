//! Reading streams: rounds on one blocking connection, made again when it breaks.

use std::{
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Duration,
};

use redis::{Cmd, Pipeline, Value};
use tokio::time::{Instant, sleep};

use crate::{
    link::{DEAF, Pace},
    listen::{
        entry::{Entry, Stream},
        streams::{Streams, Taker},
    },
    script::Script,
    value::{items, pairs, text},
    wire::{Fault, Wire, no_error},
};

/// How long the server holds a read that finds nothing.
const BLOCK: Duration = Duration::from_secs(2);
/// The same where the reader cannot be woken.
const SHORT: Duration = Duration::from_millis(200);
/// How often the server hears from a reader that finds nothing or has no room, so that a deaf one is told from it.
const PROOF: Duration = Duration::from_secs(10);
/// Behind all entries: what is read there is nothing.
const BEHIND_ALL: &str = "18446744073709551615-18446744073709551614";
/// The most entries of one read.
const MOST: usize = 256;

/// What the connection is called among those of the bus.
const LINE: &str = "streams";
/// What the server says of a stream, a group or a type that is not there any more.
const GONE: [&str; 3] = ["NOGROUP", "UNBLOCKED", "WRONGTYPE"];

/// Those who share one stream, and how many entries they have room for.
struct Share {
    stream: Arc<Stream>,
    takers: Vec<Taker>,
    free: usize,
}

impl Streams {
    /// Reads until the bus closes.
    pub(super) async fn read(&self) {
        let mut pace = Pace::default();
        loop {
            pace.wait().await;
            if !self.core.main.answers().await {
                return;
            }
            let Ok(wire) = self.core.dialer.dial(|_| {}).await else {
                self.core.lines.lost(LINE, "the connection that reads queues cannot be made");
                continue;
            };
            let mut fault = self.begin(&wire, true).await.err();
            let mut proven = Instant::now();
            self.core.lines.back(LINE);
            while fault.is_none() {
                self.set_up(true);
                fault = match self.round(&wire, &mut proven).await {
                    Ok(true) => None,
                    Ok(false) => return wire.cut(),
                    Err(fault) if GONE.iter().any(|code| fault.is(code)) => {
                        tracing::warn!(
                            ?fault,
                            "streams of the bus are not in redis as they were: making them again"
                        );
                        self.set_up(false);
                        self.begin(&wire, false).await.err()
                    }
                    Err(fault) => Some(fault),
                };
            }
            self.core.lines.lost(LINE, "the connection that reads queues broke");
            self.gate.unblock();
            self.set_up(false);
            wire.cut();
        }
    }

    /// Makes everything that is read from. On a new connection it also takes up what the old one read and lost.
    async fn begin(&self, wire: &Wire, new: bool) -> Result<(), Fault> {
        self.make_wake(wire).await?;
        for (stream, _) in self.taken() {
            match self.declare(wire, &stream, true).await {
                // What cannot be had of one stream must not stop the others.
                Err(fault) if fault.is_final() => {
                    tracing::error!(stream = stream.name(), ?fault, "it cannot be consumed");
                    self.verified(&stream, false);
                    continue;
                }
                made => made?,
            }
            self.verified(&stream, true);
            if new {
                stream.look_back(true);
            }
        }
        Ok(())
    }

    /// Takes up what this process holds already and does not know of: an older connection, or an earlier subscription,
    /// may have lost it.
    async fn look_back(&self, wire: &Wire, share: Share) -> Result<(), Fault> {
        let (stream, most) = (share.stream.clone(), share.free + share.stream.holds());
        let mut command = redis::cmd("XREADGROUP");
        command.arg("GROUP").arg(Stream::GROUP).arg(&self.core.id);
        command.arg("COUNT").arg(most).arg("STREAMS").arg(stream.key()).arg("0");
        let _look = stream.look();
        stream.look_back(false);
        let answer = wire.ask(&command, DEAF).await;
        let found = answer.map(|answer| self.take(answer, &[share]));
        // There may be more than there is room for.
        stream.look_back(!matches!(found, Ok(found) if found < most));
        found.map(drop)
    }

    /// Makes the key that wakes a blocked read. A server that is out of memory has none to spare even for that: then
    /// reads are short, and it is tried again with each.
    async fn make_wake(&self, wire: &Wire) -> Result<(), Fault> {
        let mut making = Pipeline::new();
        making.cmd("XGROUP").arg("CREATE").arg(&self.wake).arg(Stream::GROUP).arg("$").arg("MKSTREAM");
        making.cmd("PEXPIRE").arg(&self.wake).arg(60_000);
        let answers = wire.ask_all(&making, DEAF).await?;
        let made = answers.into_iter().next().map_or(Ok(Value::Nil), no_error);
        let wakeful = match made {
            Err(fault) if !fault.is("BUSYGROUP") => {
                tracing::warn!(?fault, "redis has no room for the key that wakes a reader: reads are short");
                false
            }
            _ => true,
        };
        self.wakeful.store(wakeful, Ordering::Release);
        Ok(())
    }

    pub(super) async fn declare(&self, wire: &Wire, stream: &Stream, keep: bool) -> Result<(), Fault> {
        wire.ask(&self.declaring(wire, stream, keep), DEAF).await.map(drop)
    }

    /// What makes `stream` with all that belongs to it; with `keep`, patterns that are there already hold.
    pub(super) fn declaring(&self, wire: &Wire, stream: &Stream, keep: bool) -> Cmd {
        let keys = &self.core.keys;
        let (name, patterns) = match &stream.binding {
            Some((name, patterns)) => {
                (name.as_str(), patterns.lock().unwrap_or_else(PoisonError::into_inner).clone())
            }
            None => ("", String::new()),
        };
        let names = [stream.key().to_owned(), keys.bindings(), keys.version(), keys.registry()];
        let mut command = Script::Declare.over(wire.digests(), &names);
        command.arg(Stream::GROUP).arg(&self.core.id).arg(name).arg(&patterns);
        command.arg(if keep { "1" } else { "0" }).arg(self.core.expiry);
        command
    }

    /// Reads behind the end of every stream.
    async fn prove(&self, wire: &Wire) -> Result<(), Fault> {
        let mut pipeline = Pipeline::new();
        for (stream, _) in self.taken().into_iter().filter(|(stream, _)| stream.is_verified()) {
            let reading = pipeline.cmd("XREADGROUP").arg("GROUP").arg(Stream::GROUP).arg(&self.core.id);
            reading.arg("COUNT").arg(1).arg("STREAMS").arg(stream.key()).arg(BEHIND_ALL);
        }
        for answer in wire.ask_all(&pipeline, DEAF).await? {
            no_error(answer)?;
        }
        Ok(())
    }

    /// Reads once. `false` when there is nothing to read for any more.
    async fn round(&self, wire: &Wire, proven: &mut Instant) -> Result<bool, Fault> {
        self.sweep();
        if self.stopping.load(Ordering::Acquire) && self.lock().takers.is_empty() {
            return Ok(false);
        }
        if proven.elapsed() >= PROOF {
            *proven = Instant::now();
            self.prove(wire).await?;
        }
        let changed = self.gate.changed();
        let mut shares = self.shares();
        if shares.is_empty() {
            tokio::select! {
                () = changed => {}
                () = sleep(PROOF) => {}
                () = wire.down() => return Err(Fault::Lost),
            }
            return Ok(true);
        }
        if let Some(at) = shares.iter().position(|share| share.stream.looks_back()) {
            self.look_back(wire, shares.swap_remove(at)).await?;
            return Ok(true);
        }
        // Each stream may give as much as there is room for; only when none has anything is it worth to block.
        if shares.len() > 1 {
            let mut pipeline = Pipeline::new();
            for share in &shares {
                pipeline.add_command(self.reading(share.free, None, &[share.stream.key()]));
            }
            let (mut found, mut fault) = (false, None);
            // What one stream gave is taken, whatever became of another.
            for answer in wire.ask_all(&pipeline, DEAF).await? {
                match no_error(answer) {
                    Ok(answer) => found |= self.take(answer, &shares) > 0,
                    Err(refused) => fault = fault.or(Some(refused)),
                }
            }
            if let Some(fault) = fault {
                return Err(fault);
            }
            if found {
                return Ok(true);
            }
        }
        let shares = self.gate.block(|| {
            let shares = self.shares();
            for taker in &self.lock().takers {
                let listed = shares.iter().any(|share| Arc::ptr_eq(&share.stream, taker.source()));
                taker.listed.store(listed, Ordering::Release);
            }
            shares
        });
        let free = match shares.as_slice() {
            [] => {
                self.gate.unblock();
                return Ok(true);
            }
            [one] => one.free,
            _ => 1,
        };
        let mut keys: Vec<&str> = shares.iter().map(|share| share.stream.key()).collect();
        let wakeful = self.wakeful.load(Ordering::Acquire);
        if wakeful {
            keys.push(&self.wake);
        }
        let block = if wakeful { BLOCK } else { SHORT };
        let answer = wire.ask(&self.reading(free, Some(block), &keys), BLOCK + DEAF).await;
        self.gate.unblock();
        let answer = answer?;
        if !wakeful {
            self.make_wake(wire).await?;
        }
        let woken = matches!(&answer, Value::Map(read) if read.iter().any(|(key, _)| is(key, &self.wake)));
        self.take(answer, &shares);
        if woken {
            let mut forget = Pipeline::new();
            forget.cmd("XGROUP").arg("DELCONSUMER").arg(&self.wake).arg(Stream::GROUP).arg(&self.core.id);
            wire.ask_all(&forget, DEAF).await?;
        }
        Ok(true)
    }

    fn reading(&self, count: usize, block: Option<Duration>, keys: &[&str]) -> Cmd {
        let mut command = redis::cmd("XREADGROUP");
        command.arg("GROUP").arg(Stream::GROUP).arg(&self.core.id).arg("COUNT").arg(count.clamp(1, MOST));
        if let Some(block) = block {
            command.arg("BLOCK").arg(block.as_millis() as u64);
        }
        command.arg("STREAMS").arg(keys);
        for _ in keys {
            command.arg(">");
        }
        command
    }

    /// Hands out what was read; how much it was.
    fn take(&self, answer: Value, shares: &[Share]) -> usize {
        let mut found = 0;
        for (key, entries) in pairs(answer) {
            let Some(key) = text(key) else { continue };
            let Some(share) = shares.iter().find(|share| share.stream.key() == key) else { continue };
            for entry in items(entries).into_iter().filter_map(Entry::read) {
                found += 1;
                self.hand_out(&share.takers, entry);
            }
        }
        found
    }

    /// Those with room, in turn.
    fn shares(&self) -> Vec<Share> {
        let mut shares: Vec<Share> = self
            .taken()
            .into_iter()
            .filter(|(stream, _)| stream.is_verified())
            .map(|(stream, takers)| {
                let free = takers.iter().map(|taker| taker.free()).sum();
                Share { stream, takers, free }
            })
            .filter(|share| share.free > 0)
            .collect();
        if !shares.is_empty() {
            let turn = self.turn.load(Ordering::Relaxed) % shares.len();
            shares.rotate_left(turn);
        }
        shares
    }

    /// Lets those go who are closing.
    fn sweep(&self) {
        let gone: Vec<Taker> = {
            let mut state = self.lock();
            if self.verifying.load(Ordering::Acquire) {
                return;
            }
            state.takers.extract_if(.., |taker| taker.is_closing()).collect()
        };
        for taker in gone {
            for entry in taker.stale(Instant::now()) {
                self.settler.release(taker.source(), entry.id);
            }
            taker.end();
        }
    }
}

fn is(value: &Value, wanted: &str) -> bool {
    matches!(value, Value::BulkString(bytes) if bytes == wanted.as_bytes())
}
