//! What is written down of an operation: a record for each host, and what happened, numbered.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use commissaire::{Error, Result, time::timestamp};
use commissaire_api::{
    OperationHost,
    clusterexec::{ClusterexecEvent, OperationKind},
    record::{HostFailure, HostProgress, HostStage, Transition, members},
    storage::{List, ListParams, MAX_PAGE, Page},
};
use serde_json::{Map, Value};

use crate::state::State;

/// How many records are saved at once: fewer than the least that a store takes.
const AT_ONCE: usize = 100;

/// Why the work on a host ended before its end.
#[derive(Debug)]
pub(crate) enum Halt {
    /// Something failed there.
    Failed(Box<HostFailure>),
    /// It could not be reached, and nothing was done.
    Unreachable(Box<HostFailure>),
    /// Somebody else works on the operation.
    Taken,
    /// The storage, or the bus: it is taken up again.
    Interrupted(Error),
}

impl From<Error> for Halt {
    fn from(error: Error) -> Self {
        Self::Interrupted(error)
    }
}

/// Where an operation is written down.
#[derive(Debug)]
pub(crate) struct Ledger {
    pub(crate) state: Arc<State>,
    pub(crate) kind: OperationKind,
    pub(crate) cluster: String,
    pub(crate) run: String,
    seq: AtomicU64,
}

/// The record of a host in the hands of this instance.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) address: String,
    pub(crate) stage: HostStage,
    pub(crate) progress: HostProgress,
}

impl Ledger {
    pub(crate) fn new(state: Arc<State>, kind: OperationKind, cluster: &str, run: &str, seen: u64) -> Self {
        Self { state, kind, cluster: cluster.to_owned(), run: run.to_owned(), seq: AtomicU64::new(seen) }
    }

    /// Makes the records of these hosts, in their order, where they are not of this operation yet; and removes those of
    /// operations before.
    pub(crate) async fn prepare(&self, addresses: &[String]) -> Result<()> {
        let storage = &self.state.storage;
        let there = all(&self.state, &self.cluster).await?;
        let is_ours =
            |address: &String| there.iter().any(|host| host.run == self.run && host.address == *address);
        let new = addresses.iter().enumerate().filter(|(_, address)| !is_ours(address));
        let new: Vec<OperationHost> = new
            .map(|(place, address)| OperationHost {
                run: self.run.clone(),
                progress: members(&HostProgress { place, ..HostProgress::default() }),
                ..OperationHost::of(&self.cluster, address)
            })
            .collect();
        for some in new.chunks(AT_ONCE) {
            storage.save_all(some).await?;
        }
        for old in there.iter().filter(|host| host.run != self.run && !addresses.contains(&host.address)) {
            match storage.delete::<OperationHost>(&old.host).await {
                Err(error) if error.remote().is_none() => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Takes the records of this operation into our hands, in their order.
    pub(crate) async fn take(&self) -> Result<Vec<Entry>, Halt> {
        let mut entries = Vec::new();
        for host in all(&self.state, &self.cluster).await?.into_iter().filter(|host| host.run == self.run) {
            let mut entry =
                Entry { address: host.address.clone(), stage: host.stage, progress: host.progress() };
            self.seq.fetch_max(entry.progress.history.last().map_or(0, |last| last.seq), Ordering::Relaxed);
            if !entry.stage.is_over() {
                entry.progress.attempts += u32::from(entry.stage != HostStage::Pending);
                self.save(&entry, true).await?;
            }
            entries.push(entry);
        }
        entries.sort_by_key(|entry| entry.progress.place);
        Ok(entries)
    }

    /// Writes down that a host is at another stage, and then tells it.
    pub(crate) async fn enter(&self, entry: &mut Entry, stage: HostStage, text: &str) -> Result<(), Halt> {
        let happened = self.happened(stage.as_str(), text);
        entry.stage = stage;
        entry.progress.history.push(happened.clone());
        self.save(entry, false).await?;
        self.tell(&happened, &entry.address).await;
        Ok(())
    }

    /// Writes down what was done to a host.
    pub(crate) async fn write(&self, entry: &Entry) -> Result<(), Halt> {
        self.save(entry, false).await
    }

    async fn save(&self, entry: &Entry, take: bool) -> Result<(), Halt> {
        let key = OperationHost::of(&self.cluster, &entry.address).host;
        let holder = self.state.runs.instance();
        let progress = members(&entry.progress);
        let mut is_ours = false;
        let saved = self.state.storage.update::<OperationHost>(&key, |record| {
            is_ours = record.run == self.run && (take || record.holder == holder);
            if is_ours {
                holder.clone_into(&mut record.holder);
                record.stage = entry.stage;
                record.progress.clone_from(&progress);
            }
        });
        saved.await?;
        if is_ours { Ok(()) } else { Err(Halt::Taken) }
    }

    /// Something that happens now.
    pub(crate) fn happened(&self, state: &str, text: &str) -> Transition {
        let seq = self.seq.fetch_add(1, Ordering::Relaxed) + 1;
        Transition { seq, state: state.to_owned(), text: text.to_owned(), at: timestamp() }
    }

    pub(crate) async fn tell(&self, happened: &Transition, address: &str) {
        self.state.tell(&event(self.kind, &self.cluster, &self.run, happened, address)).await;
    }
}

/// What happened, as it is told.
pub(crate) fn event(
    kind: OperationKind,
    cluster: &str,
    run: &str,
    happened: &Transition,
    address: &str,
) -> ClusterexecEvent {
    let Transition { seq, state, text, at } = happened.clone();
    let (cluster, operation, address) = (cluster.to_owned(), run.to_owned(), address.to_owned());
    ClusterexecEvent { kind, state, cluster, operation, seq, address, text, at }
}

/// The records of a cluster's hosts, of whichever operation, in their order.
pub(crate) async fn all(state: &State, cluster: &str) -> Result<Vec<OperationHost>> {
    let mut params = ListParams {
        model_type_name: "OperationHost".to_owned(),
        filter: Some(Map::from_iter([("cluster".to_owned(), Value::from(cluster))])),
        limit: Some(MAX_PAGE),
        ..ListParams::default()
    };
    let mut hosts: Vec<OperationHost> = Vec::new();
    loop {
        let listed = state.client.call(List, &params).await?;
        let malformed = |_| Error::malformed("a list is not what was asked for");
        let page: Page<OperationHost> = listed.to().map_err(malformed)?;
        hosts.extend(page.records);
        match page.next {
            Some(next) => params.after = Some(next),
            None => break,
        }
    }
    hosts.sort_by_key(|host| host.progress().place);
    Ok(hosts)
}
