//! The reader of calls: the lists of all services of this process, on one blocking connection.

use std::{
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use commissaire::{Feed, Key, envelope};
use redis::{Pipeline, Value};
use tokio::time::{Instant, interval, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::{
    bus::Core,
    link::{DEAF, Pace},
    listen::{
        gate::Gate,
        intake::Intake,
        pubsub::PubSub,
        served::{Served, popping},
    },
    script::Script,
    value::{bytes, int, items, millis, text, two},
    wire::{Fault, Wire, no_error},
};

/// How long the server holds a read that finds nothing.
const BLOCK: Duration = Duration::from_secs(1);
/// What the connection is called among those of the bus.
const LINE: &str = "calls";
/// How long an instance that says nothing counts as running, and how often it speaks.
const LEASE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(1));
/// How long calls wait at least for a service that speaks no more.
const KEPT: Duration = Duration::from_secs(60);

type Taker = Arc<Intake<Served>>;

pub(crate) struct Calls {
    core: Arc<Core>,
    pubsub: Arc<PubSub>,
    gate: Gate,
    wake: String,
    takers: Mutex<Vec<Taker>>,
    turn: AtomicUsize,
    started: AtomicBool,
    up: AtomicBool,
    stopping: AtomicBool,
    stopped: CancellationToken,
}

impl Calls {
    pub(crate) fn new(core: Arc<Core>, pubsub: Arc<PubSub>) -> Arc<Self> {
        let wake = core.keys.wake("l", &core.id);
        let mut waking = Pipeline::new();
        waking.cmd("RPUSH").arg(&wake).arg(1);
        waking.cmd("PEXPIRE").arg(&wake).arg(5_000);
        Arc::new(Self {
            gate: Gate::new(core.clone(), waking),
            core,
            pubsub,
            wake,
            takers: Mutex::default(),
            turn: AtomicUsize::new(0),
            started: AtomicBool::new(false),
            up: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            stopped: CancellationToken::new(),
        })
    }

    /// Takes calls to `service` for `feed`; returns when callers can see it.
    pub(crate) async fn add(
        self: &Arc<Self>,
        service: Key,
        feed: Feed,
        deadline: Instant,
    ) -> Result<(), Fault> {
        let keys = &self.core.keys;
        let served = Served {
            list: keys.calls(&service),
            live: keys.live(&service),
            here: keys.here(&service),
            left: AtomicBool::new(false),
            service,
        };
        let (here, live, list) = (served.here.clone(), served.live.clone(), served.list.clone());
        let taker = Intake::new(served, feed);
        taker.consuming(self.up.load(Ordering::Acquire));
        self.lock().push(taker.clone());
        if !self.started.swap(true, Ordering::AcqRel) {
            self.start();
        }
        let (calls, collected) = (self.clone(), taker.clone());
        let end = self.core.end.clone();
        tokio::spawn(async move {
            let collecting = collected.collect(|_| calls.gate.stir(Some(&collected.listed)));
            end.run_until_cancelled(collecting).await;
            end.run_until_cancelled(calls.remove(&collected)).await;
        });
        let made = async {
            self.pubsub.attend(&here, deadline).await?;
            let wire = self.core.main.wire(deadline).await.ok_or(Fault::NotSent)?;
            self.beat(&wire, &[(live, list)]).await
        };
        let made = made.await;
        if made.is_err() {
            taker.close();
        }
        made
    }

    /// Leaves all services, so that callers see it, and stops reading.
    pub(crate) async fn close(&self, deadline: Instant) {
        self.stopping.store(true, Ordering::Release);
        if !self.started.load(Ordering::Acquire) {
            return;
        }
        for taker in self.lock().iter() {
            taker.close();
        }
        self.gate.stir(None);
        if self.core.main.now().is_some() {
            let _ = timeout_at(deadline, self.stopped.cancelled()).await;
        }
        let mut forget = redis::cmd("DEL");
        forget.arg(&self.wake);
        if let Some(wire) = self.core.main.now() {
            let _ = wire.ask(&forget, Duration::from_secs(1)).await;
        }
    }

    fn start(self: &Arc<Self>) {
        let reader = self.clone();
        tokio::spawn(async move {
            let core = reader.core.clone();
            core.end.run_until_cancelled(reader.read()).await;
            for taker in mem::take(&mut *reader.lock()) {
                taker.end();
            }
            reader.stopped.cancel();
        });
        let beating = self.clone();
        tokio::spawn(async move {
            let core = beating.core.clone();
            let mut tick = interval(LEASE.1);
            tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            let beats = async {
                loop {
                    tick.tick().await;
                    // Who does not read is not there.
                    if !beating.up.load(Ordering::Acquire) {
                        continue;
                    }
                    let Some(wire) = core.main.now() else { continue };
                    let served: Vec<(String, String)> = beating
                        .lock()
                        .iter()
                        .filter(|taker| !taker.is_closing())
                        .map(|taker| (taker.source().live.clone(), taker.source().list.clone()))
                        .collect();
                    let _ = beating.beat(&wire, &served).await;
                }
            };
            core.end.run_until_cancelled(beats).await;
        });
    }

    /// Says that this instance runs.
    async fn beat(&self, wire: &Wire, served: &[(String, String)]) -> Result<(), Fault> {
        for (live, list) in served {
            let mut command = Script::Beat.over(wire.digests(), &[live, list]);
            command.arg(LEASE.0.as_millis() as u64).arg(KEPT.as_millis() as u64);
            wire.ask(&command, DEAF).await?;
        }
        Ok(())
    }

    /// Makes it known that `taker` is no instance any more; only then it stops reading.
    async fn remove(&self, taker: &Taker) {
        let served = taker.source();
        let limit = Duration::from_secs(2);
        let others = self
            .lock()
            .iter()
            .filter(|other| !other.is_closing())
            .any(|other| !Arc::ptr_eq(other, taker) && other.source().service == served.service);
        self.pubsub.leave(&served.here, Instant::now() + limit).await;
        if !others && let Some(wire) = self.core.main.now() {
            let mut command = Script::Absent.over(wire.digests(), &[&served.live]);
            command.arg(&served.here);
            let left = wire.ask(&command, limit).await;
            // Calls that were accepted and that nobody else will take.
            if left.is_ok_and(|left| int(&left) == Some(0)) {
                self.take_last(&wire, taker).await;
            }
        }
        taker.close();
        served.left.store(true, Ordering::Release);
        self.gate.stir(None);
    }

    async fn take_last(&self, wire: &Wire, taker: &Taker) {
        let room = taker.room();
        if room == 0 {
            return;
        }
        let mut pipeline = Pipeline::new();
        pipeline.add_command(popping(None, room, &[&taker.source().list]));
        pipeline.cmd("TIME");
        if let Ok(mut answers) = wire.ask_all(&pipeline, Duration::from_secs(2)).await
            && let Some(now) = answers.pop().and_then(millis)
            && let Some(answer) = answers.pop()
        {
            self.take(answer, now, std::slice::from_ref(taker));
        }
    }

    async fn read(&self) {
        let mut pace = Pace::default();
        loop {
            pace.wait().await;
            if !self.core.main.answers().await {
                return;
            }
            let Ok(wire) = self.core.dialer.dial(|_| {}).await else {
                self.core.lines.lost(LINE, "the connection that reads calls cannot be made");
                continue;
            };
            self.core.lines.back(LINE);
            loop {
                self.set_up(true);
                match self.round(&wire).await {
                    Ok(true) => {}
                    Ok(false) => return wire.cut(),
                    Err(fault) if fault.passes() => sleep(Duration::from_millis(100)).await,
                    Err(_) => break,
                }
            }
            self.core.lines.lost(LINE, "the connection that reads calls broke");
            self.gate.unblock();
            self.set_up(false);
            wire.cut();
        }
    }

    /// Reads once. `false` when there is nothing to read for any more.
    async fn round(&self, wire: &Wire) -> Result<bool, Fault> {
        let left = |taker: &mut Taker| taker.source().left.load(Ordering::Acquire);
        let gone: Vec<Taker> = self.lock().extract_if(.., left).collect();
        for taker in gone {
            taker.end();
        }
        if self.stopping.load(Ordering::Acquire) && self.lock().is_empty() {
            return Ok(false);
        }
        let changed = self.gate.changed();
        let room = self.room();
        if room.is_empty() {
            tokio::select! {
                () = changed => {}
                () = wire.down() => return Err(Fault::Lost),
            }
            return Ok(true);
        }
        if room.len() > 1 {
            let mut pipeline = Pipeline::new();
            for (taker, free) in &room {
                pipeline.add_command(popping(None, *free, &[&taker.source().list]));
            }
            pipeline.cmd("TIME");
            let mut answers = wire.ask_all(&pipeline, DEAF).await?;
            let now = answers.pop().and_then(millis).ok_or(Fault::Lost)?;
            let (mut found, mut fault) = (false, None);
            // What one list gave is taken, whatever became of another.
            for ((taker, _), answer) in room.iter().zip(answers) {
                match no_error(answer) {
                    Ok(answer) => found |= self.take(answer, now, std::slice::from_ref(taker)),
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
        let room = self.gate.block(|| {
            let room = self.room();
            for taker in self.lock().iter() {
                taker
                    .listed
                    .store(room.iter().any(|(other, _)| Arc::ptr_eq(other, taker)), Ordering::Release);
            }
            room
        });
        let free = match room.as_slice() {
            [] => {
                self.gate.unblock();
                return Ok(true);
            }
            [(_, free)] => *free,
            _ => 1,
        };
        let mut keys = vec![self.wake.as_str()];
        keys.extend(room.iter().map(|(taker, _)| taker.source().list.as_str()));
        let mut pipeline = Pipeline::new();
        pipeline.add_command(popping(Some(BLOCK), free, &keys));
        pipeline.cmd("TIME");
        let asked = Instant::now();
        let answers = wire.ask_all(&pipeline, BLOCK + DEAF).await;
        self.gate.unblock();
        let mut answers = answers?;
        let mut now = answers.pop().and_then(millis).ok_or(Fault::Lost)?;
        let popped = no_error(answers.pop().ok_or(Fault::Lost)?)?;
        // The calls may be older than the server's answer says, if this process was stopped before it read it.
        if asked.elapsed() > BLOCK * 2 && !matches!(popped, Value::Nil) {
            now = wire.ask(&redis::cmd("TIME"), DEAF).await.ok().and_then(millis).unwrap_or(i64::MAX);
        }
        let takers: Vec<Taker> = room.into_iter().map(|(taker, _)| taker).collect();
        self.take(popped, now, &takers);
        Ok(true)
    }

    /// Those with room, in turn, and how much.
    fn room(&self) -> Vec<(Taker, usize)> {
        let mut room: Vec<(Taker, usize)> = self
            .lock()
            .iter()
            .map(|taker| (taker.clone(), taker.free()))
            .filter(|(_, free)| *free > 0)
            .collect();
        if !room.is_empty() {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed) % room.len();
            room.rotate_left(turn);
        }
        room
    }

    /// Delivers what was popped from one list, `[list, [call, …]]`; whether it was anything.
    fn take(&self, answer: Value, now: i64, takers: &[Taker]) -> bool {
        let Some((list, calls)) = two(answer) else { return false };
        let Some(list) = text(list) else { return false };
        let Some(taker) = takers.iter().find(|taker| taker.source().list == list) else { return false };
        let Some(feed) = taker.feed() else { return false };
        for call in items(calls).into_iter().filter_map(bytes) {
            let Some((until, raw)) = call.split_first_chunk::<8>() else { continue };
            let until = i64::from_le_bytes(*until);
            if until != 0 && until <= now {
                tracing::debug!(service = %taker.source().service, "a call came too late and is dropped");
                continue;
            }
            let message = match envelope::decode(bytes::Bytes::copy_from_slice(raw)) {
                Ok(message) if until != 0 => message.with_ttl(Duration::from_millis(until.abs_diff(now))),
                Ok(message) => message,
                Err(error) => {
                    tracing::warn!(service = %taker.source().service, %error, "a call cannot be read and is dropped");
                    continue;
                }
            };
            match taker.place() {
                Some(place) => feed.deliver_unsettled(place, message),
                None => {
                    tracing::warn!(service = %taker.source().service, "a call came without a place and is dropped");
                }
            }
        }
        true
    }

    fn set_up(&self, up: bool) {
        if self.up.swap(up, Ordering::AcqRel) != up {
            for taker in self.lock().iter() {
                taker.consuming(up);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Taker>> {
        self.takers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
