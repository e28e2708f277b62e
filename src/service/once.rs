//! The dedup layer: what comes twice is run once.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, sleep, timeout};

use crate::{
    address::Origin,
    backoff::Backoff,
    delivery::Delivery,
    error::{Error, Result},
    ledger::{Begun, Ledger},
    message::MessageId,
};

/// How long a run is this instance's alone when it is not renewed.
const LEASE: Duration = Duration::from_secs(60);
/// How long a message rests that another runs now, or that the ledger cannot be asked about.
const REST: Duration = Duration::from_secs(1);
/// How long the ledger may take for one answer.
const STEP: Duration = Duration::from_secs(10);
/// How long noting that a run is done is tried.
const NOTING: Duration = Duration::from_secs(30);
const BACKOFF: Backoff = Backoff { first: Duration::from_millis(200), most: Duration::from_secs(5) };

/// The runs of one source, each message at most once within `window`.
pub(super) struct Once {
    ledger: Arc<dyn Ledger>,
    place: Origin,
    window: Duration,
    /// Whether the ledger failed when it was last asked.
    troubled: AtomicBool,
}

/// What becomes of a delivery.
pub(super) enum Verdict {
    /// Its run ended; `None` when it did not come to a run.
    Ended(Option<Result<()>>),
    /// It was done before.
    Done,
    /// It is to come again after so long, as it is.
    Wait(Duration),
    /// It cannot be told from others.
    Unknowable,
}

/// A lease on one run. One that is dropped before its end is given back: the run was cut off.
struct Held<'a> {
    once: &'a Once,
    id: MessageId,
    holder: u128,
    /// Until when the run is ours alone, by a clock that began before the ledger's.
    until: Instant,
    ended: bool,
}

impl Once {
    pub(super) fn new(ledger: Arc<dyn Ledger>, place: Origin, window: Duration) -> Self {
        Self { ledger, place, window, troubled: AtomicBool::new(false) }
    }

    /// Runs `run` unless `message` was done, or is being run elsewhere. A ledger that does not answer never lets a
    /// message run unguarded: it waits. A run whose lease is lost, as it could not be renewed in time, is dropped.
    pub(super) async fn run<R>(&self, delivery: &Delivery, run: R) -> Verdict
    where
        R: Future<Output = Option<Result<()>>>,
    {
        let Some(id) = delivery.message().id() else { return Verdict::Unknowable };
        let mut held =
            Held { once: self, id, holder: rand::random(), until: Instant::now() + LEASE, ended: true };
        // What its consumer died of waits in hand for the lease of the dead to pass: given back, it would come as new,
        // and how often it killed would be forgotten.
        let patient = (delivery.redelivered() > 0).then(|| Instant::now() + LEASE + STEP);
        loop {
            match held.begin().await {
                Ok(Begun::Fresh) => break,
                Ok(Begun::Done) => return Verdict::Done,
                _ if patient.is_some_and(|until| Instant::now() < until) => sleep(REST).await,
                Ok(Begun::Running) | Err(_) => return Verdict::Wait(REST),
            }
        }
        held.ended = false;
        let ended = {
            tokio::pin!(run);
            tokio::select! {
                biased;
                outcome = &mut run => Some(outcome),
                () = held.keep() => None,
            }
        };
        let Some(outcome) = ended else {
            tracing::warn!(place = %self.place, %id, "the lease on a run was lost, and the run was dropped");
            return Verdict::Wait(REST);
        };
        held.end(matches!(outcome, Some(Ok(())))).await;
        Verdict::Ended(outcome)
    }

    async fn ask<T>(&self, what: &str, step: impl Future<Output = Result<T>>) -> Result<T> {
        let answer = timeout(STEP, step).await.unwrap_or_else(|_| Err(Error::timeout(what, STEP)));
        let troubled = answer.is_err();
        if self.troubled.swap(troubled, Ordering::Relaxed) != troubled {
            match &answer {
                Ok(_) => tracing::info!(place = %self.place, "the ledger answers again"),
                Err(error) => {
                    tracing::warn!(place = %self.place, %error, "the ledger fails: messages wait until it answers");
                }
            }
        }
        answer
    }
}

impl Held<'_> {
    /// Takes the lease, or makes it longer.
    async fn begin(&mut self) -> Result<Begun> {
        let asked = Instant::now();
        let once = self.once;
        let begun = once.ledger.begin(&once.place, self.id, self.holder, LEASE);
        let begun = once.ask("asking the ledger", begun).await?;
        if begun == Begun::Fresh {
            self.until = asked + LEASE;
        }
        Ok(begun)
    }

    /// Renews the lease; returns when it is lost.
    async fn keep(&mut self) {
        loop {
            sleep(LEASE / 3).await;
            loop {
                let left = self.until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return;
                }
                match timeout(left, self.begin()).await {
                    Ok(Ok(Begun::Fresh)) => break,
                    Ok(Ok(Begun::Running | Begun::Done)) | Err(_) => return,
                    Ok(Err(_)) => sleep(REST.min(left)).await,
                }
            }
        }
    }

    /// Notes that the run is over. What cannot be noted as done although it was is acknowledged all the same: to run it
    /// again would be worse than to run a second copy of it, should there be one.
    async fn end(mut self, done: bool) {
        let until = Instant::now() + NOTING;
        let mut attempt = 0;
        self.ended = true;
        loop {
            attempt += 1;
            let step = self.note(done.then_some(self.once.window));
            let Err(error) = self.once.ask("telling the ledger", step).await else { return };
            let rest = BACKOFF.after(attempt);
            // Without a note, what failed may run again when its lease has passed.
            if !done || Instant::now() + rest > until {
                if done {
                    let (place, id) = (&self.once.place, self.id);
                    tracing::warn!(%place, %id, %error, "a run was not noted as done: a copy of it would run again");
                }
                return;
            }
            sleep(rest).await;
        }
    }

    async fn note(&self, done: Option<Duration>) -> Result<()> {
        self.once.ledger.end(&self.once.place, self.id, self.holder, done).await
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        // Without a runtime the program is ending, and the lease passes by itself.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if self.ended {
            return;
        }
        let (ledger, place) = (self.once.ledger.clone(), self.once.place.clone());
        let (id, holder) = (self.id, self.holder);
        runtime.spawn(async move {
            if let Ok(Err(error)) = timeout(STEP, ledger.end(&place, id, holder, None)).await {
                tracing::debug!(%place, %id, %error, "a lease was not given back and passes by itself");
            }
        });
    }
}
