//! The watch: whose turn it is, what was found, what that comes to, what is written.

mod answers;
mod hosts;
mod settings;

use std::{collections::HashMap, sync::Arc, time::Duration};

use commissaire::Client;
use commissaire_api::{
    Host, StorageClient, WatchShard,
    client::Seen,
    record::{BOOTSTRAPPING, INVESTIGATING},
    watcher::{Checked, StatusOutput, WatcherState},
};
use tokio::{
    sync::{Semaphore, mpsc, oneshot, watch},
    time::{Instant, sleep_until},
};

use answers::checked;
pub(crate) use answers::event;
pub(crate) use settings::Settings;

use crate::{
    brake::{Brake, Braking, hold},
    check::{Eye, Found},
    config::Members,
    fate::{Fate, Look},
    planned::Planned,
    record::{self, Wanted, Written},
    shards::shard_of,
    turns::{Turns, hash},
};

/// How often what is ripe is looked for, beside each look at a host.
const SETTLE: u32 = 20;

/// How many records are written at one time.
const WRITES: usize = 32;

/// What the watch is asked by others.
#[derive(Debug)]
pub(crate) enum Ask {
    /// Look at this host now, in full.
    Check(String, oneshot::Sender<Option<Checked>>),
    /// How all fares.
    Status(oneshot::Sender<StatusOutput>),
}

/// What comes of work that was begun.
pub(crate) enum Done {
    Looked {
        address: String,
        began: Instant,
        found: commissaire::Result<Found>,
        asked: Option<oneshot::Sender<Option<Checked>>>,
    },
    Wrote {
        address: String,
        written: Option<Written>,
    },
}

/// One host.
#[derive(Debug, Default)]
struct Entry {
    shard: u64,
    status: String,
    fate: Fate,
    /// What the records say of it.
    written: Option<Written>,
    looking: bool,
    writing: bool,
    looks: u32,
    /// When `last_check` is to be written again.
    note: Option<Instant>,
    /// Whether an operation was at it since it was last looked at in full.
    may_have_rebooted: bool,
    found: Option<Found>,
}

/// All hosts, as one instance sees them.
pub(crate) struct Watch {
    settings: watch::Receiver<Settings>,
    members: Members,
    client: Client,
    storage: StorageClient,
    instance: String,
    eye: Eye,
    planned: Planned,
    hosts: HashMap<String, Entry>,
    /// The shares that are ours, each with its numbers.
    ours: HashMap<u64, WatchShard>,
    turns: Turns,
    brake: Brake,
    lively: Arc<Semaphore>,
    down: Arc<Semaphore>,
    writes: Arc<Semaphore>,
    done: mpsc::Sender<Done>,
}

impl Watch {
    pub(crate) fn new(
        mut settings: watch::Receiver<Settings>,
        client: Client,
        instance: String,
        planned: Planned,
        done: mpsc::Sender<Done>,
    ) -> Self {
        let storage = StorageClient::new(client.clone());
        let now = settings.borrow_and_update().clone();
        Self {
            turns: Turns::new(now.members.interval()),
            lively: Arc::new(Semaphore::new(now.members.at_once.max(1))),
            down: Arc::new(Semaphore::new(now.members.down_at_once.max(1))),
            writes: Arc::new(Semaphore::new(WRITES)),
            eye: now.eye(&storage),
            members: now.members,
            settings,
            storage,
            client,
            instance,
            planned,
            hosts: HashMap::new(),
            ours: HashMap::new(),
            brake: Brake::default(),
            done,
        }
    }

    /// Watches until nobody asks any more.
    pub(crate) async fn run(
        mut self,
        mut hosts: mpsc::Receiver<Seen<Host>>,
        mut shares: watch::Receiver<Vec<u64>>,
        mut asks: mpsc::Receiver<Ask>,
        mut done: mpsc::Receiver<Done>,
    ) {
        let (mut heartbeat, mut settle) = self.ticks();
        loop {
            let next = self.turns.when().unwrap_or_else(|| Instant::now() + self.members.interval());
            tokio::select! {
                () = sleep_until(next) => self.take_turns(),
                Ok(()) = self.settings.changed() => {
                    self.set();
                    (heartbeat, settle) = self.ticks();
                }
                Some(done) = done.recv() => self.take(done),
                seen = hosts.recv() => match seen {
                    Some(seen) => self.see(seen).await,
                    // The bus closes.
                    None => return,
                },
                changed = shares.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let now = shares.borrow_and_update().clone();
                    self.share(&now).await;
                }
                ask = asks.recv() => match ask {
                    Some(ask) => self.answer(ask).await,
                    None => return,
                },
                _ = settle.tick() => {
                    self.settle();
                    self.begin_again().await;
                }
                _ = heartbeat.tick() => self.beat(),
            }
        }
    }

    fn is_ours(&self, address: &str) -> bool {
        self.ours.contains_key(&shard_of(address))
    }

    /// Begins to look at those whose turn it is.
    fn take_turns(&mut self) {
        let now = Instant::now();
        while let Some((address, due)) = self.turns.next(now) {
            if !self.is_ours(&address) || !self.hosts.contains_key(&address) {
                continue;
            }
            let late = now.saturating_duration_since(due) > self.members.interval() / 5;
            if let Some(share) = self.ours.get_mut(&shard_of(&address)) {
                share.late += u64::from(late);
            }
            // Its next turn of its own, whatever comes of this one.
            self.turns.set(&address, self.turns.own(&address, now.max(due)));
            self.look(&address, None);
        }
    }

    /// Begins to look at a host, unless somebody does.
    fn look(&mut self, address: &str, asked: Option<oneshot::Sender<Option<Checked>>>) {
        let full_every = self.members.full_every.max(1);
        let Some(entry) = self.hosts.get_mut(address) else { return };
        if entry.looking && asked.is_none() {
            return;
        }
        entry.looking = true;
        let turn = entry.looks.wrapping_add((hash(address) >> 40) as u32);
        // What fails must be well in full to be well again.
        let full = asked.is_some() || entry.fate.bad_since.is_some() || turn % full_every == 0;
        entry.looks = entry.looks.wrapping_add(1);
        // What fails never keeps a place from what is well.
        let places = if entry.fate.bad_since.is_some() { self.down.clone() } else { self.lively.clone() };
        let (eye, done, address) = (self.eye.clone(), self.done.clone(), address.to_owned());
        tokio::spawn(async move {
            let Ok(_place) = places.acquire_owned().await else { return };
            let began = Instant::now();
            let at = address.clone();
            let look =
                tokio::spawn(
                    async move { if full { eye.look(&at).await } else { Ok(eye.knock(&at).await) } },
                );
            let panicked = |_| Err(commissaire::Error::malformed("what the host said was too much for us"));
            let found = look.await.unwrap_or_else(panicked);
            let _ = done.send(Done::Looked { address, began, found, asked }).await;
        });
    }

    fn take(&mut self, done: Done) {
        match done {
            Done::Looked { address, began, found, asked } => {
                let found = match found {
                    Ok(found) => found,
                    Err(error) => {
                        tracing::debug!(address, %error, "a host could not be looked at");
                        if let Some(entry) = self.hosts.get_mut(&address) {
                            entry.looking = false;
                        }
                        return;
                    }
                };
                if let Some(asked) = asked {
                    let _ = asked.send(Some(checked(&address, &found)));
                }
                self.judge(&address, began, found);
            }
            Done::Wrote { address, written } => {
                if let Some(entry) = self.hosts.get_mut(&address) {
                    entry.writing = false;
                    if let Some(written) = written {
                        entry.note =
                            Some(Instant::now() + Duration::from_secs(self.members.last_check_seconds));
                        entry.written = Some(written);
                    }
                }
                self.reconcile(&address);
            }
        }
    }

    /// What a look comes to.
    fn judge(&mut self, address: &str, began: Instant, found: Found) {
        let may_be_away = self.planned.has(address);
        let ours = self.is_ours(address);
        let (tries, interval) = (self.members.tries.max(1), self.members.interval());
        let Some(entry) = self.hosts.get_mut(address) else { return };
        entry.looking = false;
        if !ours {
            return;
        }
        if let Some(share) = self.ours.get_mut(&shard_of(address)) {
            share.checks += 1;
        }
        let at_work = [INVESTIGATING, BOOTSTRAPPING].contains(&entry.status.as_str());
        // Until it is looked at in full again: that may be long after the operation.
        entry.may_have_rebooted |= may_be_away || at_work;
        if (may_be_away || at_work) && found.look != Look::Well {
            return;
        }
        let flapped = entry.fate.take(&found.look, began);
        let before = entry.found.as_ref().and_then(|found| found.full.as_ref());
        let known = before.map(|full| full.boot_id.clone());
        let known = known.or_else(|| entry.written.as_ref().map(|written| written.boot_id.clone()));
        let mut events = Vec::new();
        if flapped {
            let state = if entry.fate.flapping.is { WatcherState::Flapping } else { WatcherState::Steady };
            events.push(event(state, address, "", ""));
        }
        if let (Some(full), Some(known)) = (&found.full, known)
            && !known.is_empty()
            && full.boot_id != known
            && !entry.may_have_rebooted
        {
            let text = "it has rebooted, and no operation had planned that";
            events.push(event(WatcherState::Rebooted, address, "", text));
        }
        if found.full.is_some() && !may_be_away {
            entry.may_have_rebooted = false;
        }
        if found.full.is_some() || found.look != Look::Well || entry.found.is_none() {
            entry.found = Some(found);
        }
        if let Some(rest) = entry.fate.rest(tries, interval, Instant::now()) {
            self.turns.set(address, (began + rest).max(Instant::now() + Duration::from_millis(50)));
        }
        self.tell(events);
        self.reconcile(address);
    }

    /// Calls those down that have failed for long enough, unless there are too many.
    fn settle(&mut self) {
        let (now, interval) = (Instant::now(), self.members.interval());
        let (tries, percent) = (self.members.tries.max(1), self.members.brake_percent);
        let lately = interval * 2;
        let (mut turned, mut all, mut ripe) = (0, 0, Vec::new());
        for (address, entry) in &self.hosts {
            if !self.ours.contains_key(&entry.shard) {
                continue;
            }
            let recent =
                entry.fate.bad_since.is_some_and(|since| now.saturating_duration_since(since) <= lately);
            // Those that have been down for long say nothing of what happens now.
            all += usize::from(!entry.fate.down || recent);
            turned += usize::from(entry.fate.bad_since.is_some() && (recent || !entry.fate.down));
            if entry.fate.is_ripe(tries, hold(interval), now) {
                ripe.push(address.clone());
            }
        }
        let judged = match (self.brake.is_on, ripe.is_empty()) {
            // Nobody is judged before somebody could be.
            (false, true) => Braking::Nothing,
            _ => self.brake.judge(turned, all, percent),
        };
        match judged {
            Braking::On => {
                let text = format!(
                    "{turned} of {all} hosts turned bad at once: no status is written until that is over"
                );
                tracing::error!("{text}");
                self.tell(vec![event(WatcherState::Braked, "", "", &text)]);
            }
            Braking::Off => {
                let text = format!("{turned} of {all} hosts are bad: statuses are written again");
                tracing::warn!("{text}");
                self.tell(vec![event(WatcherState::Released, "", "", &text)]);
                // Those that still fail may be about to come back: they are judged anew.
                self.hosts.values_mut().for_each(|entry| entry.fate.again(now));
                return;
            }
            Braking::Nothing => {}
        }
        if self.brake.is_on {
            return;
        }
        for address in ripe {
            if let Some(entry) = self.hosts.get_mut(&address) {
                entry.fate.down = true;
            }
            self.reconcile(&address);
        }
    }

    /// Has the records say what is, unless that is under way.
    fn reconcile(&mut self, address: &str) {
        let ours = self.is_ours(address);
        let Some(entry) = self.hosts.get_mut(address) else { return };
        let Some(written) = entry.written.as_ref().filter(|_| ours && !entry.writing) else { return };
        let full = entry.found.as_ref().and_then(|found| found.full.clone());
        let wanted = Wanted {
            down: entry.fate.down,
            flapping: entry.fate.flapping.is,
            cause: entry.fate.cause.clone(),
            text: entry.fate.text.clone(),
            full,
        };
        let stale = entry.fate.bad_since.is_none()
            && entry.found.is_some()
            && entry.note.is_some_and(|note| note <= Instant::now());
        if !wanted.differs(written, &entry.status) && !stale {
            return;
        }
        entry.writing = true;
        let (storage, client, done) = (self.storage.clone(), self.client.clone(), self.done.clone());
        let writes = self.writes.clone();
        let (address, before) = (address.to_owned(), written.clone());
        tokio::spawn(async move {
            let Ok(_place) = writes.acquire_owned().await else { return };
            let written = record::write(&storage, &client, &address, &before, &wanted).await;
            if written.is_none() {
                // Whatever fails is not asked again at once.
                tokio::time::sleep(Duration::from_secs(2)).await;
            }
            let _ = done.send(Done::Wrote { address, written }).await;
        });
    }
}
