//! A walk over the dead letters of one origin, each seen once.

use std::{collections::HashSet, sync::Arc, time::Duration};

use commissaire::{
    Bus, DeadLetter, Delivery, Error, Origin, Received, Result, Source, Subscription,
    app::{Failure, until_told},
};
use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::SelectAll};
use tokio::time::{Instant, sleep, sleep_until};

use super::origin::Place;

/// The most letters in hand.
const MOST: usize = 10_000;
/// The most bytes of letters in hand.
const MOST_BYTES: usize = 256 << 20;
/// The places of one subscription: its buffer never holds more than so many letters of 1 MiB.
const PAGE: u16 = 256;
/// How long no letter may come until there are no more, where the broker does not tell how many there are.
const SILENCE: Duration = Duration::from_secs(3);
/// How long, where it has told: what another program had in hand when it died comes again.
const PATIENCE: Duration = Duration::from_secs(8);

/// A walk over the dead letters of one origin. What is [kept](Self::keep) stays in hand until the walk is over, so that
/// it does not come again meanwhile, and is then given back as it was.
pub(crate) struct Walk {
    bus: Arc<dyn Bus>,
    origin: Origin,
    readers: SelectAll<Subscription>,
    kept: Vec<Delivery>,
    kept_bytes: usize,
    seen: HashSet<String>,
    looked_at: u64,
    letters: Option<u64>,
    end: Option<End>,
    told: BoxFuture<'static, ()>,
}

/// Why a walk ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// It has seen all letters that there were when it began.
    All,
    /// As many are in hand as may be.
    Full,
    /// A signal told it to end.
    Told,
    /// The broker told of so many letters more, which did not come: somebody else has them in hand.
    Missing(u64),
}

impl Walk {
    /// Begins a walk over `place`. From now on a signal ends it, between two letters.
    pub(crate) async fn begin(bus: Arc<dyn Bus>, place: &Place) -> Result<Self> {
        let told = until_told(&Failure::default())?;
        let mut walk = Self {
            bus,
            origin: place.origin.clone(),
            readers: SelectAll::new(),
            kept: Vec::new(),
            kept_bytes: 0,
            seen: HashSet::new(),
            looked_at: 0,
            letters: place.letters,
            end: (place.letters == Some(0)).then_some(End::All),
            told: Box::pin(told.map(drop)),
        };
        if walk.end.is_none() {
            walk.read_more().await?;
        }
        Ok(walk)
    }

    /// The next letter; `None` when the walk is over. A letter that died again meanwhile is passed over.
    pub(crate) async fn next(&mut self) -> Result<Option<(Delivery, DeadLetter)>> {
        while self.end.is_none() {
            if self.letters.is_some_and(|letters| self.looked_at >= letters) {
                self.end = Some(End::All);
            } else if self.kept.len() >= MOST || self.kept_bytes >= MOST_BYTES {
                self.end = Some(End::Full);
            } else if let Some(delivery) = self.receive().await? {
                let letter = DeadLetter::of(delivery.message());
                if letter.id.as_ref().is_some_and(|id| !self.seen.insert(id.clone())) {
                    self.keep(delivery);
                    continue;
                }
                self.looked_at += 1;
                return Ok(Some((delivery, letter)));
            } else if self.end.is_none() {
                let missing = self.letters.map_or(0, |letters| letters - self.looked_at);
                self.end = Some(if missing == 0 { End::All } else { End::Missing(missing) });
            }
        }
        Ok(None)
    }

    /// Rests until `until`, unless it is told to end: then `false`.
    pub(crate) async fn rest(&mut self, until: Instant) -> bool {
        let in_time = tokio::select! {
            biased;
            () = &mut self.told => false,
            () = sleep_until(until) => true,
        };
        if !in_time {
            self.end = Some(End::Told);
        }
        in_time
    }

    /// Keeps `delivery` in hand until the walk is over.
    pub(crate) fn keep(&mut self, delivery: Delivery) {
        self.kept_bytes += delivery.message().size();
        self.kept.push(delivery);
    }

    /// How many letters it has seen.
    pub(crate) fn looked_at(&self) -> u64 {
        self.looked_at
    }

    /// Gives everything back; says why the walk ended, if it did by itself.
    pub(crate) fn finish(mut self) -> Option<End> {
        // First nobody reads any more, so that what is given back does not come again here.
        self.readers.clear();
        self.kept.clear();
        self.end
    }

    /// The next delivery; `None` when none has come for long, or when it was told to end.
    async fn receive(&mut self) -> Result<Option<Delivery>> {
        // The places of all readers are taken by what is in hand.
        if self.kept.len() >= self.readers.len() * usize::from(PAGE) {
            self.read_more().await?;
        }
        let silence = sleep(if self.letters.is_some() { PATIENCE } else { SILENCE });
        tokio::pin!(silence);
        loop {
            let received = tokio::select! {
                biased;
                () = &mut self.told => {
                    self.end = Some(End::Told);
                    return Ok(None);
                }
                received = self.readers.next() => received,
                () = &mut silence => return Ok(None),
            };
            match received {
                Some(Received::Delivery(delivery)) => return Ok(Some(delivery)),
                Some(Received::Gap(_)) => {}
                None => return Err(Error::unavailable("the bus was closed while dead letters were read")),
            }
        }
    }

    async fn read_more(&mut self) -> Result<()> {
        let reader = self.bus.subscribe(Source::DeadLetters(self.origin.clone()), PAGE).await?;
        self.readers.push(reader);
        Ok(())
    }
}
