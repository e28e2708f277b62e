//! Settling: verdicts are gathered and sent together, each answered when the server has it.

use std::{
    collections::HashMap,
    mem,
    sync::{Arc, Mutex, PoisonError},
};

use commissaire::{Error, ErrorKind, Origin, Result};
use redis::{Pipeline, Value};
use tokio::{
    sync::{Notify, oneshot},
    time::{Instant, timeout_at},
};

use crate::{
    bus::{BOUND, Core},
    held::Held,
    listen::{
        entry::{Entry, EntryId, Stream},
        intake::Intake,
    },
    publish::MOST_STORED,
    script::Script,
    value::int,
    wire::{Fault, no_error},
};

/// The most verdicts in one pipeline.
const BATCH: usize = 512;

/// Sends verdicts, one pipeline at a time: while one is under way the next fills up. What waits is bounded by what is
/// in hand.
pub(crate) struct Settler {
    core: Arc<Core>,
    jobs: Mutex<Jobs>,
    more: Notify,
    idle: Notify,
}

#[derive(Default)]
struct Jobs {
    waiting: Vec<Job>,
    /// How many are waiting or under way.
    open: usize,
    /// Nothing is taken any more.
    ended: bool,
}

struct Job {
    stream: Arc<Stream>,
    id: EntryId,
    verdict: Verdict,
    until: Instant,
    /// It may have been carried out before.
    again: bool,
    done: Option<oneshot::Sender<Result<()>>>,
}

/// What becomes of an entry.
pub(crate) enum Verdict {
    Ack,
    Retry { after: u64, message: Vec<u8> },
    Dead { message: Vec<u8> },
    Redrive { message: Vec<u8> },
    Release,
}

impl Settler {
    pub(crate) fn start(core: Arc<Core>) -> Arc<Self> {
        let settler = Arc::new(Self {
            core: core.clone(),
            jobs: Mutex::default(),
            more: Notify::new(),
            idle: Notify::new(),
        });
        let running = settler.clone();
        tokio::spawn(async move {
            core.end.run_until_cancelled(running.run()).await;
            // Whoever still waits for an answer learns that there is none.
            let left = {
                let mut jobs = running.lock();
                jobs.ended = true;
                mem::take(&mut jobs.waiting)
            };
            drop(left);
        });
        settler
    }

    /// Gives an entry back to the broker, without waiting.
    pub(crate) fn release(&self, stream: &Arc<Stream>, id: EntryId) {
        // After the end the broker finds out by itself that this process has gone.
        let _ = self.put(stream.clone(), id, Verdict::Release, None);
    }

    /// Delivers what waits at `intake`, as far as there are places.
    pub(crate) fn serve(self: &Arc<Self>, intake: &Arc<Intake<Arc<Stream>>>) {
        let Some(feed) = intake.feed() else { return };
        while let Some((entry, place)) = intake.next() {
            let redelivered = entry.redelivered;
            match entry.message() {
                Ok(message) => {
                    let held = Held { settler: self.clone(), intake: intake.clone(), entry };
                    feed.deliver(place, message, redelivered, Box::new(held));
                }
                Err(error) => {
                    let stream = intake.source();
                    tracing::warn!(stream = stream.name(), %error, "a message cannot be read: it becomes a dead letter");
                    self.bury(stream, &entry);
                }
            }
        }
    }

    /// Makes a dead letter of an entry that nobody can read.
    pub(crate) fn bury(&self, stream: &Arc<Stream>, entry: &Entry) {
        let verdict = match stream.unreadable(&entry.raw) {
            Some(message) => Verdict::Dead { message },
            None => Verdict::Ack,
        };
        let _ = self.put(stream.clone(), entry.id, verdict, None);
    }

    /// Takes nothing more and returns when all that was taken is known to the broker.
    pub(crate) async fn finish(&self, deadline: Instant) -> Result<()> {
        let finished = async {
            loop {
                let idle = self.idle.notified();
                if self.lock().open == 0 {
                    return;
                }
                idle.await;
            }
        };
        let finished = timeout_at(deadline, finished).await;
        self.lock().ended = true;
        finished.map_err(|_| {
            Error::new(
                ErrorKind::Timeout,
                "closing the bus: settlements under way did not reach redis in time",
            )
            .maybe_executed()
        })
    }

    pub(crate) fn put(
        &self,
        stream: Arc<Stream>,
        id: EntryId,
        verdict: Verdict,
        done: Option<oneshot::Sender<Result<()>>>,
    ) -> Result<()> {
        let mut jobs = self.lock();
        if jobs.ended {
            return Err(closed());
        }
        jobs.open += 1;
        jobs.waiting.push(Job { stream, id, verdict, until: Instant::now() + BOUND, again: false, done });
        drop(jobs);
        self.more.notify_one();
        Ok(())
    }

    async fn run(&self) {
        loop {
            let batch = {
                let mut jobs = self.lock();
                let most = jobs.waiting.len().min(BATCH);
                if most == jobs.waiting.len() {
                    mem::take(&mut jobs.waiting)
                } else {
                    jobs.waiting.drain(..most).collect()
                }
            };
            if batch.is_empty() {
                self.more.notified().await;
                continue;
            }
            self.send(batch).await;
        }
    }

    async fn send(&self, batch: Vec<Job>) {
        // Settling twice settles once, so what is unknown may be sent again.
        let Some(until) = batch.iter().map(|job| job.until).min() else { return };
        let Some(wire) = self.core.main.wire(until).await else {
            return self.put_back(batch, &Fault::NotSent);
        };
        let (pipeline, groups) = self.pipeline(wire.digests(), batch);
        match wire.ask_all(&pipeline, BOUND).await {
            Ok(answers) => {
                let mut again = Vec::new();
                let mut why = Fault::NotSent;
                for (jobs, answer) in groups.into_iter().zip(answers) {
                    match no_error(answer) {
                        Ok(answer) => match not_redriven(&jobs, &answer) {
                            Some(error) => self.refuse(jobs, error),
                            None => self.finish_jobs(jobs, None),
                        },
                        Err(fault) if fault.is("NOSCRIPT") || fault.passes() => {
                            again.extend(jobs);
                            why = fault;
                        }
                        // The group is gone, and with it the entry: there is nothing left to settle.
                        Err(fault) if fault.is("NOGROUP") => self.finish_jobs(jobs, None),
                        Err(fault) => self.finish_jobs(jobs, Some(&fault)),
                    }
                }
                if !again.is_empty() {
                    let _ = wire.load(BOUND).await;
                    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                    self.put_back(again, &why);
                }
            }
            Err(fault) => self.put_back(groups.into_iter().flatten().collect(), &fault),
        }
    }

    /// One command for all acks of a stream, one for all releases of a stream, one for each other verdict.
    fn pipeline(&self, digests: &[String], batch: Vec<Job>) -> (Pipeline, Vec<Vec<Job>>) {
        let mut pipeline = Pipeline::new();
        let mut groups: Vec<Vec<Job>> = Vec::new();
        let mut together: HashMap<(bool, *const Stream), Vec<Job>> = HashMap::new();
        for job in batch {
            let stream = job.stream.clone();
            let command = match &job.verdict {
                Verdict::Ack | Verdict::Release => {
                    let ack = matches!(job.verdict, Verdict::Ack);
                    together.entry((ack, Arc::as_ptr(&stream))).or_default().push(job);
                    continue;
                }
                Verdict::Retry { after, message } => {
                    let keys = [stream.key(), stream.delayed(), stream.bodies()];
                    let mut command = Script::Retry.over(digests, &keys);
                    command
                        .arg(Stream::GROUP)
                        .arg(&self.core.id)
                        .arg(job.id.to_string())
                        .arg(*after)
                        .arg(message);
                    command
                }
                Verdict::Dead { message } => {
                    let mut command = Script::Dead.over(digests, &[stream.key(), stream.dead()]);
                    command.arg(Stream::GROUP).arg(&self.core.id).arg(job.id.to_string()).arg(message);
                    command
                }
                Verdict::Redrive { message } => {
                    let (home, bindings) = (stream.source().unwrap_or_default(), self.core.keys.bindings());
                    let mut command = Script::Redrive.over(digests, &[stream.key(), home, &bindings]);
                    command.arg(Stream::GROUP).arg(&self.core.id).arg(job.id.to_string()).arg(message);
                    command.arg(MOST_STORED).arg(match stream.origin() {
                        Origin::Durable(name) => name.as_str(),
                        Origin::Queue(_) => "",
                    });
                    command
                }
            };
            pipeline.add_command(command);
            groups.push(vec![job]);
        }
        for ((ack, _), jobs) in together {
            let Some(stream) = jobs.first().map(|job| job.stream.clone()) else { continue };
            let mut command = if ack {
                let mut command = Script::Ack.over(digests, &[stream.key()]);
                command.arg(Stream::GROUP);
                command
            } else {
                let mut command = Script::Release.over(digests, &[stream.key()]);
                command.arg(Stream::GROUP).arg(&self.core.id).arg(self.core.keys.back());
                command
            };
            for job in &jobs {
                command.arg(job.id.to_string());
            }
            pipeline.add_command(command);
            groups.push(jobs);
        }
        (pipeline, groups)
    }

    fn finish_jobs(&self, jobs: Vec<Job>, fault: Option<&Fault>) {
        let count = jobs.len();
        for job in jobs {
            job.stream.let_go(job.id, !matches!(job.verdict, Verdict::Release));
            let result = match fault {
                None => Ok(()),
                Some(fault) => {
                    Err(fault.clone().into_error(&format!("settling a message of {}", job.stream.name())))
                }
            };
            if let Some(done) = job.done {
                // The consumer may not wait for it any more.
                let _ = done.send(result);
            }
        }
        let mut state = self.lock();
        state.open -= count;
        if state.open == 0 {
            drop(state);
            self.idle.notify_waiters();
        }
    }

    /// The server has not done what was asked, and the message is still ours: it comes again.
    fn refuse(&self, jobs: Vec<Job>, error: Error) {
        let mut error = Some(error);
        for job in jobs {
            self.release(&job.stream, job.id);
            if let (Some(done), Some(error)) = (job.done, error.take()) {
                let _ = done.send(Err(error));
            }
            self.lock().open -= 1;
        }
    }

    /// Tries again later, those apart whose time is over.
    fn put_back(&self, jobs: Vec<Job>, fault: &Fault) {
        let now = Instant::now();
        let (mut again, over): (Vec<Job>, Vec<Job>) = jobs.into_iter().partition(|job| job.until > now);
        if !over.is_empty() {
            self.finish_jobs(over, Some(fault));
        }
        again.iter_mut().for_each(|job| job.again |= matches!(fault, Fault::Lost | Fault::Late));
        if !again.is_empty() {
            let mut state = self.lock();
            let newer = mem::replace(&mut state.waiting, again);
            state.waiting.extend(newer);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a dead letter was not brought back, if it was not.
fn not_redriven(jobs: &[Job], answer: &Value) -> Option<Error> {
    let [job @ Job { verdict: Verdict::Redrive { .. }, .. }] = jobs else { return None };
    let origin = job.stream.origin();
    let (kind, why) = match int(answer) {
        Some(-2) => (ErrorKind::Topology, "it is not there any more: subscribe under its name first"),
        Some(-1) => (ErrorKind::Full, "it is full: start its consumers first"),
        // If it was asked before, then that was the time when it was done.
        Some(0) if !job.again => (ErrorKind::Unavailable, "another reader of the dead letters has it now"),
        _ => return None,
    };
    Some(Error::new(kind, format!("bringing a dead letter back to {origin}: {why}")))
}

pub(crate) fn closed() -> Error {
    Error::new(ErrorKind::Closed, "settling: the bus is closed, and the message was given back")
}
