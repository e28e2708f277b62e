//! A ledger in the memory of one process.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use tokio::time::Instant;

use super::{Begun, Ledger};
use crate::{
    address::Origin,
    error::{Error, ErrorKind, Result},
    message::MessageId,
    time::from_now,
};

/// How many messages it knows at one time. Ten minutes of 1,700 messages a second, in less
/// than 100 MB.
const MOST: usize = 1 << 20;
/// With how many it looks for the first time for those that it need not know any more.
const FEW: usize = 1024;

/// A [`Ledger`] in the memory of this process, for one process alone.
///
/// What it promised to know it does not forget early: when it is full, [`begin`](Ledger::begin) fails with
/// [`Full`](ErrorKind::Full) until the time of others has passed.
#[derive(Debug)]
pub struct LocalLedger {
    runs: Mutex<Runs>,
    most: usize,
}

#[derive(Debug)]
struct Runs {
    /// Origins are few, and each stands once.
    places: HashMap<Origin, u32>,
    /// By whom, and until when.
    running: HashMap<(u32, MessageId), (u128, Instant)>,
    /// Until when that is known.
    done: HashMap<(u32, MessageId), Instant>,
    /// With how many it looks for those whose time has passed, and when at the earliest.
    look: (usize, Instant),
}

impl Default for LocalLedger {
    fn default() -> Self {
        Self::with_room(MOST)
    }
}

impl LocalLedger {
    /// One that knows at most `most` messages.
    pub fn with_room(most: usize) -> Self {
        let look = (FEW, Instant::now());
        let runs = Runs { places: HashMap::new(), running: HashMap::new(), done: HashMap::new(), look };
        Self { runs: Mutex::new(runs), most }
    }

    /// That of this process. Ids are unique, so that all buses can share it.
    pub(crate) fn of_process() -> Arc<dyn Ledger> {
        static LEDGER: LazyLock<Arc<LocalLedger>> = LazyLock::new(Arc::default);
        LEDGER.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Runs> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Runs {
    fn place(&mut self, place: &Origin) -> u32 {
        if let Some(number) = self.places.get(place) {
            return *number;
        }
        let number = self.places.len() as u32;
        self.places.insert(place.clone(), number);
        number
    }

    /// Whether it was done.
    fn is_done(&self, known: (u32, MessageId)) -> bool {
        self.done.get(&known).is_some_and(|until| *until > Instant::now())
    }

    /// Who runs it.
    fn holder(&self, known: (u32, MessageId)) -> Option<u128> {
        self.running.get(&known).filter(|(_, until)| *until > Instant::now()).map(|(holder, _)| *holder)
    }

    /// Whether there is room for one more, once what has passed is forgotten.
    fn has_room(&mut self, most: usize) -> bool {
        let (many, now) = (self.running.len() + self.done.len(), Instant::now());
        if many >= self.look.0 || (many >= most && now >= self.look.1) {
            self.running.retain(|_, (_, until)| *until > now);
            self.done.retain(|_, until| *until > now);
            let left = self.running.len() + self.done.len();
            self.look = ((2 * left).max(FEW), now + Duration::from_secs(1));
        }
        self.running.len() + self.done.len() < most
    }
}

#[async_trait]
impl Ledger for LocalLedger {
    async fn begin(&self, place: &Origin, id: MessageId, holder: u128, lease: Duration) -> Result<Begun> {
        let mut runs = self.lock();
        let known = (runs.place(place), id);
        if runs.is_done(known) {
            return Ok(Begun::Done);
        }
        match runs.holder(known) {
            Some(other) if other != holder => return Ok(Begun::Running),
            Some(_) => {}
            None if runs.has_room(self.most) => {}
            None => {
                let what = format!(
                    "the ledger knows {} messages, the most that it can, and no other of {place} can begin until it may \
                     forget some: use a shorter window",
                    self.most
                );
                return Err(Error::new(ErrorKind::Full, what));
            }
        }
        runs.running.insert(known, (holder, from_now(lease)));
        Ok(Begun::Fresh)
    }

    async fn end(&self, place: &Origin, id: MessageId, holder: u128, done: Option<Duration>) -> Result<()> {
        let mut runs = self.lock();
        let known = (runs.place(place), id);
        if runs.is_done(known) || runs.holder(known).is_some_and(|other| other != holder) {
            return Ok(());
        }
        runs.running.remove(&known);
        if let Some(window) = done {
            runs.done.insert(known, from_now(window));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::{Key, Token};

    const LEASE: Duration = Duration::from_secs(60);

    fn place() -> Origin {
        Origin::Queue(Key::new("jobs.a").unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn one_runs_until_its_lease_has_passed() {
        let (ledger, id) = (LocalLedger::default(), MessageId::new());
        let begin = |holder| {
            let ledger = &ledger;
            async move { ledger.begin(&place(), id, holder, LEASE).await.unwrap() }
        };
        assert_eq!(begin(1).await, Begun::Fresh);
        assert_eq!(begin(2).await, Begun::Running);
        tokio::time::advance(LEASE / 2).await;
        assert_eq!(begin(1).await, Begun::Fresh);
        tokio::time::advance(LEASE / 2).await;
        assert_eq!(begin(2).await, Begun::Running, "it was made longer");
        tokio::time::advance(LEASE / 2).await;
        assert_eq!(begin(2).await, Begun::Fresh);
        assert_eq!(begin(1).await, Begun::Running);
        ledger.end(&place(), id, 1, Some(LEASE)).await.unwrap();
        assert_eq!(begin(3).await, Begun::Running, "the run of another was ended");
        ledger.end(&place(), id, 2, None).await.unwrap();
        assert_eq!(begin(3).await, Begun::Fresh);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_done_is_known_for_so_long_and_in_its_place() {
        let (ledger, id) = (LocalLedger::default(), MessageId::new());
        assert_eq!(ledger.begin(&place(), id, 1, LEASE).await.unwrap(), Begun::Fresh);
        ledger.end(&place(), id, 1, Some(2 * LEASE)).await.unwrap();
        ledger.end(&place(), id, 1, None).await.unwrap();
        tokio::time::advance(2 * LEASE - Duration::from_millis(1)).await;
        assert_eq!(ledger.begin(&place(), id, 1, LEASE).await.unwrap(), Begun::Done);
        let other = Origin::Durable(Token::new("a").unwrap());
        assert_eq!(ledger.begin(&other, id, 1, LEASE).await.unwrap(), Begun::Fresh);
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(ledger.begin(&place(), id, 2, LEASE).await.unwrap(), Begun::Fresh);
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_full_rather_than_forgetful() {
        let ledger = LocalLedger::with_room(2_000);
        let ids: Vec<MessageId> = (0..2_000).map(|_| MessageId::new()).collect();
        for id in &ids {
            ledger.begin(&place(), *id, 1, LEASE).await.unwrap();
            ledger.end(&place(), *id, 1, Some(LEASE)).await.unwrap();
        }
        let full = ledger.begin(&place(), MessageId::new(), 1, LEASE).await.unwrap_err();
        assert_eq!(full.kind(), &ErrorKind::Full);
        assert!(full.is_temporary());
        assert_eq!(ledger.begin(&place(), ids[0], 1, LEASE).await.unwrap(), Begun::Done);
        tokio::time::advance(LEASE).await;
        assert_eq!(ledger.begin(&place(), MessageId::new(), 1, LEASE).await.unwrap(), Begun::Fresh);
        assert!(ledger.lock().done.is_empty(), "what has passed is forgotten");
    }
}
