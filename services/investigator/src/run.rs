//! One investigation: facts, then the steps, each written down; at the end the host's status.

use std::{sync::Arc, time::Duration};

use commissaire::{Error, Result, RpcError, time::timestamp};
use commissaire_api::{
    Cluster, Host, HostCreds, HostFailure, HostState, Investigation,
    client::Journal,
    container::{NodeParams, NodeRegistered, RegisterNode},
    investigator::{InvestigatorEvent, InvestigatorState},
    record::{ACTIVE, BOOTSTRAPPING, DISASSOCIATED, FAILED, INVESTIGATING, members},
    storage::Versioned,
};
use commissaire_ssh::{Credentials, Failure, Session, Target};
use serde_json::{Map, Value};

use crate::{
    facts::Facts,
    plan::{self, Wanted},
    state::{Settings, State},
    twins,
};

/// The rests between tries to reach a host: it may be about to start.
const RESTS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(3)];

/// How often a run is begun: one that is interrupted each time is no run.
const MOST_ATTEMPTS: u32 = 50;

/// Why a run ended before its end.
pub(crate) enum Stopped {
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
pub(crate) struct Run<'a> {
    pub(crate) state: &'a State,
    pub(crate) settings: Arc<Settings>,
    pub(crate) journal: Journal<Investigation>,
    address: String,
    seq: u64,
}

/// Works on the journal of `address` to its end. An error: it was interrupted.
pub(crate) async fn run(state: &Arc<State>, address: &str) -> Result<()> {
    let Some(journal) = Journal::open(&state.storage, address, state.runs.instance()).await? else {
        return Ok(());
    };
    let mut run = Run { state, settings: state.settings(), journal, address: address.to_owned(), seq: 0 };
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
        let mut host = self.host().await?;
        if !dry_run && !self.journal.wanted.facts_only {
            host = self.set_status(INVESTIGATING).await?;
        }
        let new = HostState { address: self.address.clone(), ..HostState::default() };
        let before = self.state.storage.find(&self.address).await?;
        let before = before.unwrap_or(Versioned { record: new, revision: 0 });
        let session = self.connect(&before.record).await?;
        let worked = self.on(&session, host, before).await;
        session.close().await;
        worked
    }

    /// All that is done with a connection to the host.
    async fn on(
        &mut self,
        session: &Session,
        host: Versioned<Host>,
        state: Versioned<HostState>,
    ) -> Result<(), Stopped> {
        let wanted = self.journal.wanted.clone();
        let facts = Facts::gather(session).await.map_err(|failure| self.of_host("facts", &failure))?;
        let mut warnings = facts.warnings();
        let before = state.record.machine_id.clone();
        let known = self.learn(session, &facts, &warnings, host, state).await?;
        if before != known.record.machine_id
            || known.record.warnings.iter().any(|warning| twins::is_told(warning))
        {
            twins::tell(self.state, &known.record).await?;
        }
        self.tell(InvestigatorState::Facts, "", &facts.os_name).await;
        if wanted.facts_only {
            return Ok(());
        }
        if !wanted.dry_run {
            self.set_status(BOOTSTRAPPING).await?;
        }
        let cluster = self.cluster().await?;
        let network =
            plan::wanted(&self.settings.members, &self.state.storage, &self.state.client, cluster.as_ref())
                .await?;
        if let Wanted::Impossible(why) = &network {
            warnings.push(format!("it has no network: {why}"));
            self.learn(session, &facts, &warnings, self.host().await?, known).await?;
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
        }
        Ok(())
    }

    async fn host(&self) -> Result<Versioned<Host>, Stopped> {
        let found = self.state.storage.find::<Host>(&self.address).await?;
        found.ok_or_else(|| {
            self.commissaire("start", &format!("host {} is not in the records any more", self.address))
        })
    }

    /// Logs in, with patience for a host that is about to start.
    async fn connect(&mut self, known: &HostState) -> Result<Session, Stopped> {
        let creds = self.state.storage.find::<HostCreds>(&self.address).await?;
        let (key, user) = match &creds {
            Some(found) => (found.record.ssh_priv_key.as_str(), found.record.remote_user.clone()),
            None => ("", "root".to_owned()),
        };
        let credentials = Credentials::of_record(&self.address, key);
        let credentials = credentials.map_err(|failure| self.of_host("connect", &failure))?;
        let pinned = if self.journal.wanted.trust_new_key { Vec::new() } else { known.host_keys.clone() };
        let target = Target { address: self.address.clone(), user, credentials, pinned };
        let mut rests = RESTS.iter();
        loop {
            match self.settings.ssh.connect(&target).await {
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

    /// Keeps what is known of the host now, in the place of what was.
    async fn learn(
        &self,
        session: &Session,
        facts: &Facts,
        warnings: &[String],
        host: Versioned<Host>,
        state: Versioned<HostState>,
    ) -> Result<Versioned<HostState>, Stopped> {
        // The host first: of one that is gone nothing is to stay.
        let learned = self.state.storage.update_found(host, |host| {
            host.os.clone_from(&facts.os);
            (host.cpus, host.memory, host.space) = (facts.cpus, facts.memory, facts.space);
            host.last_check = timestamp();
        });
        learned.await.map_err(|error| self.gone(error))?;
        let dry_run = self.journal.wanted.dry_run;
        let learned = self
            .state
            .storage
            .update_found(state, |state| {
                if let Some(key) = session.new_host_key() {
                    state.host_keys = vec![key.to_owned()];
                }
                let same = state.machine_id == facts.machine_id;
                state.machine_id.clone_from(&facts.machine_id);
                state.boot_id.clone_from(&facts.boot_id);
                state.facts = members(facts);
                // Those of its twins are kept by whoever is looked over last.
                state.warnings.retain(|warning| same && twins::is_told(warning));
                state.warnings.extend_from_slice(warnings);
                if !dry_run {
                    state.failure = Map::new();
                }
            })
            .await?;
        Ok(learned)
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

    async fn register(&self, manager: String) -> Result<(), Stopped> {
        let node =
            NodeParams { container_manager_name: manager, address: self.address.clone(), extended: false };
        let registered = match self.state.client.call(NodeRegistered, &node).await {
            Err(error) if error.remote().is_some_and(|remote| remote.code == RpcError::CONTAINER_MANAGER) => {
                self.state.client.call(RegisterNode, &node).await.map(drop)
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
            self.state.storage.update_or_create(&new, |state| state.failure = members(failure)).await?;
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

    async fn set_status(&self, status: &str) -> Result<Versioned<Host>, Stopped> {
        let set = self.state.storage.update::<Host>(&self.address, |host| host.status = status.to_owned());
        set.await.map_err(|error| self.gone(error))
    }

    pub(crate) async fn tell(&mut self, state: InvestigatorState, step: &str, text: &str) {
        self.seq += 1;
        let event = InvestigatorEvent {
            state,
            address: self.address.clone(),
            run: self.journal.run().to_owned(),
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

    pub(crate) fn commissaire(&self, step: &str, text: &str) -> Stopped {
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
