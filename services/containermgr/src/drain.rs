//! Drains: a node is cordoned, its pods are told to leave, and it is over when they have left.
//!
//! What is left to do the container manager knows: pods that were told to leave say so. So a drain that is taken up looks at
//! the node, and tells none of them twice; a pod is named by its uid, not only by a name that another may have by then.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use commissaire::{Backoff, Context, Result, RpcError};
use commissaire_api::{
    NodeDrain,
    client::{Journal, request},
    container::{Blocker, ContainerState, DrainParams, Drained, FailureKind, ManagerFailure},
    record::FAILED,
};
use futures_util::{StreamExt, stream};
use serde_json::json;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use crate::{
    fault::{Fault, rpc},
    manager::{Eviction, Manager},
    methods::{check_node, check_operation},
    pod::{Fate, Pod},
    state::{State, event},
};

/// How long a drain may take where nobody says, in seconds.
const USUAL: u32 = 600;
/// How long pods have to go that are deleted at the deadline, in seconds.
const AFTER_DEADLINE: u64 = 60;
/// How often a node is looked at while its pods leave.
const LOOK: Duration = Duration::from_secs(1);
/// The rests between tries where a pod may not leave yet, or the container manager is away.
const AGAIN: Backoff = Backoff { first: Duration::from_secs(1), most: Duration::from_secs(5) };
/// How many pods are told at one time.
const AT_ONCE: usize = 16;
/// How often a run of another instance is looked at.
const OTHERS: Duration = Duration::from_millis(500);
/// How often a run is begun: one that is interrupted each time is no run.
const MOST_ATTEMPTS: u32 = 50;

/// Writes down what is wanted, and waits for its end.
pub(crate) async fn drain(
    state: Arc<State>,
    asked: DrainParams,
    _: Context,
) -> std::result::Result<Drained, RpcError> {
    check_node(&asked.address)?;
    check_operation(&asked.operation)?;
    // That there is no such container manager is told at once.
    state.managers.find(&asked.container_manager_name).await?;
    let wanted = DrainParams { no_wait: false, ..asked.clone() };
    let new = NodeDrain::of(&wanted.container_manager_name, &wanted.address);
    let run = Uuid::new_v4().simple().to_string();
    let mut theirs = None;
    let mut joined = run.clone();
    let written = state.storage.update_or_create(&new, |record| {
        let under_way: Option<DrainParams> = Some(&*record)
            .filter(|record| !record.run.is_empty() && !record.is_over() && record.run != run)
            .and_then(|record| serde_json::from_value(record.wanted.clone().into()).ok());
        (theirs, joined) = match under_way {
            Some(other) if other == wanted => (None, record.run.clone()),
            Some(other) => (Some(other.operation), record.run.clone()),
            None => {
                request(record, &run, &wanted);
                (None, run.clone())
            }
        };
    });
    let written = written.await?.record;
    if let Some(operation) = theirs {
        let text = format!("another drain of {} is under way, of {operation:?}", wanted.address);
        let data = json!({"operation": operation, "run": joined});
        return Err(RpcError::new(RpcError::CONFLICT, text).with_data(data));
    }
    state.runs.want(&new.node);
    let record = if asked.no_wait { written } else { end(&state, &new.node, &joined).await? };
    let progress = record.progress();
    match (record.status.as_str(), &progress.failure) {
        (FAILED, Some(failure)) => Err(rpc(failure)),
        _ => Ok(Drained { run: joined, status: record.status.clone(), progress }),
    }
}

/// The journal at the end of `run`.
async fn end(state: &State, node: &str, run: &str) -> std::result::Result<NodeDrain, RpcError> {
    loop {
        let over = state.runs.ending(node);
        let record = state.storage.get::<NodeDrain>(node).await?;
        if record.run != run || record.is_over() {
            return Ok(record);
        }
        let _ = timeout(OTHERS, over.heard()).await;
    }
}

/// Why a run ended before its end.
enum Stopped {
    Failed(ManagerFailure),
    /// Somebody else has taken the journal.
    Taken,
    /// The storage, or the bus: it is taken up again.
    Interrupted(commissaire::Error),
}

impl From<commissaire::Error> for Stopped {
    fn from(error: commissaire::Error) -> Self {
        Self::Interrupted(error)
    }
}

/// One drain at work.
struct Run {
    state: Arc<State>,
    journal: Journal<NodeDrain>,
    /// The pods that were there at the last look, and that were told to leave.
    leaving: BTreeMap<String, String>,
    /// Why pods may not leave yet, as it was told last.
    blocked: BTreeMap<String, String>,
    seq: u64,
}

/// Works on the journal of `node` to its end. An error: it was interrupted.
pub(crate) async fn run(state: Arc<State>, node: &str) -> Result<()> {
    let Some(journal) = Journal::open(&state.storage, node, state.runs.instance()).await? else {
        return Ok(());
    };
    let mut run = Run { state, journal, leaving: BTreeMap::new(), blocked: BTreeMap::new(), seq: 0 };
    match run.work().await {
        Ok(()) => {
            if run.journal.close(true).await? {
                run.tell(ContainerState::Drained, "", "").await;
            }
        }
        Err(Stopped::Failed(failure)) => {
            let text = failure.text.clone();
            run.journal.progress.failure = Some(failure);
            if run.journal.close(false).await? {
                run.tell(ContainerState::Failed, "", &text).await;
                tracing::warn!(node, "a drain failed: {text}");
            }
        }
        Err(Stopped::Taken) => tracing::info!(node, "another instance goes on with a drain"),
        Err(Stopped::Interrupted(error)) => return Err(error),
    }
    Ok(())
}

impl Run {
    async fn work(&mut self) -> std::result::Result<(), Stopped> {
        let DrainParams { container_manager_name: name, address, operation, deadline_seconds, .. } =
            &self.journal.wanted;
        let (name, address, operation) = (name.clone(), address.clone(), operation.clone());
        if self.journal.progress.attempts > MOST_ATTEMPTS {
            return Err(self.failed(Fault::new(FailureKind::Drain, "it was interrupted too often")));
        }
        if self.journal.progress.until == 0 {
            self.journal.progress.until = now() + u64::from(deadline_seconds.unwrap_or(USUAL));
        }
        self.tell(ContainerState::Draining, "", "").await;
        let manager = self.state.managers.find(&name).await.map_err(|error| self.unfound(&error))?;
        let cordoned = self.until_deadline(|| manager.cordon(&address, &operation)).await?;
        if cordoned.changed {
            self.tell(ContainerState::Cordoned, "", "").await;
        }
        self.journal.progress.cordoned_by = cordoned.cordoned_by;
        self.write().await?;
        let mut attempt = 0;
        loop {
            let pods = self.until_deadline(|| manager.pods(&address)).await?;
            let to_leave = self.look(pods)?;
            self.tell_gone(&to_leave).await;
            if to_leave.is_empty() {
                return self.write().await;
            }
            let due: Vec<Pod> = to_leave.iter().filter(|pod| !pod.leaving).cloned().collect();
            let before = self.journal.progress.evicted.len();
            if now() >= self.journal.progress.until {
                self.deadline(&*manager, &to_leave, &due).await?;
            } else {
                self.evict(&*manager, &due).await?;
            }
            if self.journal.progress.evicted.len() > before {
                self.write().await?;
                attempt = 0;
            }
            // While nothing may leave it is asked less and less often, but while something leaves the node is looked at.
            let moves = to_leave.len() > self.blocked.len();
            attempt += u32::from(!moves);
            let rest = if moves { LOOK } else { AGAIN.after(attempt) };
            let left = Duration::from_secs(self.journal.progress.until.saturating_sub(now()).max(1));
            sleep(rest.min(left)).await;
        }
    }

    /// The pods that are to leave, those that do included. An error where one may not be told to.
    fn look(&mut self, pods: Vec<Pod>) -> std::result::Result<Vec<Pod>, Stopped> {
        let mut refused = Vec::new();
        let mut to_leave = Vec::new();
        let mut kept = BTreeSet::new();
        for pod in pods {
            match pod.fate(&self.journal.wanted) {
                Fate::Stay(why) => drop(kept.insert(format!("{}: {why}", pod.path()))),
                // It leaves, whatever we may think of it.
                _ if pod.leaving => to_leave.push(pod),
                Fate::Leave => to_leave.push(pod),
                Fate::Refuse(why) => refused.push(Blocker { pod: pod.path(), why: why.to_owned() }),
            }
        }
        self.journal.progress.kept = kept.into_iter().collect();
        if refused.is_empty() {
            return Ok(to_leave);
        }
        let text = format!("{} may not be evicted: {}", refused[0].pod, refused[0].why);
        Err(self.failed(Fault::new(FailureKind::Drain, text).by(refused)))
    }

    /// Tells the pods to leave whose budgets allow.
    async fn evict(&mut self, manager: &dyn Manager, due: &[Pod]) -> std::result::Result<(), Stopped> {
        let grace = self.journal.wanted.grace_seconds;
        let told = stream::iter(due.to_vec()).map(|pod| async move {
            let told = manager.evict(&pod, grace).await;
            (pod, told)
        });
        let told: Vec<_> = told.buffer_unordered(AT_ONCE).collect().await;
        self.blocked.retain(|uid, _| due.iter().any(|pod| pod.uid == *uid));
        for (pod, told) in told {
            let why = match told {
                Ok(Eviction::Told) => {
                    self.blocked.remove(&pod.uid);
                    self.leaving.insert(pod.uid.clone(), pod.path());
                    self.journal.progress.evicted.push(pod.path());
                    self.tell(ContainerState::Evicted, &pod.path(), "").await;
                    continue;
                }
                Ok(Eviction::Gone) => {
                    self.blocked.remove(&pod.uid);
                    continue;
                }
                Ok(Eviction::Blocked(why)) => why,
                Err(fault) if fault.is_temporary() => fault.text().to_owned(),
                Err(fault) => return Err(self.failed(fault)),
            };
            if self.blocked.insert(pod.uid.clone(), why.clone()).as_ref() != Some(&why) {
                self.tell(ContainerState::Blocked, &pod.path(), &why).await;
            }
        }
        Ok(())
    }

    /// What is done when the time is over: pods that are still there are deleted, or it has failed.
    async fn deadline(
        &mut self,
        manager: &dyn Manager,
        to_leave: &[Pod],
        due: &[Pod],
    ) -> std::result::Result<(), Stopped> {
        let progress = &self.journal.progress;
        if !self.journal.wanted.delete_at_deadline || now() >= progress.until + AFTER_DEADLINE {
            let why = |pod: &Pod| match self.blocked.get(&pod.uid) {
                Some(why) => why.clone(),
                None if pod.leaving => "it was told to leave, and is still there".to_owned(),
                None => "there was no time left to tell it".to_owned(),
            };
            let blockers: Vec<_> =
                to_leave.iter().map(|pod| Blocker { pod: pod.path(), why: why(pod) }).collect();
            let text = format!(
                "{} of its pods are still there at the deadline, first {}: {}",
                blockers.len(),
                blockers[0].pod,
                blockers[0].why
            );
            return Err(self.failed(Fault::new(FailureKind::Drain, text).by(blockers)));
        }
        let grace = self.journal.wanted.grace_seconds;
        for pod in due {
            match manager.delete(pod, grace).await {
                Ok(()) => {
                    self.blocked.remove(&pod.uid);
                    self.leaving.insert(pod.uid.clone(), pod.path());
                    self.journal.progress.evicted.push(pod.path());
                    self.tell(ContainerState::Evicted, &pod.path(), "deleted at the deadline").await;
                }
                Err(fault) if fault.is_temporary() => {}
                Err(fault) => return Err(self.failed(fault)),
            }
        }
        Ok(())
    }

    /// Tells of those that have left since the last look.
    async fn tell_gone(&mut self, to_leave: &[Pod]) {
        let there = |uid: &String| to_leave.iter().any(|pod| pod.uid == *uid);
        let (leaving, gone) = std::mem::take(&mut self.leaving).into_iter().partition(|(uid, _)| there(uid));
        self.leaving = leaving;
        let gone: BTreeMap<String, String> = gone;
        for path in gone.into_values() {
            self.tell(ContainerState::Gone, &path, "").await;
        }
        let leaving = to_leave.iter().filter(|pod| pod.leaving);
        self.leaving.extend(leaving.map(|pod| (pod.uid.clone(), pod.path())));
    }

    /// Asks until there is an answer, or the time is over.
    async fn until_deadline<T, F>(&self, ask: impl Fn() -> F) -> std::result::Result<T, Stopped>
    where
        F: Future<Output = std::result::Result<T, Fault>>,
    {
        let mut attempt = 0;
        loop {
            match ask().await {
                Ok(answer) => return Ok(answer),
                Err(fault) if fault.is_temporary() && now() < self.journal.progress.until => {}
                Err(fault) => return Err(self.failed(fault)),
            }
            attempt += 1;
            sleep(AGAIN.after(attempt)).await;
        }
    }

    async fn write(&mut self) -> std::result::Result<(), Stopped> {
        if self.journal.write().await? { Ok(()) } else { Err(Stopped::Taken) }
    }

    fn failed(&self, fault: Fault) -> Stopped {
        Stopped::Failed(fault.of(&self.journal.wanted.container_manager_name))
    }

    /// Its container manager is there no longer, or cannot be asked for.
    fn unfound(&self, error: &RpcError) -> Stopped {
        let is_final = [RpcError::NOT_FOUND, RpcError::CONTAINER_MANAGER].contains(&error.code);
        if !is_final && now() < self.journal.progress.until {
            return Stopped::Interrupted(error.clone().into());
        }
        let known = error.data.clone().and_then(|data| serde_json::from_value::<ManagerFailure>(data).ok());
        match known.filter(|_| error.code == RpcError::CONTAINER_MANAGER) {
            Some(failure) => Stopped::Failed(failure),
            None => self.failed(Fault::new(FailureKind::Config, error.message.clone())),
        }
    }

    async fn tell(&mut self, what: ContainerState, pod: &str, text: &str) {
        self.seq += 1;
        let DrainParams { container_manager_name: name, address, operation, .. } = &self.journal.wanted;
        let mut told = event(what, name, address, operation);
        self.journal.run().clone_into(&mut told.run);
        (told.seq, told.pod, told.text) = (self.seq, pod.to_owned(), text.to_owned());
        self.state.tell(&told).await;
    }
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
