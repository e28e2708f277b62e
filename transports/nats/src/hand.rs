//! What is in this process's hands: deliveries whose lease is kept up until they are settled or given back.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_nats::Subject;
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval},
};

use crate::{declare::LEASE, link::Link};

/// How often to look, and after how long the server is told that work goes on.
const LOOK: Duration = Duration::from_secs(2);
const KEEP: Duration = Duration::from_millis(LEASE.as_millis() as u64 / 3);
/// The most deliveries that are remembered as given back by ourselves, and that wait to be given back.
const MOST_RETURNED: usize = 100_000;
const MOST_WAITING: usize = 65_536;

pub(crate) const NAK: &str = "-NAK";

/// All deliveries in hand.
pub(crate) struct Hand {
    held: Mutex<HashMap<u64, InHand>>,
    next: AtomicU64,
    returned: Mutex<HashMap<Stored, u32>>,
    link: Arc<Link>,
    back: mpsc::Sender<Subject>,
}

/// Which message of which consumer: `STREAM.CONSUMER`, its number in the stream, and when it was stored.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Stored {
    pub(crate) place: Arc<str>,
    pub(crate) seq: u64,
    pub(crate) time: u64,
}

#[derive(Debug)]
struct InHand {
    stored: Stored,
    ack: Subject,
    /// When the server heard last that it is in hand.
    told: Instant,
}

/// One delivery in hand. Dropping it ends that.
pub(crate) struct Held {
    hand: Arc<Hand>,
    id: u64,
}

impl Hand {
    /// Keeps leases up until the bus ends.
    pub(crate) fn start(link: Arc<Link>) -> Arc<Self> {
        let (back, orders) = mpsc::channel(MOST_WAITING);
        let hand = Arc::new(Self {
            held: Mutex::default(),
            next: AtomicU64::new(0),
            returned: Mutex::default(),
            link: link.clone(),
            back,
        });
        tokio::spawn(give_back(link.clone(), orders));
        tokio::spawn(keep(link, hand.clone()));
        hand
    }

    /// Takes a delivery in hand, by the subject that settles it.
    pub(crate) fn hold(self: &Arc<Self>, stored: Stored, ack: Subject) -> Held {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        self.held().insert(id, InHand { stored, ack, told: Instant::now() });
        Held { hand: self.clone(), id }
    }

    /// Gives a delivery back without waiting: it comes again at once, and that counts as no crash.
    pub(crate) fn give_back(&self, stored: Stored, ack: Subject) {
        self.note_returned(stored);
        if !self.link.post_now(&ack, NAK) && self.back.try_send(ack).is_err() {
            tracing::debug!("a delivery was not given back: it comes again when its lease ends");
        }
    }

    /// Notes that this process gives the message back, and tells those who read at the same place, before the server
    /// can give it to one of them.
    pub(crate) fn note_returned(&self, stored: Stored) {
        let text = format!("{} {} {}", self.link.id(), stored.seq, stored.time);
        self.link.post_now(&self.link.names.returns(&stored.place).into(), text);
        self.note(stored);
    }

    /// Notes what another process told of `place`.
    pub(crate) fn heard(&self, place: &Arc<str>, payload: &[u8]) {
        let words = std::str::from_utf8(payload).ok().map(|text| text.split(' '));
        let Some(mut words) = words else { return };
        if let (Some(id), Some(Ok(seq)), Some(Ok(time))) =
            (words.next(), words.next().map(str::parse), words.next().map(str::parse))
            && id != self.link.id()
        {
            self.note(Stored { place: place.clone(), seq, time });
        }
    }

    fn note(&self, stored: Stored) {
        let mut returned = self.returned.lock().unwrap_or_else(PoisonError::into_inner);
        if returned.len() >= MOST_RETURNED {
            returned.clear();
        }
        *returned.entry(stored).or_default() += 1;
    }

    /// How often the message was given back, as far as this process knows.
    pub(crate) fn returned(&self, stored: &Stored) -> u32 {
        self.returned.lock().unwrap_or_else(PoisonError::into_inner).get(stored).copied().unwrap_or(0)
    }

    /// The message will not come again.
    pub(crate) fn forget(&self, stored: &Stored) {
        self.returned.lock().unwrap_or_else(PoisonError::into_inner).remove(stored);
    }

    /// Takes everything out of hand: what is to be given back when the bus closes.
    pub(crate) fn empty(&self) -> Vec<Subject> {
        let mut held: Vec<(u64, InHand)> = self.held().drain().collect();
        held.sort_by_key(|(id, _)| *id);
        let tell = |(_, held): (u64, InHand)| {
            self.note_returned(held.stored);
            held.ack
        };
        held.into_iter().map(tell).collect()
    }

    fn held(&self) -> MutexGuard<'_, HashMap<u64, InHand>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.hand.held().remove(&self.id);
    }
}

async fn give_back(link: Arc<Link>, mut orders: mpsc::Receiver<Subject>) {
    loop {
        tokio::select! {
            biased;
            ack = orders.recv() => match ack {
                Some(ack) => link.post(ack, NAK).await,
                None => return,
            },
            () = link.end.cancelled() => return,
        }
    }
}

async fn keep(link: Arc<Link>, hand: Arc<Hand>) {
    let mut state = link.state();
    let mut tick = interval(LOOK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let after = tokio::select! {
            () = link.end.cancelled() => return,
            _ = tick.tick() => KEEP,
            // Nobody knows what the last connection still carried.
            _ = state.changed() => Duration::ZERO,
        };
        if !state.borrow_and_update().up {
            continue;
        }
        let now = Instant::now();
        let due: Vec<Subject> = hand
            .held()
            .values_mut()
            .filter(|held| held.told + after <= now)
            .map(|held| {
                held.told = now;
                held.ack.clone()
            })
            .collect();
        for ack in due {
            link.post(ack, "+WPI").await;
        }
    }
}
