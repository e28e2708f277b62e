//! Which investigations this instance works on: those that it was asked for, and those that nobody goes on with.

use std::{sync::Arc, time::Duration};

use commissaire::{Backoff, Result};
use commissaire_api::{
    Investigation,
    record::{IN_PROCESS, REQUESTED},
    storage::{List, ListParams, MAX_PAGE, Page},
};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use tokio::{sync::Semaphore, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{run, state::State};

/// How long the lease of an instance on a host holds when it dies.
const LEASE: Duration = Duration::from_secs(15);
/// How often journals are looked for that nobody goes on with.
const SCAN: Duration = Duration::from_secs(5);

/// Works until `stop`; what was begun then goes on in `tasks`.
pub(crate) async fn work(
    state: Arc<State>,
    stop: CancellationToken,
    tasks: TaskTracker,
    end: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(state.members.concurrency.max(1)));
    let scan = scan(&state);
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
        () = scan => {}
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
        // Whoever has it goes on with it, or dies and is found by a scan.
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

/// Looks for journals that are open, again and again.
async fn scan(state: &Arc<State>) {
    let backoff = Backoff { first: Duration::from_secs(1), most: Duration::from_secs(30) };
    let mut failed = 0;
    loop {
        let mut looked = Ok(());
        for status in [REQUESTED, IN_PROCESS] {
            looked = looked.and(open(state, status).await);
        }
        let rest = match looked {
            Ok(()) => {
                failed = 0;
                // Not all instances at one moment.
                SCAN.mul_f64(0.8 + 0.4 * f64::from(std::process::id() % 100) / 100.0)
            }
            Err(error) => {
                failed += 1;
                tracing::debug!(%error, "open investigations could not be looked for");
                backoff.after(failed)
            }
        };
        tokio::time::sleep(rest).await;
    }
}

async fn open(state: &State, status: &str) -> Result<()> {
    let mut params = ListParams {
        model_type_name: "Investigation".to_owned(),
        limit: Some(MAX_PAGE),
        filter: Some(Map::from_iter([("status".to_owned(), Value::from(status))])),
        fields: Some(vec!["address".to_owned()]),
        ..ListParams::default()
    };
    loop {
        let listed = timeout(Duration::from_secs(60), state.client.call(List, &params)).await;
        let Ok(listed) = listed else {
            tracing::warn!("open investigations cannot be looked for: the storage service takes too long");
            return Ok(());
        };
        let malformed = |_| commissaire::Error::malformed("a list is not what was asked for");
        let page: Page<Value> = listed?.to().map_err(malformed)?;
        for record in &page.records {
            if let Some(address) = record["address"].as_str() {
                state.want(address);
            }
        }
        match page.next {
            Some(next) => params.after = Some(next),
            None => return Ok(()),
        }
    }
}

/// Whether `record` is the end of `run`.
pub(crate) fn is_end(record: &Investigation, run: &str) -> bool {
    record.run != run || record.is_over()
}
