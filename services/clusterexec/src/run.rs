//! One operation: which hosts are begun when, and when it is over.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use commissaire::{Error, Result, RpcError};
use commissaire_api::{
    Cluster, Host, Operation,
    client::Journal,
    clusterexec::{Control, OnFailure},
    record::{
        ACTIVE, CANCELLED, DISASSOCIATED, FAILED, FINISHED, HostStage, IN_PROCESS, OperationWanted, PAUSED,
    },
};
use tokio::{
    task::{AbortHandle, JoinSet},
    time::{Instant, sleep},
};

use crate::{
    host::{Work, failure_of},
    ledger::{Entry, Halt, Ledger},
    node::Node,
    options::places,
    plan,
    projection::{Said, say},
    state::{Settings, State},
    window::are_open,
};

/// How often it is looked at what somebody wants of the operation, and whether hosts may be begun.
const LOOK: Duration = Duration::from_millis(500);

/// Works on the operation of `cluster` to its end. An error: it was interrupted.
pub(crate) async fn run(state: &Arc<State>, cluster: &str) -> Result<()> {
    let journal = Journal::<Operation>::open(&state.storage, cluster, state.runs.instance()).await?;
    let Some(journal) = journal else { return Ok(()) };
    let wanted = Arc::new(journal.wanted.clone());
    let seen = journal.progress.history.last().map_or(0, |last| last.seq);
    let ledger = Arc::new(Ledger::new(state.clone(), wanted.kind, cluster, journal.run(), seen));
    let mut run = Run {
        settings: state.settings(),
        entries: Vec::new(),
        tasks: JoinSet::new(),
        at_work: HashMap::new(),
        control: Control::Run,
        looked: Instant::now(),
        stopped: None,
        holds: String::new(),
        halt: Arc::default(),
        node: None,
        said: Said::default(),
        journal,
        wanted,
        ledger,
    };
    match run.work().await {
        Ok(()) => Ok(()),
        Err(Halt::Taken) => {
            tracing::info!(cluster, "another instance goes on with an operation");
            Ok(())
        }
        Err(Halt::Interrupted(error)) => Err(error),
        Err(Halt::Failed(failure) | Halt::Unreachable(failure)) => Err(Error::malformed(failure.text)),
    }
}

/// An operation at work.
struct Run {
    settings: Arc<Settings>,
    journal: Journal<Operation>,
    wanted: Arc<OperationWanted>,
    ledger: Arc<Ledger>,
    /// The hosts, in their order.
    entries: Vec<Entry>,
    tasks: JoinSet<(usize, Entry, Result<(), Halt>)>,
    at_work: HashMap<usize, AbortHandle>,
    control: Control,
    looked: Instant,
    /// Why no more hosts are begun, for good.
    stopped: Option<String>,
    /// Why none is begun for now.
    holds: String,
    halt: Arc<AtomicBool>,
    /// The container manager of the cluster.
    node: Option<String>,
    /// What the record of the first Commissaire says.
    said: Said,
}

impl Run {
    async fn work(&mut self) -> Result<(), Halt> {
        let cluster = self.ledger.state.storage.find::<Cluster>(&self.ledger.cluster).await?;
        let cluster = cluster.map(|found| found.record);
        self.node =
            cluster.as_ref().map(|cluster| cluster.container_manager.clone()).filter(|name| !name.is_empty());
        if self.journal.progress.hosts.is_none() {
            let hosts = match &cluster {
                Some(cluster) => {
                    plan::hosts(&self.ledger.state, cluster, &self.wanted.options, &self.ledger.run).await?
                }
                None => Vec::new(),
            };
            self.ledger.prepare(&hosts).await?;
            self.journal.progress.hosts = Some(hosts.len());
            let text = format!("{} of {} hosts", self.wanted.kind.as_str(), hosts.len());
            self.tell("started", &text).await?;
        }
        self.entries = self.ledger.take().await?;
        // What was begun holds its place.
        for at in 0..self.entries.len() {
            let stage = self.entries[at].stage;
            if stage != HostStage::Pending && !stage.is_over() {
                self.begin(at);
            }
        }
        loop {
            self.look(false).await?;
            self.begin_some().await?;
            self.say(IN_PROCESS, false).await?;
            if self.tasks.is_empty() && (self.stopped.is_some() || self.pending().next().is_none()) {
                break;
            }
            tokio::select! {
                Some(joined) = self.tasks.join_next() => self.take(joined).await?,
                () = sleep(LOOK) => {}
            }
        }
        self.finish().await
    }

    /// What somebody wants of it.
    async fn look(&mut self, now: bool) -> Result<(), Halt> {
        if !now && self.looked.elapsed() < LOOK {
            return Ok(());
        }
        self.looked = Instant::now();
        let operation = self.ledger.state.storage.get::<Operation>(&self.ledger.cluster).await?;
        if operation.run != self.ledger.run {
            return Err(Halt::Taken);
        }
        let before = std::mem::replace(&mut self.control, operation.control);
        if before == self.control {
            return Ok(());
        }
        match self.control {
            Control::Pause => self.tell(PAUSED, "").await?,
            Control::Run => self.tell("resumed", "").await?,
            Control::Cancel | Control::CancelNow => {
                self.stopped = Some("it was cancelled".to_owned());
                self.halt.store(true, Ordering::Relaxed);
            }
        }
        if self.control == Control::CancelNow {
            self.abandon().await?;
        }
        Ok(())
    }

    /// Ends the work on hosts where it is. What runs on a host goes on there.
    async fn abandon(&mut self) -> Result<(), Halt> {
        for (at, task) in self.at_work.drain().collect::<Vec<_>>() {
            task.abort();
            self.entries[at].stage = HostStage::Running;
        }
        self.tasks.shutdown().await;
        // They may have written down more than is known here.
        for entry in self.ledger.take().await? {
            let Some(known) = self.entries.iter_mut().find(|known| known.address == entry.address) else {
                continue;
            };
            *known = entry;
            if known.stage == HostStage::Pending || known.stage.is_over() {
                continue;
            }
            let text = "the operation was cancelled in the middle of it";
            known.progress.failure = Some(*failure_of(known.stage.as_str(), "cancelled", text));
            if known.progress.cordoned
                && !known.progress.away
                && let Some(node) = node_of(&self.ledger, self.node.as_ref(), &known.address)
                && let Err(error) = node.uncordon().await
            {
                tracing::warn!(address = known.address, %error, "a cordon was not lifted");
            }
            self.ledger.enter(known, HostStage::Failed, text).await?;
        }
        Ok(())
    }

    /// The hosts that wait, in their order.
    fn pending(&self) -> impl Iterator<Item = usize> {
        let waits = |(at, entry): (usize, &Entry)| {
            (entry.stage == HostStage::Pending && !self.at_work.contains_key(&at)).then_some(at)
        };
        self.entries.iter().enumerate().filter_map(waits)
    }

    fn count(&self, is: impl Fn(&Entry) -> bool) -> usize {
        self.entries.iter().filter(|entry| is(entry)).count()
    }

    /// Begins with as many hosts as may be begun now.
    async fn begin_some(&mut self) -> Result<(), Halt> {
        loop {
            let (all, options) = (self.entries.len(), &self.wanted.options);
            let (failed, most) = (self.count(|entry| entry.stage.is_failure()), options.max_failed.of(all));
            if self.stopped.is_none() && failed > most && options.on_failure != OnFailure::Continue {
                self.halt.store(options.on_failure == OnFailure::Stop, Ordering::Relaxed);
                self.stopped = Some(format!("{failed} hosts failed, and {most} may"));
            }
            let Some(next) = self.pending().next() else { return Ok(()) };
            if self.stopped.is_some() || self.control == Control::Pause {
                return Ok(());
            }
            // The place of a host that is not back is never given away.
            let away = self.count(|entry| entry.stage.is_over() && entry.progress.away);
            let places = places(options, all, self.count(|entry| entry.stage.is_over()));
            if self.at_work.len() + away >= places {
                if self.at_work.is_empty() {
                    self.stopped = Some(format!("{away} hosts are not back, and hold the places of others"));
                }
                return Ok(());
            }
            let holds = if are_open(&options.windows) {
                self.unavailable().await?
            } else {
                "no window is open".to_owned()
            };
            if !holds.is_empty() {
                if self.holds.is_empty() {
                    self.tell("waiting", &holds).await?;
                }
                self.holds = holds;
                return Ok(());
            }
            self.holds.clear();
            self.begin(next);
        }
    }

    /// Why one host more may not be away, if it may not.
    async fn unavailable(&self) -> Result<String, Halt> {
        let (storage, cluster) = (&self.ledger.state.storage, &self.ledger.cluster);
        let Some(cluster) = storage.find::<Cluster>(cluster).await? else { return Ok(String::new()) };
        let hosts = cluster.record.hostset;
        let least = self.wanted.options.min_available.of_at_least(hosts.len());
        if least == 0 {
            return Ok(String::new());
        }
        let busy = |address: &String| {
            let known = self.entries.iter().position(|entry| entry.address == *address);
            known.is_some_and(|at| self.at_work.contains_key(&at) || self.entries[at].progress.away)
        };
        let is_good =
            |host: &Host| [ACTIVE, DISASSOCIATED].contains(&host.status.as_str()) && !busy(&host.address);
        let mut there = 0;
        for address in &hosts {
            // One without a record is not there.
            let found = storage.find::<Host>(address).await?;
            there += usize::from(found.is_some_and(|found| is_good(&found.record)));
        }
        // One that is to be begun is one less.
        Ok(if there > least {
            String::new()
        } else {
            format!("{there} hosts are available, and {least} must be")
        })
    }

    /// Begins with a host, or goes on with it.
    fn begin(&mut self, at: usize) {
        let entry = self.entries[at].clone();
        let work = Work {
            ledger: self.ledger.clone(),
            settings: self.settings.clone(),
            wanted: self.wanted.clone(),
            node: node_of(&self.ledger, self.node.as_ref(), &entry.address),
            halt: self.halt.clone(),
            entry,
        };
        let task = self.tasks.spawn(async move {
            let (entry, ended) = work.go().await;
            (at, entry, ended)
        });
        self.at_work.insert(at, task);
    }

    /// Takes in what became of a host.
    async fn take(
        &mut self,
        joined: Result<(usize, Entry, Result<(), Halt>), tokio::task::JoinError>,
    ) -> Result<(), Halt> {
        let (at, entry, ended) =
            joined.map_err(|_| Halt::Interrupted(Error::malformed("the work on a host has panicked")))?;
        self.at_work.remove(&at);
        self.entries[at] = entry;
        ended
    }

    /// What becomes of it in the end.
    async fn finish(&mut self) -> Result<(), Halt> {
        let why = self.stopped.clone().unwrap_or_default();
        for entry in self.entries.iter_mut().filter(|entry| entry.stage == HostStage::Pending) {
            self.ledger.enter(entry, HostStage::Skipped, &why).await?;
        }
        let failed: Vec<&str> = self
            .entries
            .iter()
            .filter(|entry| entry.stage.is_failure())
            .map(|entry| entry.address.as_str())
            .collect();
        let status = match self.control {
            Control::Cancel | Control::CancelNow => CANCELLED,
            _ if failed.is_empty() && self.stopped.is_none() => FINISHED,
            _ => FAILED,
        };
        let mut text = why;
        if !failed.is_empty() {
            let failed = format!("failed: {}", failed.join(", "));
            text = if text.is_empty() { failed } else { format!("{text}; {failed}") };
        }
        self.journal.progress.text.clone_from(&text);
        self.say(status, true).await?;
        let happened = self.ledger.happened(status, &text);
        self.journal.progress.history.push(happened.clone());
        if !self.journal.end(status).await? {
            return Err(Halt::Taken);
        }
        self.ledger.tell(&happened, "").await;
        tracing::info!(cluster = self.ledger.cluster, status, "an operation is over: {text}");
        Ok(())
    }

    /// Has the record of the first Commissaire say what is.
    async fn say(&mut self, status: &str, over: bool) -> Result<(), Halt> {
        let paused = status == IN_PROCESS && self.control == Control::Pause;
        let of = |is: &dyn Fn(usize, &Entry) -> bool| -> Vec<String> {
            let entries = self.entries.iter().enumerate();
            entries.filter(|(at, entry)| is(*at, entry)).map(|(_, entry)| entry.address.clone()).collect()
        };
        let said = Said {
            status: if paused { PAUSED } else { status }.to_owned(),
            done: of(&|_, entry| entry.stage == HostStage::Done),
            at_work: of(&|at, _| self.at_work.contains_key(&at)),
            started_at: self
                .journal
                .progress
                .history
                .first()
                .map(|first| first.at.clone())
                .unwrap_or_default(),
            over,
        };
        if said != self.said {
            let Ledger { state, kind, cluster, .. } = &*self.ledger;
            say(&state.storage, *kind, cluster, &self.wanted.version, &said).await?;
            self.said = said;
        }
        Ok(())
    }

    /// Writes down what happened to it as a whole, and tells it.
    async fn tell(&mut self, state: &str, text: &str) -> Result<(), Halt> {
        let happened = self.ledger.happened(state, text);
        self.journal.progress.history.push(happened.clone());
        if !self.journal.write().await? {
            return Err(Halt::Taken);
        }
        self.ledger.tell(&happened, "").await;
        Ok(())
    }
}

/// A host as a node of the container manager, where there is one. Operations of a cluster come one after another: each may
/// lift what one before has left.
fn node_of(ledger: &Ledger, manager: Option<&String>, address: &str) -> Option<Node> {
    Some(Node {
        client: ledger.state.client.clone(),
        manager: manager?.clone(),
        address: address.to_owned(),
        operation: format!("operations of cluster {}", ledger.cluster).chars().take(64).collect(),
    })
}

/// An error that says that there is no such thing.
pub(crate) fn missing(text: String, cluster: &str) -> RpcError {
    RpcError::new(RpcError::NOT_FOUND, text).with_data(serde_json::json!({"cluster_name": cluster}))
}
