//! Care for streams: moves what is due, takes over what others left, and says that long work goes on.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use redis::{Pipeline, Value};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use crate::{
    bus::Core,
    link::DEAF,
    listen::{
        entry::{Entry, EntryId, Stream},
        streams::Streams,
    },
    script::Script,
    value::{bytes, int, items, text},
    wire::{Fault, Wire, no_error},
};

/// How often what is due is looked for.
const TICK: Duration = Duration::from_millis(100);
/// How often what others left is looked for.
const CLAIM: Duration = Duration::from_secs(1);
/// How long an entry belongs to a consumer that says nothing of it, and how often ours speak.
const LEASE: Duration = Duration::from_secs(30);
const KEEP: Duration = Duration::from_secs(10);
/// How often it is looked whether bindings are still there, and what was not; all else is looked for with [`KEEP`], for
/// a reader that waits for a stream or a group is told by the server when it goes.
const VERIFY: Duration = Duration::from_secs(2);
/// How long a consumer's process must be seen to be gone before its entries are taken: longer if it was never seen to
/// live since our connection was made, for it may still be making its own.
const GONE: (Duration, Duration) = (Duration::from_secs(4), Duration::from_secs(15));
/// The most entries that one script touches.
const MOST: usize = 200;
/// The most scripts a stream and a tick that move what is due.
const ROUNDS: usize = 50;

struct Care {
    core: Arc<Core>,
    streams: Arc<Streams>,
    /// Since when which consumer is seen to be gone, by stream.
    gone: HashMap<(String, String), Instant>,
    /// Whose processes were seen to live.
    seen: HashSet<String>,
    cursors: HashMap<String, String>,
    /// The connection that all this was seen through, and since when.
    wire: Option<(Wire, Instant)>,
}

pub(crate) fn start(core: Arc<Core>, streams: Arc<Streams>) {
    let care = Care {
        core: core.clone(),
        streams,
        gone: HashMap::new(),
        seen: HashSet::new(),
        cursors: HashMap::new(),
        wire: None,
    };
    tokio::spawn(async move { core.end.run_until_cancelled(care.run()).await });
}

impl Care {
    async fn run(mut self) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut claimed, mut kept, mut verified) = (Instant::now(), Instant::now(), Instant::now());
        let core = self.core.clone();
        loop {
            let nudged = tokio::select! {
                _ = tick.tick() => false,
                () = core.nudge.notified() => true,
            };
            let Some(wire) = core.main.now() else {
                if core.main.up().await.is_none() {
                    return;
                }
                continue;
            };
            if self.wire.as_ref().is_none_or(|(known, _)| !known.is(&wire)) {
                self.wire = Some((wire.clone(), Instant::now()));
                self.gone.clear();
                self.seen.clear();
            }
            // A fault here is met again at the next tick, or the connection is down anyway.
            let done: Result<(), Fault> = async {
                if kept.elapsed() >= KEEP {
                    kept = Instant::now();
                    put_off(self.keep(&wire).await)?;
                    put_off(self.verify(&wire, true).await)?;
                }
                put_off(self.move_due(&wire).await)?;
                if verified.elapsed() >= VERIFY {
                    verified = Instant::now();
                    put_off(self.verify(&wire, false).await)?;
                }
                if nudged || claimed.elapsed() >= CLAIM {
                    claimed = Instant::now();
                    put_off(self.claim(&wire).await)?;
                }
                Ok(())
            }
            .await;
            if let Err(fault) = done {
                if fault.is("NOSCRIPT") {
                    let _ = wire.load(DEAF).await;
                }
                tracing::debug!(?fault, "care for streams was put off");
                sleep(TICK).await;
            }
        }
    }

    /// Brings back what has rested long enough.
    async fn move_due(&self, wire: &Wire) -> Result<(), Fault> {
        let mut streams: Vec<Arc<Stream>> =
            self.streams.taken().into_iter().map(|(stream, _)| stream).collect();
        // One script moves few, so that it holds nobody up; what is due all the same is moved by the next.
        for _ in 0..ROUNDS {
            let mut pipeline = Pipeline::new();
            for stream in &streams {
                let keys = [stream.key(), stream.delayed(), stream.bodies()];
                let mut command = Script::Move.over(wire.digests(), &keys);
                command.arg(MOST);
                pipeline.add_command(command);
            }
            let answers = wire.ask_all(&pipeline, DEAF).await?;
            let full = |answer: &Value| int(answer).is_some_and(|moved| moved >= MOST as i64);
            let mut more = answers.iter().map(full).collect::<Vec<bool>>().into_iter();
            first_fault(answers)?;
            streams.retain(|_| more.next().unwrap_or(false));
            if streams.is_empty() {
                break;
            }
        }
        Ok(())
    }

    /// Says of all that is in hand that it is worked on.
    async fn keep(&self, wire: &Wire) -> Result<(), Fault> {
        let held = self.streams.in_hand();
        let mut pipeline = Pipeline::new();
        for stream in held {
            for ids in stream.held().chunks(MOST) {
                let mut command = Script::Keep.over(wire.digests(), &[stream.key()]);
                command.arg(Stream::GROUP).arg(&self.core.id);
                for id in ids {
                    command.arg(id.to_string());
                }
                pipeline.add_command(command);
            }
        }
        pipeline.cmd("PEXPIRE").arg(self.streams.wake()).arg(60_000);
        first_fault(wire.ask_all(&pipeline, DEAF).await?)
    }

    /// Makes again what an administrator, or an accident, has taken away of what is consumed here: streams, groups,
    /// bindings.
    async fn verify(&self, wire: &Wire, all: bool) -> Result<(), Fault> {
        let streams = self.streams.start_verifying(all);
        let mut pipeline = Pipeline::new();
        for stream in &streams {
            pipeline.add_command(self.streams.declaring(wire, stream, true));
        }
        let answers = wire.ask_all(&pipeline, DEAF).await;
        self.streams.end_verifying();
        for (stream, answer) in streams.iter().zip(answers?) {
            match no_error(answer) {
                Ok(made) => {
                    if int(&made) != Some(0) {
                        tracing::warn!(stream = stream.name(), "it had gone from redis and was made again");
                    }
                    self.streams.verified(stream, true);
                }
                Err(fault) if fault.is("NOSCRIPT") || fault.passes() => return Err(fault),
                Err(fault) => {
                    if stream.is_verified() {
                        tracing::error!(stream = stream.name(), ?fault, "it cannot be consumed any more");
                    }
                    self.streams.verified(stream, false);
                }
            }
        }
        Ok(())
    }

    /// Takes this process out of the groups of streams that nobody here reads any more. What it holds there all the same,
    /// because it was never known here or its return got lost with a connection, is given back first.
    async fn leave(&self, wire: &Wire) -> Result<(), Fault> {
        let done = self.streams.done();
        let mut pipeline = Pipeline::new();
        for stream in &done {
            pipeline.add_command(self.streams.leaving(wire, stream));
        }
        let answers = wire.ask_all(&pipeline, DEAF).await;
        let left =
            answers.and_then(|answers| answers.into_iter().map(no_error).collect::<Result<Vec<_>, _>>());
        match left {
            Ok(left) => {
                for (stream, ids) in done.iter().zip(left) {
                    let ids: Vec<EntryId> =
                        items(ids).into_iter().filter_map(|id| text(id)?.parse().ok()).collect();
                    self.streams.left_over(stream, &ids);
                }
                Ok(())
            }
            Err(fault) => {
                self.streams.not_done(done);
                Err(fault)
            }
        }
    }

    /// Takes over, for those who have room, what others left or gave back.
    async fn claim(&mut self, wire: &Wire) -> Result<(), Fault> {
        self.leave(wire).await?;
        self.streams.give_back_stale(CLAIM);
        let settled = self.wire.as_ref().is_some_and(|(_, since)| since.elapsed() > GONE.1 * 2);
        let grace = |consumer: &String| if settled || self.seen.contains(consumer) { GONE.0 } else { GONE.1 };
        let mut living = HashSet::new();
        let taken = self.streams.taken();
        self.cursors.retain(|key, _| taken.iter().any(|(stream, _)| stream.key() == key));
        self.gone.retain(|(key, _), _| taken.iter().any(|(stream, _)| stream.key() == key));
        for (stream, takers) in taken {
            let Some(taker) = takers.iter().find(|taker| taker.free() > 0 && taker.is_clear()) else {
                takers.iter().for_each(|taker| taker.hunger());
                continue;
            };
            let most = taker.free().min(MOST / 2);
            let cursor = self.cursors.get(stream.key()).map_or("0-0", String::as_str);
            let dead: Vec<&str> = self
                .gone
                .iter()
                .filter(|((key, consumer), since)| key == stream.key() && since.elapsed() >= grace(consumer))
                .map(|((_, consumer), _)| consumer.as_str())
                .collect();
            let mut command = Script::Claim.over(wire.digests(), &[stream.key()]);
            command.arg(Stream::GROUP).arg(&self.core.id).arg(LEASE.as_millis() as u64).arg(most).arg(cursor);
            command.arg(self.core.keys.alive()).arg(&dead);
            let _look = stream.look();
            let answer = match wire.ask(&command, DEAF).await {
                // The reader makes it again; what is refused of one stream must not hold up the others.
                Err(fault) if fault.is_final() => continue,
                answer => answer?,
            };
            let mut answer = items(answer).into_iter();
            let cursor = answer.next().and_then(text).unwrap_or_else(|| "0-0".to_owned());
            self.cursors.insert(stream.key().to_owned(), cursor);
            for entry in answer.next().map(items).unwrap_or_default().into_iter().filter_map(claimed_entry) {
                tracing::debug!(stream = stream.name(), id = %entry.id, "an entry was taken over");
                self.streams.hand_out(std::slice::from_ref(taker), entry);
            }
            let absent: Vec<String> =
                answer.next().map(items).unwrap_or_default().into_iter().filter_map(text).collect();
            self.gone.retain(|(key, consumer), _| key != stream.key() || absent.contains(consumer));
            living.extend(answer.next().map(items).unwrap_or_default().into_iter().filter_map(text));
            for consumer in absent {
                self.gone.entry((stream.key().to_owned(), consumer)).or_insert_with(Instant::now);
            }
        }
        // A process that lives, or that is on its way to be taken for dead; the rest is forgotten.
        let gone = &self.gone;
        self.seen
            .retain(|consumer| living.contains(consumer) || gone.keys().any(|(_, gone)| gone == consumer));
        self.seen.extend(living);
        Ok(())
    }
}

/// What the server refuses in one step must not keep the other steps from being taken.
fn put_off(done: Result<(), Fault>) -> Result<(), Fault> {
    match done {
        Err(fault) if fault.is_final() => {
            tracing::debug!(?fault, "care for streams was refused");
            Ok(())
        }
        done => done,
    }
}

/// `[id, message, times handed out]`.
fn claimed_entry(value: Value) -> Option<Entry> {
    let mut parts = items(value).into_iter();
    let id = text(parts.next()?)?.parse().ok()?;
    let raw = Bytes::from(bytes(parts.next()?)?);
    let times = parts.next().as_ref().and_then(int).unwrap_or(1);
    Some(Entry { id, raw, redelivered: u32::try_from(times.saturating_sub(1)).unwrap_or(0) })
}

fn first_fault(answers: Vec<Value>) -> Result<(), Fault> {
    answers
        .into_iter()
        .map(no_error)
        .find_map(Result::err)
        .filter(|fault| !fault.is("NOGROUP"))
        .map_or(Ok(()), Err)
}
