//! Jobs and events: stored on one bus until they are stored on the other, each with its id.

use std::{collections::HashMap, sync::Arc, time::Duration};

use commissaire::{
    Begun, Delivery, Key, Ledger, LocalLedger, Message, Origin, Pattern, Result, Source, Survey,
    service::DEFAULT_DEDUP,
};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{
    Span,
    calls::read,
    counters::{Outcome, What},
};

/// How many are in hand at one time.
const PREFETCH: u16 = 256;
/// What marks what a bridge has carried, with its name.
const MARK: &str = "x-bridge";
/// How long one message may take to be stored, for the ledger; and when one that was not is tried again.
const LEASE: Duration = Duration::from_secs(30);
const AGAIN: Duration = Duration::from_secs(1);
/// The most that a survey may take.
const SURVEY: Duration = Duration::from_secs(5);
/// How often it must be seen that nobody takes jobs where they are, before they are carried.
const SEEN: usize = 2;

/// See the module.
pub(super) struct Stored {
    span: Arc<Span>,
    /// Who remembers what is on each bus already; a broker that knows ids by itself needs nobody.
    ledgers: [Option<Arc<dyn Ledger>>; 2],
    /// Queues that are carried, by the bus that they are taken from.
    carried: HashMap<(usize, Key), CancellationToken>,
    /// How often in turn a queue was seen to be one to carry, or one not to.
    seen: HashMap<(usize, Key), usize>,
}

impl Stored {
    pub(super) fn new(span: Arc<Span>) -> Self {
        let ledgers = [0, 1].map(|at| {
            let bus = &span.buses[at];
            match bus.guarantees().republish_window {
                Some(_) => None,
                None => Some(bus.ledger().unwrap_or_else(|| Arc::new(LocalLedger::default()))),
            }
        });
        Self { span, ledgers, carried: HashMap::new(), seen: HashMap::new() }
    }

    /// Carries the events of `patterns`, both ways.
    pub(super) async fn hear(&self, patterns: &[Pattern]) -> Result<()> {
        if patterns.is_empty() {
            return Ok(());
        }
        for at in 0..2 {
            let source = Source::Durable(self.span.name.clone(), patterns.to_vec());
            let events = self.span.buses[at].subscribe(source, PREFETCH).await?;
            self.carry(at, What::Events, events, self.span.closing.child_token());
        }
        Ok(())
    }

    /// What both brokers tell.
    pub(super) async fn surveys(&self) -> [Option<Survey>; 2] {
        let ask = |at: usize| async move { timeout(SURVEY, self.span.buses[at].survey()).await.ok()?.ok() };
        let (one, other) = futures_util::join!(ask(0), ask(1));
        [one, other]
    }

    /// Carries the jobs of `queue` to where they are taken, if nobody takes them where they are.
    pub(super) async fn look(&mut self, queue: &Key, surveys: &[Option<Survey>; 2]) {
        for at in 0..2 {
            let place = (at, queue.clone());
            let carrying = self.carried.contains_key(&place);
            let wanted = match [self.takers(at, queue, surveys), self.takers(1 - at, queue, surveys)] {
                [Some(here), Some(there)] => here == 0 && there > 0,
                _ => carrying,
            };
            let seen = self.seen.entry(place.clone()).or_default();
            *seen = if wanted == carrying { 0 } else { *seen + 1 };
            if *seen < SEEN {
                continue;
            }
            *seen = 0;
            if carrying {
                if let Some(closing) = self.carried.remove(&place) {
                    closing.cancel();
                }
                continue;
            }
            match self.span.buses[at].subscribe(Source::Queue(queue.clone()), PREFETCH).await {
                Ok(jobs) => {
                    let closing = self.span.closing.child_token();
                    self.carried.insert(place, closing.clone());
                    tracing::info!(%queue, bus = at, "its jobs are carried from here");
                    self.carry(at, What::Jobs, jobs, closing);
                }
                Err(error) => tracing::warn!(%queue, %error, "its jobs are not carried yet"),
            }
        }
    }

    /// How many take jobs of `queue` on the bus `at`, without the bridge; `None` when its broker does not tell.
    fn takers(&self, at: usize, queue: &Key, surveys: &[Option<Survey>; 2]) -> Option<u64> {
        let survey = surveys[at].as_ref()?;
        let what = commissaire::What::Queue(queue.clone());
        let Some(declared) = survey.declared.iter().find(|declared| declared.what == what) else {
            return Some(0);
        };
        let own = u64::from(self.carried.contains_key(&(at, queue.clone())));
        Some(declared.consumers?.saturating_sub(own))
    }

    fn carry(
        &self,
        at: usize,
        what: What,
        subscription: commissaire::Subscription,
        closing: CancellationToken,
    ) {
        let (span, ledger) = (self.span.clone(), self.ledgers[1 - at].clone());
        self.span.tasks.spawn(async move {
            let tasks = span.tasks.clone();
            read(subscription, closing, |delivery| {
                let (span, ledger) = (span.clone(), ledger.clone());
                tasks.spawn(async move { pass(&span, at, what, ledger, delivery).await });
            })
            .await;
        });
    }
}

/// Stores one message on the other bus, once, and only then lets go of it here.
async fn pass(span: &Span, at: usize, what: What, ledger: Option<Arc<dyn Ledger>>, delivery: Delivery) {
    // What the bridge itself brought here is not taken back.
    if delivery.message().headers().get(MARK) == Some(span.name.as_str()) && matches!(what, What::Events) {
        let _ = delivery.ack().await;
        return;
    }
    let outcome = match store(span, at, ledger, delivery.message()).await {
        Ok(outcome) => outcome,
        Err(error) => {
            tracing::warn!(to = %delivery.message().address(), %error, "it was not carried, and is tried again");
            Outcome::Failed
        }
    };
    span.counters.count(what, at, outcome);
    let settled = match outcome {
        Outcome::Failed => {
            let message = delivery.message().clone();
            delivery.settle(commissaire::Settlement::Retry { after: AGAIN, message }).await
        }
        Outcome::Carried | Outcome::Double => delivery.ack().await,
    };
    if let Err(error) = settled {
        tracing::warn!(%error, "it is carried, and comes again");
    }
}

async fn store(
    span: &Span,
    at: usize,
    ledger: Option<Arc<dyn Ledger>>,
    message: &Message,
) -> Result<Outcome> {
    let marked = message.clone().with(MARK, span.name.as_str())?;
    let bus = &span.buses[1 - at];
    let (Some(ledger), Some(id)) = (ledger, message.id()) else {
        bus.publish(marked).await?;
        return Ok(Outcome::Carried);
    };
    // A place of its own: that it is on the other bus does not mean that it was done there.
    let place = Origin::Durable(span.name.clone());
    let holder = id.0.as_u128();
    match ledger.begin(&place, id, holder, LEASE).await? {
        Begun::Done => return Ok(Outcome::Double),
        Begun::Running | Begun::Fresh => {}
    }
    let published = bus.publish(marked).await;
    let done = published.is_ok().then_some(DEFAULT_DEDUP);
    ledger.end(&place, id, holder, done).await?;
    published.map(|()| Outcome::Carried)
}
