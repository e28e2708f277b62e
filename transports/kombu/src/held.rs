//! A delivery that must be settled, in the hands of a consumer.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use commissaire::{Error, ErrorKind, Message, Origin, Result, Settle, Settlement, Source};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep},
};

use crate::{
    bus::{BOUND, Core},
    letter::{self, Postage},
    publish::MOST_STORED,
    script::Script,
    tap::Tap,
    value::int,
    wire::Fault,
};

/// The longest that a retry rests, in ms: some 34 years.
const EVER: u64 = 1 << 40;

/// The transport's side of a delivery. Dropped without a word it gives the message back.
pub(crate) struct Held {
    core: Arc<Core>,
    tap: Arc<Tap>,
    tag: String,
    /// The list that it came from.
    list: String,
    raw: Bytes,
    /// Nothing was decided yet.
    open: bool,
}

/// What becomes of a message.
#[derive(Debug)]
pub(crate) enum Verdict {
    Ack,
    Retry(Duration, Message),
    Dead(Message),
    Redrive(Message),
    Back,
}

impl Held {
    /// `raw`, which the server has noted under `tag`.
    pub(crate) fn new(core: Arc<Core>, tap: Arc<Tap>, tag: String, list: String, raw: Bytes) -> Self {
        core.holds(&tag);
        Self { core, tap, tag, list, raw, open: true }
    }

    pub(crate) fn raw(&self) -> &Bytes {
        &self.raw
    }

    /// Carries `verdict` out behind the caller's back: who stops waiting for it does not stop it.
    pub(crate) fn finish(self, verdict: Verdict) {
        let (done, _) = oneshot::channel();
        self.start(verdict, done);
    }

    fn start(mut self, verdict: Verdict, done: oneshot::Sender<Result<()>>) {
        self.open = false;
        let core = self.core.clone();
        core.tasks.spawn(async move {
            let settled = self.carry_out(&verdict).await;
            let refused = matches!(verdict, Verdict::Redrive(_)) && settled.is_err();
            if refused {
                // It is still ours, and stays a dead letter.
                let _ = self.carry_out(&Verdict::Back).await;
            }
            self.core.let_go(&self.tag);
            // The consumer may not wait for it any more.
            let _ = done.send(settled);
        });
    }

    async fn carry_out(&self, verdict: &Verdict) -> Result<()> {
        let what = format!("settling a message of {}", self.tap.source);
        let deadline = Instant::now() + BOUND;
        let mut again = false;
        loop {
            let asked = self.core.end.run_until_cancelled(
                self.core.main.until(deadline, |digests| self.command(verdict, digests)),
            );
            match asked.await {
                None => return Err(closed()),
                // Settling twice settles once, so what is unknown is asked again.
                Some(Err(Fault::Lost | Fault::Late)) if Instant::now() < deadline => {
                    again = true;
                    sleep(Duration::from_millis(20)).await;
                }
                Some(Err(fault)) => return Err(fault.into_error(&what)),
                Some(Ok(answer)) => {
                    self.stir(verdict);
                    return self.answered(verdict, int(&answer), again);
                }
            }
        }
    }

    fn answered(&self, verdict: &Verdict, answer: Option<i64>, again: bool) -> Result<()> {
        let (Verdict::Redrive(_), Source::DeadLetters(origin)) = (verdict, &self.tap.source) else {
            return Ok(());
        };
        let (kind, why) = match answer {
            Some(-2) => (ErrorKind::Topology, "it is not there any more: subscribe under its name first"),
            Some(-1) => (ErrorKind::Full, "it is full: start its consumers first"),
            // If it was asked before, then that was the time when it was done.
            Some(0) if !again => (ErrorKind::Unavailable, "another reader of the dead letters has it now"),
            _ => return Ok(()),
        };
        Err(Error::new(kind, format!("bringing a dead letter back to {origin}: {why}")))
    }

    /// What we write ourselves the server does not tell us.
    fn stir(&self, verdict: &Verdict) {
        let core = &self.core;
        match verdict {
            Verdict::Back => core.ears.stir(&self.list),
            Verdict::Redrive(_) => core.ears.stir(&self.home()),
            Verdict::Dead(_) => core.ears.stir(&self.dead()),
            Verdict::Ack | Verdict::Retry(..) => {}
        }
    }

    fn command(&self, verdict: &Verdict, digests: &[String]) -> redis::Cmd {
        let (core, names) = (&self.core, &self.core.names);
        let [unacked, index] = names.unacked();
        let mut keys = vec![unacked, index, names.own("hand", &core.id)];
        match verdict {
            Verdict::Ack => {}
            Verdict::Retry(..) => {
                keys.extend([names.own("z", &self.tap.queue), names.own("b", &self.tap.queue)]);
            }
            Verdict::Dead(_) => keys.extend([self.dead(), names.own("dead", "")]),
            Verdict::Redrive(_) => keys.extend([self.home(), names.own("subs", "")]),
            Verdict::Back => keys.push(self.list.clone()),
        }
        let mut command = Script::Settle.over(digests, &keys);
        command.arg(&self.tag);
        match verdict {
            Verdict::Ack => command.arg("ack"),
            Verdict::Retry(after, message) => {
                // Rounded up: it is never early.
                let after = u64::try_from(after.as_micros().div_ceil(1000)).unwrap_or(EVER).min(EVER);
                command.arg("retry").arg(after).arg(self.write(message))
            }
            Verdict::Dead(message) => {
                let origin = self.tap.origin().map(|origin| origin.to_string()).unwrap_or_default();
                command.arg("dead").arg(self.write(message)).arg(origin)
            }
            Verdict::Redrive(message) => {
                let name = match self.tap.origin() {
                    Some(Origin::Durable(name)) => name.to_string(),
                    _ => String::new(),
                };
                command.arg("redrive").arg(self.write(message)).arg(MOST_STORED).arg(name)
            }
            Verdict::Back => command.arg("back").arg(&self.raw[..]),
        };
        command
    }

    fn write(&self, message: &Message) -> Vec<u8> {
        let key = message.address().key().map(commissaire::Key::as_str).unwrap_or_default();
        letter::write(message, &Postage { exchange: self.core.names.exchange(), key, ..Postage::default() })
    }

    fn dead(&self) -> String {
        self.tap.origin().map(|origin| self.core.names.dead(&origin)).unwrap_or_default()
    }

    fn home(&self) -> String {
        let names = &self.core.names;
        self.tap.origin().map(|origin| names.list(&names.home(&origin))).unwrap_or_default()
    }
}

#[async_trait]
impl Settle for Held {
    async fn settle(self: Box<Self>, settlement: Settlement) -> Result<()> {
        let verdict = match settlement {
            Settlement::Ack => Verdict::Ack,
            Settlement::Retry { after, message } => Verdict::Retry(after, message),
            Settlement::DeadLetter { message } => match self.tap.origin() {
                Some(origin) => Verdict::Dead(message.with_origin(&origin)),
                None => Verdict::Dead(message),
            },
            Settlement::Redrive { message } if matches!(self.tap.source, Source::DeadLetters(_)) => {
                Verdict::Redrive(message)
            }
            other => {
                let what = match other {
                    Settlement::Redrive { .. } => "only a dead letter can be brought back",
                    _ => "this transport does not know that verdict",
                };
                return Err(Error::invalid(format!("settling a message of {}: {what}", self.tap.source)));
            }
        };
        if self.core.is_closed() {
            return Err(closed());
        }
        let (done, answer) = oneshot::channel();
        self.start(verdict, done);
        answer.await.unwrap_or_else(|_| Err(closed()))
    }

    fn release(self: Box<Self>) {
        drop(self);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if !self.open {
            return;
        }
        // Without a runtime the program is ending, and the lease does the rest.
        if tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        let held = Self {
            core: self.core.clone(),
            tap: self.tap.clone(),
            tag: std::mem::take(&mut self.tag),
            list: std::mem::take(&mut self.list),
            raw: std::mem::take(&mut self.raw),
            open: false,
        };
        held.finish(Verdict::Back);
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::Closed, "settling: the bus is closed, and the message was given back")
}
