//! What the records say of a host, and having them say what is.

use std::collections::HashMap;

use commissaire::{Client, Error, RpcError, time::timestamp};
use commissaire_api::{
    Host, HostState, StorageClient,
    record::{ACTIVE, DISASSOCIATED, UNREACHABLE, members},
    watcher::{WatcherEvent, WatcherState},
};

use crate::{check::Full, watch::event};

/// How many changes of a host are kept.
const HISTORY: usize = 20;

/// What the records say of a host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) down: bool,
    pub(crate) flapping: bool,
    pub(crate) cause: String,
    pub(crate) text: String,
    pub(crate) boot_id: String,
    warnings: Vec<String>,
}

/// What they are to say.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) down: bool,
    pub(crate) flapping: bool,
    pub(crate) cause: String,
    pub(crate) text: String,
    pub(crate) full: Option<Full>,
}

impl Written {
    pub(crate) fn of(state: &HostState) -> Self {
        let watched = state.watched();
        Self {
            down: watched.down,
            flapping: watched.flapping,
            cause: watched.cause,
            text: watched.text,
            boot_id: state.boot_id.clone(),
            warnings: state.warnings.clone(),
        }
    }
}

impl Wanted {
    /// Whether that is something else.
    pub(crate) fn differs(&self, written: &Written, status: &str) -> bool {
        let full = self.full.as_ref();
        self.down != written.down
            || (self.down && is_good(status))
            || (!self.down && status == UNREACHABLE)
            || (self.down && self.cause != written.cause)
            || self.flapping != written.flapping
            || full.is_some_and(|full| !full.boot_id.is_empty() && full.boot_id != written.boot_id)
            || full.is_some_and(|full| own(&full.warnings) != own(&written.warnings))
    }
}

/// The warnings that the watcher finds by itself.
fn own(warnings: &[String]) -> Vec<&String> {
    warnings.iter().filter(|warning| is_own(warning)).collect()
}

fn is_own(warning: &str) -> bool {
    warning.starts_with("the file system of ") || warning.ends_with(" has failed")
}

/// The states of these hosts, of which some may be missing.
pub(crate) async fn states(
    storage: &StorageClient,
    addresses: &[String],
) -> Option<HashMap<String, HostState>> {
    let found = if addresses.len() > 16 {
        storage.list::<HostState>().await
    } else {
        let mut some = Ok(Vec::new());
        for address in addresses {
            match (storage.find::<HostState>(address).await, &mut some) {
                (Ok(found), Ok(some)) => some.extend(found.map(|found| found.record)),
                (Err(error), some) => *some = Err(error),
                _ => {}
            }
        }
        some
    };
    match found {
        Ok(states) => Some(states.into_iter().map(|state| (state.address.clone(), state)).collect()),
        Err(error) => {
            tracing::warn!(%error, "what is known of hosts cannot be read; tried again");
            None
        }
    }
}

/// Has the records of a host say `wanted`, and tells of it. `None`: they do not, or may not.
pub(crate) async fn write(
    storage: &StorageClient,
    client: &Client,
    address: &str,
    before: &Written,
    wanted: &Wanted,
) -> Option<Written> {
    match change(storage, address, wanted).await {
        Ok(written) => {
            if wanted.down != before.down {
                let state = if wanted.down { WatcherState::Down } else { WatcherState::Up };
                tell(client, &event(state, address, &wanted.cause, &wanted.text)).await;
            }
            Some(written)
        }
        Err(error) if error.remote().is_some_and(|remote| remote.code == RpcError::STORAGE_LOOKUP) => {
            // It was deleted at this moment; that is heard of as well.
            None
        }
        Err(error) => {
            tracing::warn!(address, %error, "what was found of a host was not written: it is tried again");
            None
        }
    }
}

async fn change(storage: &StorageClient, address: &str, wanted: &Wanted) -> Result<Written, Error> {
    let now = timestamp();
    let new = HostState { address: address.to_owned(), ..HostState::default() };
    let state = storage.find::<HostState>(address).await?.map(|found| found.record).unwrap_or_default();
    let mut was = state.watched().was;
    let status = storage.get::<Host>(address).await?.status;
    if wanted.down && is_good(&status) && was != status {
        // What it was is known before it is so no longer: whoever goes on from here gives it back.
        was.clone_from(&status);
        let keep = |state: &mut HostState| {
            let mut watched = state.watched();
            watched.was.clone_from(&status);
            state.watch = members(&watched);
        };
        storage.update_or_create(&new, keep).await?;
    }
    storage
        .update::<Host>(address, |host| {
            host.last_check.clone_from(&now);
            if wanted.down && is_good(&host.status) {
                was = std::mem::replace(&mut host.status, UNREACHABLE.to_owned());
            } else if !wanted.down && host.status == UNREACHABLE {
                host.status = if was.is_empty() { DISASSOCIATED.to_owned() } else { was.clone() };
            }
        })
        .await?;
    let saved = storage
        .update_or_create(&new, |state| {
            let mut watched = state.watched();
            if watched.down != wanted.down {
                watched.since.clone_from(&now);
                let word = if wanted.down { format!("down {}", wanted.cause) } else { "up".to_owned() };
                watched.history.insert(0, format!("{now} {word}"));
                watched.history.truncate(HISTORY);
            }
            watched.down = wanted.down;
            watched.flapping = wanted.flapping;
            let (cause, text) = if wanted.down { (&*wanted.cause, &*wanted.text) } else { ("", "") };
            (watched.cause, watched.text) = (cause.to_owned(), text.to_owned());
            watched.was = if wanted.down { was.clone() } else { String::new() };
            state.watch = members(&watched);
            if let Some(full) = &wanted.full {
                if !full.boot_id.is_empty() {
                    state.boot_id.clone_from(&full.boot_id);
                }
                state.warnings.retain(|warning| !is_own(warning));
                state.warnings.extend(full.warnings.iter().cloned());
            }
        })
        .await?;
    Ok(Written::of(&saved.record))
}

/// Tells an event; that nobody hears of it is no reason to stop.
pub(crate) async fn tell(client: &Client, event: &WatcherEvent) {
    if let Err(error) = client.announce(event).await {
        tracing::warn!(%error, "an event was not announced");
    }
}

fn is_good(status: &str) -> bool {
    [ACTIVE, DISASSOCIATED].contains(&status)
}
