//! What the handlers and the drains share.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use commissaire::{Backoff, Client};
use commissaire_api::{
    StorageClient,
    client::Runs,
    container::{ContainerEvent, ContainerState},
};
use tokio::time::{Instant, sleep};

use crate::{config::Members, fault::Fault, managers::Managers};

const BACKOFF: Backoff = Backoff { first: Duration::from_millis(100), most: Duration::from_secs(2) };
/// What is left of a call's time for its answer.
const FOR_THE_ANSWER: Duration = Duration::from_millis(500);

/// What is shared.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) client: Client,
    pub(crate) storage: StorageClient,
    pub(crate) managers: Managers,
    /// How long a container manager may be away, in seconds.
    patience: AtomicU64,
    /// The drains that this instance works on.
    pub(crate) runs: Arc<Runs>,
}

impl State {
    pub(crate) fn new(client: Client, managers: Managers, members: &Members) -> Self {
        Self {
            storage: StorageClient::new(client.clone()),
            client,
            managers,
            patience: AtomicU64::new(members.patience_seconds),
            runs: Runs::new("containermgr", "drain", members.drains),
        }
    }

    /// Has these hold from now on, but for what says which container managers there are.
    pub(crate) fn set(&self, members: &Members) {
        self.patience.store(members.patience_seconds, Ordering::Relaxed);
        self.runs.limit(members.drains);
    }

    /// Asks until there is an answer: a container manager that is away for a moment is asked again, until `deadline` and for
    /// as long as the configuration says. `ask` is told whether it may have been carried out before.
    pub(crate) async fn patiently<T, F>(
        &self,
        deadline: Option<Instant>,
        ask: impl Fn(bool) -> F,
    ) -> Result<T, Fault>
    where
        F: Future<Output = Result<T, Fault>>,
    {
        let longest = Instant::now() + Duration::from_secs(self.patience.load(Ordering::Relaxed));
        let until = deadline.map_or(longest, |deadline| longest.min(deadline - FOR_THE_ANSWER));
        let (mut attempt, mut doubtful) = (0, false);
        loop {
            let fault = match ask(doubtful).await {
                Err(fault) if fault.is_temporary() => fault,
                answer => return answer,
            };
            doubtful |= fault.may_be_executed();
            attempt += 1;
            let rest = BACKOFF.after(attempt);
            if Instant::now() + rest >= until {
                return Err(if doubtful { fault.maybe_executed() } else { fault });
            }
            sleep(rest).await;
        }
    }

    /// Tells an event; that nobody hears of it is no reason to stop.
    pub(crate) async fn tell(&self, event: &ContainerEvent) {
        if let Err(error) = self.client.announce(event).await {
            tracing::warn!(%error, "an event was not announced");
        }
    }
}

/// An event of a node that belongs to no drain.
pub(crate) fn event(state: ContainerState, manager: &str, address: &str, operation: &str) -> ContainerEvent {
    ContainerEvent {
        state,
        container_manager_name: manager.to_owned(),
        address: address.to_owned(),
        operation: operation.to_owned(),
        run: String::new(),
        seq: 0,
        pod: String::new(),
        text: String::new(),
    }
}
