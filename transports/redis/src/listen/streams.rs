//! The reader of streams: queues, durable subscriptions and dead letters, all on one blocking connection.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use commissaire::{Feed, Source};
use redis::{Cmd, Pipeline};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::{
    bus::Core,
    listen::{
        entry::{Entry, EntryId, Stream},
        gate::Gate,
        intake::Intake,
    },
    script::Script,
    settle::Settler,
    wire::{Fault, Wire},
};

/// The most entries that one script gives back.
const MOST: usize = 256;

pub(super) type Taker = Arc<Intake<Arc<Stream>>>;

pub(crate) struct Streams {
    pub(super) core: Arc<Core>,
    pub(super) settler: Arc<Settler>,
    pub(super) gate: Gate,
    pub(super) wake: String,
    /// Whether that key is there to wake the reader.
    pub(super) wakeful: AtomicBool,
    pub(super) state: Mutex<State>,
    /// Where the turn is, among those who share.
    pub(super) turn: AtomicUsize,
    pub(super) started: AtomicBool,
    pub(super) up: AtomicBool,
    pub(super) stopping: AtomicBool,
    /// What is consumed is being looked for: nobody who does may end meanwhile, or it would be made again after.
    pub(super) verifying: AtomicBool,
    pub(super) stopped: CancellationToken,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) takers: Vec<Taker>,
    /// All streams with takers, or with something in hand.
    pub(super) known: HashMap<String, Arc<Stream>>,
}

impl Streams {
    pub(crate) fn new(core: Arc<Core>, settler: Arc<Settler>) -> Arc<Self> {
        let wake = core.keys.wake("x", &core.id);
        let mut waking = Pipeline::new();
        waking.cmd("XADD").arg(&wake).arg("MAXLEN").arg(1).arg("*").arg("w").arg(1);
        waking.cmd("PEXPIRE").arg(&wake).arg(60_000);
        Arc::new(Self {
            gate: Gate::new(core.clone(), waking),
            core,
            settler,
            wake,
            wakeful: AtomicBool::new(true),
            state: Mutex::default(),
            turn: AtomicUsize::new(0),
            started: AtomicBool::new(false),
            up: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            verifying: AtomicBool::new(false),
            stopped: CancellationToken::new(),
        })
    }

    /// Consumes `source` for `feed`; returns when the broker knows.
    pub(crate) async fn add(
        self: &Arc<Self>,
        source: &Source,
        feed: Feed,
        deadline: Instant,
    ) -> Result<(), Fault> {
        let Some(fresh) = Stream::of(source, &self.core.keys) else { return Err(Fault::NotSent) };
        loop {
            let wire = self.core.main.wire(deadline).await.ok_or(Fault::NotSent)?;
            match self.declare(&wire, &fresh, false).await {
                Ok(()) => break,
                Err(fault @ Fault::Refused { .. }) if !fault.is("LOADING") => return Err(fault),
                // Declaring twice declares once.
                Err(_) if Instant::now() < deadline => sleep(Duration::from_millis(20)).await,
                Err(fault) => return Err(fault),
            }
        }
        let mut state = self.lock();
        let stream = match state.known.get(fresh.key()) {
            Some(known) => {
                if let (Some((_, old)), Some((_, new))) = (&known.binding, &fresh.binding) {
                    let new = new.lock().unwrap_or_else(PoisonError::into_inner).clone();
                    *old.lock().unwrap_or_else(PoisonError::into_inner) = new;
                }
                known.clone()
            }
            None => {
                let stream = Arc::new(fresh);
                state.known.insert(stream.key().to_owned(), stream.clone());
                stream
            }
        };
        let taker = Intake::new(stream, feed);
        state.takers.push(taker.clone());
        drop(state);
        self.verified(taker.source(), true);
        if !self.started.swap(true, Ordering::AcqRel) {
            let reader = self.clone();
            tokio::spawn(async move {
                let core = reader.core.clone();
                core.end.run_until_cancelled(reader.read()).await;
                for taker in reader.lock().takers.drain(..) {
                    taker.end();
                }
                reader.stopped.cancel();
            });
        }
        let (streams, end) = (self.clone(), self.core.end.clone());
        tokio::spawn(async move {
            let collecting = taker.collect(|hungry| {
                streams.settler.serve(&taker);
                streams.gate.stir(Some(&taker.listed));
                if hungry {
                    streams.core.nudge.notify_one();
                }
            });
            end.run_until_cancelled(collecting).await;
            taker.close();
            streams.gate.stir(None);
        });
        Ok(())
    }

    /// Stops reading; what is in hand stays there.
    pub(crate) async fn close(&self, deadline: Instant) {
        self.stopping.store(true, Ordering::Release);
        if !self.started.load(Ordering::Acquire) {
            return;
        }
        for taker in &self.lock().takers {
            taker.close();
        }
        self.gate.stir(None);
        // A reader that cannot be woken is cut off at the end.
        if self.core.main.now().is_some() {
            let _ = timeout_at(deadline, self.stopped.cancelled()).await;
        }
    }

    /// Gives back what is in hand, and takes this process out of the groups.
    pub(crate) async fn leave(&self, deadline: Instant) {
        let Some(wire) = self.core.main.now() else { return };
        let known: Vec<Arc<Stream>> = self.lock().known.values().cloned().collect();
        let mut pipeline = Pipeline::new();
        for stream in &known {
            let held = stream.held();
            for ids in held.chunks(MOST) {
                let mut command = Script::Release.over(wire.digests(), &[stream.key()]);
                command.arg(Stream::GROUP).arg(&self.core.id).arg(self.core.keys.back());
                for id in ids {
                    command.arg(id.to_string());
                }
                pipeline.add_command(command);
            }
            pipeline.add_command(self.leaving(&wire, stream));
        }
        pipeline.cmd("DEL").arg(&self.wake);
        let left = deadline.saturating_duration_since(Instant::now());
        let _ = wire.ask_all(&pipeline, left.max(Duration::from_secs(1))).await;
    }

    /// What takes this process out of a stream's group, if it holds nothing of it.
    pub(crate) fn leaving(&self, wire: &Wire, stream: &Stream) -> Cmd {
        let keys = [stream.key(), &self.core.keys.registry()];
        let mut command = Script::Leave.over(wire.digests(), &keys);
        command.arg(Stream::GROUP).arg(&self.core.id).arg(stream.durable());
        command
    }

    /// The streams that somebody takes from, each with those who do.
    pub(crate) fn taken(&self) -> Vec<(Arc<Stream>, Vec<Taker>)> {
        let mut taken: Vec<(Arc<Stream>, Vec<Taker>)> = Vec::new();
        for taker in self.lock().takers.iter().filter(|taker| !taker.is_closing()) {
            match taken.iter_mut().find(|(stream, _)| Arc::ptr_eq(stream, taker.source())) {
                Some((_, takers)) => takers.push(taker.clone()),
                None => taken.push((taker.source().clone(), vec![taker.clone()])),
            }
        }
        taken
    }

    /// What is to be looked for: with `all`, all that is consumed; without, only what its reader cannot miss by itself.
    /// Until that [ends](Self::end_verifying) nobody who consumes does.
    pub(crate) fn start_verifying(&self, all: bool) -> Vec<Arc<Stream>> {
        let state = self.lock();
        self.verifying.store(true, Ordering::Release);
        drop(state);
        let wanted = |stream: &Arc<Stream>| all || stream.binding.is_some() || !stream.is_verified();
        self.taken().into_iter().map(|(stream, _)| stream).filter(wanted).collect()
    }

    pub(crate) fn end_verifying(&self) {
        self.verifying.store(false, Ordering::Release);
        if self.lock().takers.iter().any(|taker| taker.is_closing()) {
            self.gate.stir(None);
        }
    }

    /// The streams with something in hand.
    pub(crate) fn in_hand(&self) -> Vec<Arc<Stream>> {
        self.lock().known.values().filter(|stream| stream.holds() > 0).cloned().collect()
    }

    /// Forgets the streams that are done with, and returns them.
    pub(crate) fn done(&self) -> Vec<Arc<Stream>> {
        let mut state = self.lock();
        let State { takers, known } = &mut *state;
        let done = |stream: &Arc<Stream>| {
            stream.holds() == 0 && !takers.iter().any(|taker| Arc::ptr_eq(taker.source(), stream))
        };
        known.extract_if(|_, stream| done(stream)).map(|(_, stream)| stream).collect()
    }

    /// Remembers them again, unless they were taken up meanwhile.
    pub(crate) fn not_done(&self, streams: Vec<Arc<Stream>>) {
        let mut state = self.lock();
        for stream in streams {
            state.known.entry(stream.key().to_owned()).or_insert(stream);
        }
    }

    /// This process was found to hold `ids` of a stream that was done with. They are given back; if somebody has taken
    /// the stream up meanwhile, its reader looks for them.
    pub(crate) fn left_over(&self, stream: &Arc<Stream>, ids: &[EntryId]) {
        if ids.is_empty() {
            return;
        }
        let mut state = self.lock();
        if let Some(taken_up) = state.known.get(stream.key()) {
            taken_up.look_back(true);
            return;
        }
        for id in ids {
            stream.hold(*id);
        }
        state.known.insert(stream.key().to_owned(), stream.clone());
        drop(state);
        tracing::debug!(stream = stream.name(), entries = ids.len(), "left over by a connection that broke");
        for id in ids {
            self.settler.release(stream, *id);
        }
    }

    /// The private key that wakes the reader.
    pub(crate) fn wake(&self) -> &str {
        &self.wake
    }

    /// Gives back what has waited for a place for longer than `most`: somebody else may have one.
    pub(crate) fn give_back_stale(&self, most: Duration) {
        let Some(old) = Instant::now().checked_sub(most) else { return };
        let takers = self.lock().takers.clone();
        for taker in takers {
            for entry in taker.stale(old) {
                self.settler.release(taker.source(), entry.id);
            }
        }
    }

    /// Hands out an entry that was just read or claimed.
    pub(crate) fn hand_out(&self, takers: &[Taker], entry: Entry) {
        let Some(first) = takers.first() else { return };
        let stream = first.source();
        if !stream.hold(entry.id) {
            return;
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let in_turn = || takers.iter().cycle().skip(turn % takers.len()).take(takers.len());
        let Some(taker) = in_turn().find(|taker| taker.free() > 0).or_else(|| in_turn().next()) else {
            return;
        };
        match taker.keep(entry) {
            Ok(()) => self.settler.serve(taker),
            Err(entry) => self.settler.release(stream, entry.id),
        }
    }

    pub(super) fn set_up(&self, up: bool) {
        let was = self.up.swap(up, Ordering::AcqRel);
        if was != up || !up {
            for taker in &self.lock().takers {
                taker.consuming(up && taker.source().is_verified());
            }
        }
    }

    /// Notes whether what is behind `stream` is there.
    pub(crate) fn verified(&self, stream: &Arc<Stream>, there: bool) {
        let news = stream.verify(there);
        let consuming = there && self.up.load(Ordering::Acquire);
        for taker in self.lock().takers.iter().filter(|taker| Arc::ptr_eq(taker.source(), stream)) {
            taker.consuming(consuming);
        }
        if news {
            self.gate.stir(None);
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
