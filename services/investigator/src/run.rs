//! One investigation: facts, then the steps, each written down; at the end the host's status.

use std::{sync::Arc, time::Duration};

use commissaire::{Error, Result, RpcError, time::timestamp};
use commissaire_api::{
    Cluster, Host, HostCreds, HostFailure, HostState,
    container::{NodeParams, NodeRegistered, RegisterNode},
    investigator::{InvestigatorEvent, InvestigatorState},
    record::{ACTIVE, BOOTSTRAPPING, DISASSOCIATED, FAILED, INVESTIGATING, Step, StepState},
    storage::{List, ListParams},
};
use commissaire_ssh::{Credentials, Failure, Session, Target};
use serde_json::{Map, Value};

use crate::{
    apply::Hands,
    facts::Facts,
    journal::{Journal, map},
    plan::{self, Action, Kind, Wanted},
    state::State,
};

/// The rests between tries to reach a host: it may be about to start.
const RESTS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(3)];

/// How often a run is begun: one that is interrupted each time is no run.
const MOST_ATTEMPTS: u32 = 50;

/// Why a run ended before its end.
enum Stopped {
    /// What is wrong with the host, or with what is wanted of it.
    Failed(Box<HostFailure>),
    /// Somebody else has taken the journal.
    Taken,
    /// The storage, or the bus: it is taken up again.
    Interrupted(Error),
}

impl From<Error> for Stopped {
    fn from(error: Error) -> Self {
        Self::Interrupted(error)
    }
}

/// One investigation at work.
struct Run<'a> {
    state: &'a State,
    journal: Journal,
    address: String,
    seq: u64,
}

/// Works on the journal of `address` to its end. An error: it was interrupted.
pub(crate) async fn run(state: &Arc<State>, address: &str) -> Result<()> {
    let Some(journal) = Journal::open(&state.storage, address, &state.instance).await? else { return Ok(()) };
    let mut run = Run { state, journal, address: address.to_owned(), seq: 0 };
    run.tell(InvestigatorState::Started, "", "").await;
    let ended = run.work().await;
    match ended {
        Ok(()) => {
            if run.journal.close(true).await? {
                let changed = if run.journal.progress.changed { "changed" } else { "unchanged" };
                run.tell(InvestigatorState::Finished, "", changed).await;
            }
        }
        Err(Stopped::Failed(failure)) => run.fail(&failure).await?,
        Err(Stopped::Taken) => tracing::info!(address, "another instance goes on with an investigation"),
        Err(Stopped::Interrupted(error)) if run.is_final(&error) => {
            let text = format!("it cannot be gone on with: {}", error.chain());
            if let Stopped::Failed(failure) = run.commissaire("records", &text) {
                run.fail(&failure).await?;
            }
        }
        Err(Stopped::Interrupted(error)) => return Err(error),
    }
    Ok(())
}

impl Run<'_> {
    async fn work(&mut self) -> Result<(), Stopped> {
        let dry_run = self.journal.wanted.dry_run;
        let before = self.host().await?;
        if !dry_run && !self.journal.wanted.facts_only {
            self.set_status(INVESTIGATING).await?;
        }
        let session = self.connect().await?;
        let worked = self.on(&session, &before).await;
        session.close().await;
        worked
    }

    /// All that is done with a connection to the host.
    async fn on(&mut self, session: &Session, before: &Host) -> Result<(), Stopped> {
        let wanted = self.journal.wanted.clone();
        let facts = Facts::gather(session).await.map_err(|failure| self.of_host("facts", &failure))?;
        let mut warnings = facts.warnings();
        warnings.extend(self.twins(&facts).await?);
        self.learn(session, &facts, &warnings).await?;
        self.tell(InvestigatorState::Facts, "", &facts.os_name).await;
        if wanted.facts_only {
            return Ok(());
        }
        if !wanted.dry_run {
            self.set_status(BOOTSTRAPPING).await?;
        }
        let cluster = self.cluster().await?;
        let network =
            plan::wanted(&self.state.members, &self.state.storage, &self.state.client, cluster.as_ref())
                .await?;
        if let Wanted::Impossible(why) = &network {
            warnings.push(format!("it has no network: {why}"));
            self.learn(session, &facts, &warnings).await?;
        }
        self.steps(session, &facts, &network).await?;
        if wanted.dry_run {
            return Ok(());
        }
        self.set_status(DISASSOCIATED).await?;
        if let Some(manager) =
            cluster.map(|cluster| cluster.container_manager).filter(|name| !name.is_empty())
        {
            self.register(manager).await?;
            self.set_status(ACTIVE).await?;
        } else if before.status == ACTIVE {
            tracing::debug!(address = self.address, "the host has no container manager any more");
        }
        Ok(())
    }

    async fn host(&self) -> Result<Host, Stopped> {
        let found = self.state.storage.find::<Host>(&self.address).await?;
        found.map(|found| found.record).ok_or_else(|| {
            self.commissaire("start", &format!("host {} is not in the records any more", self.address))
        })
    }

    /// Logs in, with patience for a host that is about to start.
    async fn connect(&mut self) -> Result<Session, Stopped> {
        let creds = self.state.storage.find::<HostCreds>(&self.address).await?;
        let (key, user) = match &creds {
            Some(found) => (found.record.ssh_priv_key.as_str(), found.record.remote_user.clone()),
            None => ("", "root".to_owned()),
        };
        let credentials = Credentials::of_record(&self.address, key);
        let credentials = credentials.map_err(|failure| self.of_host("connect", &failure))?;
        let pinned = match self.state.storage.find::<HostState>(&self.address).await? {
            Some(found) if !self.journal.wanted.trust_new_key => found.record.host_keys,
            _ => Vec::new(),
        };
        let target = Target { address: self.address.clone(), user, credentials, pinned };
        let mut rests = RESTS.iter();
        loop {
            match self.state.ssh.connect(&target).await {
                Ok(session) => return Ok(session),
                Err(failure) => match rests.next().filter(|_| failure.is_of_the_way()) {
                    Some(rest) => tokio::time::sleep(*rest).await,
                    None => return Err(self.of_host("connect", &failure)),
                },
            }
        }
    }

    /// Whether trying again is of no use: what is away comes back, what is refused stays so.
    fn is_final(&self, error: &Error) -> bool {
        let refused = error.remote().is_some_and(|remote| {
            ![RpcError::BUSY, RpcError::UNAVAILABLE, RpcError::CONFLICT].contains(&remote.code)
        });
        refused || self.journal.progress.attempts >= MOST_ATTEMPTS
    }

    /// Keeps what is known of the host now.
    async fn learn(&self, session: &Session, facts: &Facts, warnings: &[String]) -> Result<(), Stopped> {
        // The host first: of one that is gone nothing is to stay.
        let learned = self.state.storage.update::<Host>(&self.address, |host| {
            host.os.clone_from(&facts.os);
            (host.cpus, host.memory, host.space) = (facts.cpus, facts.memory, facts.space);
            host.last_check = timestamp();
        });
        learned.await.map_err(|error| self.gone(error))?;
        let new = HostState { address: self.address.clone(), ..HostState::default() };
        let dry_run = self.journal.wanted.dry_run;
        self.state
            .storage
            .update_or_create(&new, |state| {
                if let Some(key) = session.new_host_key() {
                    state.host_keys = vec![key.to_owned()];
                }
                state.machine_id.clone_from(&facts.machine_id);
                state.boot_id.clone_from(&facts.boot_id);
                state.facts = map(facts);
                state.warnings = warnings.to_vec();
                if !dry_run {
                    state.failure = Map::new();
                }
            })
            .await?;
        Ok(())
    }

    /// A word about other hosts with this one's machine id: they are copies of one image.
    async fn twins(&self, facts: &Facts) -> Result<Option<String>, Stopped> {
        if facts.machine_id.is_empty() {
            return Ok(None);
        }
        let params = ListParams {
            model_type_name: "HostState".to_owned(),
            filter: Some(Map::from_iter([("machine_id".to_owned(), Value::from(facts.machine_id.as_str()))])),
            fields: Some(vec!["address".to_owned()]),
            limit: Some(5),
            ..ListParams::default()
        };
        let listed = self.state.client.call(List, &params).await?;
        let page: Value = listed.to().unwrap_or_default();
        let others = page["records"].as_array().into_iter().flatten();
        let others =
            others.filter_map(|record| record["address"].as_str()).filter(|other| *other != self.address);
        let others: Vec<&str> = others.collect();
        Ok((!others.is_empty()).then(|| {
            format!(
                "its machine-id is also that of {}: it was copied from an image that had one",
                others.join(", ")
            )
        }))
    }

    /// The cluster that was given, else the one that lists the host.
    async fn cluster(&self) -> Result<Option<Cluster>, Stopped> {
        if let Some(given) = &self.journal.wanted.cluster_data {
            let given: Result<Cluster, _> = serde_json::from_value(Value::Object(given.clone()));
            return given
                .map(Some)
                .map_err(|e| self.commissaire("start", &format!("cluster_data is no cluster: {e}")));
        }
        let clusters = self.state.storage.list::<Cluster>().await?;
        Ok(clusters.into_iter().find(|cluster| cluster.hostset.contains(&self.address)))
    }

    /// Does the steps that are not done.
    async fn steps(&mut self, session: &Session, facts: &Facts, network: &Wanted) -> Result<(), Stopped> {
        let members = &self.state.members;
        let Some(os) = self.state.systems.find(&facts.release()) else {
            let text = format!(
                "no row of the OS table is for {:?} (ID_LIKE {:?}): say in os_file what to do",
                facts.os,
                facts.os_like.join(" ")
            );
            return Err(self.commissaire("plan", &text));
        };
        let actions = plan::plan(members, &self.state.templates, os, network);
        let actions = actions.map_err(|why| self.commissaire("plan", &why))?;
        self.take_up(&os.name, &actions);
        self.write().await?;
        let dry_run = self.journal.wanted.dry_run;
        let limit = Duration::from_secs(members.step_seconds.max(1));
        let hands = Hands { session, os, dry_run, limit };
        for (at, action) in actions.iter().enumerate() {
            if self.journal.progress.steps[at].state.is_over() {
                continue;
            }
            self.set_step(at, StepState::Running).await?;
            let restart = match &action.kind {
                Kind::Service { after, .. } => self.journal.progress.steps.iter().any(|step| {
                    matches!(step.state, StepState::Changed | StepState::WouldChange)
                        && after.contains(&step.name)
                }),
                _ => false,
            };
            match hands.apply(action, restart).await {
                Ok(state) => {
                    self.journal.progress.changed |= state != StepState::Unchanged;
                    self.set_step(at, state).await?;
                    let word = serde_json::to_value(state).unwrap_or_default();
                    self.tell(InvestigatorState::Step, &action.name, word.as_str().unwrap_or_default()).await;
                }
                Err(failure) => {
                    // A step whose connection broke is taken up like one whose instance died.
                    self.set_step(at, StepState::Failed).await?;
                    return Err(Stopped::Failed(failure));
                }
            }
        }
        Ok(())
    }

    /// Keeps what was done of these steps in an attempt before.
    fn take_up(&mut self, os: &str, actions: &[Action]) {
        let progress = &mut self.journal.progress;
        let done = std::mem::take(&mut progress.steps);
        let state = |name: &str| {
            let known = done.iter().find(|step| step.name == name).map(|step| step.state);
            known.filter(|state| state.is_over() && progress.os == os).unwrap_or(StepState::Pending)
        };
        progress.steps = actions
            .iter()
            .map(|action| Step { name: action.name.clone(), state: state(&action.name) })
            .collect();
        os.clone_into(&mut progress.os);
    }

    async fn register(&self, manager: String) -> Result<(), Stopped> {
        let node = NodeParams { container_manager_name: manager, address: self.address.clone() };
        let registered = match self.state.client.call(NodeRegistered, &node).await {
            Err(error) if error.remote().is_some_and(|remote| remote.code == RpcError::CONTAINER_MANAGER) => {
                self.state.client.call(RegisterNode, &node).await
            }
            other => other,
        };
        registered.map_err(|error| {
            let text = format!("container manager {:?}: {}", node.container_manager_name, error.chain());
            self.commissaire("register", &text)
        })
    }

    /// Writes down why it failed: on the host first, so that whoever hears of the end finds it there.
    async fn fail(&mut self, failure: &HostFailure) -> Result<()> {
        let new = HostState { address: self.address.clone(), ..HostState::default() };
        let kept = self.state.storage.find::<Host>(&self.address).await?.is_some();
        if kept && !self.journal.wanted.dry_run {
            self.state.storage.update_or_create(&new, |state| state.failure = map(failure)).await?;
            // Who only asks what a host is does not judge it.
            if !self.journal.wanted.facts_only
                && let Err(Stopped::Interrupted(error)) = self.set_status(FAILED).await
            {
                return Err(error);
            }
        }
        self.journal.progress.failure = Some(failure.clone());
        if self.journal.close(false).await? {
            self.tell(InvestigatorState::Failed, &failure.step, &failure.text).await;
            tracing::warn!(
                address = self.address,
                kind = failure.kind,
                step = failure.step,
                "{}",
                failure.text
            );
        }
        Ok(())
    }

    async fn set_status(&self, status: &str) -> Result<(), Stopped> {
        let set = self.state.storage.update::<Host>(&self.address, |host| host.status = status.to_owned());
        set.await.map(drop).map_err(|error| self.gone(error))
    }

    async fn set_step(&mut self, at: usize, state: StepState) -> Result<(), Stopped> {
        self.journal.progress.steps[at].state = state;
        self.write().await
    }

    async fn write(&mut self) -> Result<(), Stopped> {
        if self.journal.write().await? { Ok(()) } else { Err(Stopped::Taken) }
    }

    async fn tell(&mut self, state: InvestigatorState, step: &str, text: &str) {
        self.seq += 1;
        let event = InvestigatorEvent {
            state,
            address: self.address.clone(),
            run: self.journal.record.run.clone(),
            seq: self.seq,
            step: step.to_owned(),
            text: text.to_owned(),
        };
        self.state.tell(&event).await;
    }

    /// An error of a change of the host's record: that it is gone is nobody's fault, and final.
    fn gone(&self, error: Error) -> Stopped {
        match error.remote() {
            Some(remote) if remote.code == RpcError::STORAGE_LOOKUP => {
                self.commissaire("save", &format!("host {} is not in the records any more", self.address))
            }
            _ => Stopped::Interrupted(error),
        }
    }

    fn of_host(&self, step: &str, failure: &Failure) -> Stopped {
        self.failed(step, failure.kind.as_str(), &failure.text)
    }

    fn commissaire(&self, step: &str, text: &str) -> Stopped {
        self.failed(step, "commissaire", text)
    }

    fn failed(&self, step: &str, kind: &str, text: &str) -> Stopped {
        Stopped::Failed(Box::new(HostFailure {
            kind: kind.to_owned(),
            step: step.to_owned(),
            text: text.to_owned(),
            at: timestamp(),
            ..HostFailure::default()
        }))
    }
}
