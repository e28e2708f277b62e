//! Which investigations this instance works on: those that it was asked for, and those that nobody goes on with.

use std::{collections::HashSet, sync::Arc, time::Duration};

use commissaire::{ErrorKind, Result};
use commissaire_api::{Investigation, client::Seen, record::REQUESTED};
use sha2::{Digest, Sha256};
use tokio::{
    sync::Semaphore,
    time::{Interval, interval, sleep},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{run, state::State};

/// How long the lease of an instance on a host holds when it dies.
const LEASE: Duration = Duration::from_secs(15);
/// How often journals that are open are looked at: whether nobody goes on with them.
const LOOK: Duration = Duration::from_secs(5);

/// Works until `stop`; what was begun then goes on in `tasks`.
pub(crate) async fn work(
    state: Arc<State>,
    stop: CancellationToken,
    tasks: TaskTracker,
    end: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(state.members.concurrency.max(1)));
    let follow = follow(&state);
    let dispatch = async {
        loop {
            let Ok(place) = places.clone().acquire_owned().await else { return };
            let address = loop {
                let bell = state.bell.notified();
                match state.next() {
                    Some(address) => break address,
                    None => bell.await,
                }
            };
            let (state, end) = (state.clone(), end.clone());
            tasks.spawn(async move {
                // However it ends, the host is free again.
                let busy = Busy { state, address };
                tokio::select! {
                    () = one(&busy.state, &busy.address) => {}
                    () = end.cancelled() => {}
                }
                drop((busy, place));
            });
        }
    };
    tokio::select! {
        () = dispatch => {}
        () = follow => {}
        () = stop.cancelled() => {}
    }
}

/// A host that is worked on.
struct Busy {
    state: Arc<State>,
    address: String,
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.state.done(&self.address);
    }
}

/// A name of a lease may be shorter than an address.
fn lease_name(address: &str) -> String {
    if address.len() <= 128 {
        return format!("investigation {address}");
    }
    let hash = Sha256::digest(address.as_bytes());
    format!("investigation {}", hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

/// Works on one host, if nobody else does.
async fn one(state: &Arc<State>, address: &str) {
    let lease = state.storage.lease(&lease_name(address), &state.instance, LEASE).await;
    let lease = match lease {
        Ok(Some(lease)) => lease,
        // Whoever has it goes on with it, or dies and is found by a look.
        Ok(None) => return,
        Err(error) => {
            tracing::warn!(address, %error, "a host cannot be investigated now: it is tried again");
            return;
        }
    };
    let ended = tokio::select! {
        ended = run::run(state, address) => ended,
        () = lease.lost() => {
            tracing::warn!(address, "the lease on a host was lost: another instance goes on with it");
            return;
        }
    };
    lease.release().await;
    if let Err(error) = ended {
        tracing::warn!(address, %error, "an investigation was interrupted: it is taken up again");
    }
}

/// Follows the journals, and has those that are open looked at, again and again.
async fn follow(state: &Arc<State>) {
    // Not all instances at one moment.
    let rest = LOOK.mul_f64(0.8 + 0.4 * f64::from(std::process::id() % 100) / 100.0);
    let mut look = interval(rest);
    let mut open = HashSet::new();
    while let Err(error) = follow_some(state, &mut open, &mut look).await
        && *error.kind() != ErrorKind::Closed
    {
        tracing::error!(%error, "journals cannot be followed; tried again");
        sleep(LOOK).await;
    }
}

/// Until something goes wrong.
async fn follow_some(state: &State, open: &mut HashSet<String>, look: &mut Interval) -> Result<()> {
    let mut journals = state.storage.watch::<Investigation>().await?;
    loop {
        let seen = tokio::select! {
            seen = journals.next() => seen?,
            _ = look.tick() => {
                open.iter().for_each(|address| state.want(address));
                continue;
            }
        };
        let is_open = |journal: &Investigation| !journal.is_over() && !journal.run.is_empty();
        match seen {
            Seen::All(all) => {
                let all = all.into_iter().map(|found| found.record);
                *open = all.filter(is_open).map(|journal| journal.address).collect();
            }
            Seen::Saved(found) if is_open(&found.record) => {
                let journal = found.record;
                if journal.status == REQUESTED {
                    state.want(&journal.address);
                }
                open.insert(journal.address);
            }
            Seen::Saved(found) => drop(open.remove(&found.record.address)),
            Seen::Deleted(address) => drop(open.remove(&address)),
        }
    }
}
