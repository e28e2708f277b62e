//! The watcher: whether hosts are alive.
//!
//! * [`config`]: the members of its configuration.
//! * `shards`: which hosts this instance looks after; `turns`: when; `check`: what it looks at.
//! * `fate`, `flapping`, `brake`: what that comes to; `planned`: who may be away.
//! * `watch`: all of that together; `record`: what is written.

mod brake;
mod check;
pub mod config;
mod fate;
mod flapping;
mod planned;
mod record;
mod shards;
mod turns;
mod watch;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use commissaire::{
    Bus, Client, Context, ErrorKind, Key, Received, RpcError, Running, Service, Source,
    app::{Instance, Program, Start},
    config::{Config, OwnMembers},
};
use commissaire_api::{
    Host, StorageClient, WatcherRecord,
    client::Seen,
    storage::NoParams,
    watcher::{Check, CheckParams, Checked, Status, StatusOutput},
};
use serde_json::{Value, json};
use tokio::{
    sync::{mpsc, oneshot, watch as latest},
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use uuid::Uuid;

use crate::{
    config::Members,
    planned::Planned,
    watch::{Ask, Settings, Watch},
};

/// The queue in which the first Commissaire left hosts to be looked at.
const QUEUE: &str = "jobs.watcher";
/// How long after something went wrong it is tried again.
const AGAIN: Duration = Duration::from_secs(5);
/// How many of these are in hand.
const PREFETCH: u16 = 64;

/// The watcher as a program.
pub const PROGRAM: Program = Program {
    name: "watcher",
    about: "Watches whether hosts are alive",
    members: OwnMembers::of::<Members>(),
    start: |begin| Box::pin(async move { Ok(Box::new(start(begin).await?) as Box<dyn Instance>) }),
};

/// The watcher at work.
#[derive(Debug)]
struct Watcher {
    settings: latest::Sender<Settings>,
    running: Running,
    watch: JoinHandle<()>,
    shares: JoinHandle<()>,
    others: [JoinHandle<()>; 3],
}

async fn start(begin: Start) -> commissaire::Result<Watcher> {
    let members: Members = begin.config.own()?;
    let client = Client::counted(begin.bus.clone(), begin.metrics.clone());
    let storage = StorageClient::new(client.clone());
    let (settings, now) = latest::channel(Settings::new(members)?);
    let instance = format!("watcher {}", Uuid::new_v4().simple());
    let (ask, asks) = mpsc::channel(64);
    let (done, dones) = mpsc::channel(1024);
    let (shares, ours) = latest::channel(Vec::new());
    let planned = Planned::default();
    let (see, hosts) = mpsc::channel(64);
    let follow = tokio::spawn(follow(storage.clone(), see));
    let watch = Watch::new(now, client.clone(), instance.clone(), planned.clone(), done);
    let watch = tokio::spawn(watch.run(hosts, ours, asks, dones));
    let keep = tokio::spawn(shards::keep(client, instance, shares));
    let others = [
        follow,
        tokio::spawn(planned.follow(storage.clone())),
        tokio::spawn(queue(begin.bus.clone(), ask.clone())),
    ];
    let service = Service::new("watcher", State { ask, storage }).method(Check, check).method(Status, status);
    let running = service.metrics(begin.metrics).start(begin.bus).await?;
    Ok(Watcher { settings, running, watch, shares: keep, others })
}

/// What the methods share.
struct State {
    ask: mpsc::Sender<Ask>,
    storage: StorageClient,
}

/// Follows the hosts; whatever goes wrong is tried again, until the bus closes.
async fn follow(storage: StorageClient, see: mpsc::Sender<Seen<Host>>) {
    loop {
        let mut hosts = match storage.watch::<Host>().await {
            Ok(hosts) => hosts,
            Err(error) if *error.kind() == ErrorKind::Closed => return,
            Err(error) => {
                tracing::error!(%error, "hosts cannot be followed; tried again");
                sleep(AGAIN).await;
                continue;
            }
        };
        loop {
            match hosts.next().await {
                Ok(seen) => {
                    if see.send(seen).await.is_err() {
                        return;
                    }
                }
                Err(error) if *error.kind() == ErrorKind::Closed => return,
                Err(error) => {
                    tracing::error!(%error, "hosts cannot be followed; tried again");
                    sleep(AGAIN).await;
                    break;
                }
            }
        }
    }
}

async fn check(state: Arc<State>, which: CheckParams, _: Context) -> Result<Checked, RpcError> {
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let (asked, answer) = oneshot::channel();
        let sent = state.ask.send(Ask::Check(which.address.clone(), asked)).await;
        sent.map_err(|_| RpcError::internal())?;
        let answer = answer.await;
        // One that was added just now is heard of in a moment.
        let is_new = matches!(answer, Ok(None)) && Instant::now() < until;
        if is_new && state.storage.find::<Host>(&which.address).await?.is_some() {
            sleep(Duration::from_millis(200)).await;
            continue;
        }
        return told(&which, answer);
    }
}

fn told(
    which: &CheckParams,
    answer: Result<Option<Checked>, oneshot::error::RecvError>,
) -> Result<Checked, RpcError> {
    match answer {
        Ok(Some(checked)) => Ok(checked),
        Ok(None) => {
            let error = RpcError::new(RpcError::NOT_FOUND, format!("there is no host {:?}", which.address));
            Err(error.with_data(json!({"address": which.address})))
        }
        Err(_) => {
            let text =
                format!("{} could not be looked at: the storage service does not answer", which.address);
            Err(RpcError::new(RpcError::UNAVAILABLE, text))
        }
    }
}

async fn status(state: Arc<State>, _: NoParams, _: Context) -> Result<StatusOutput, RpcError> {
    let (asked, answer) = oneshot::channel();
    state.ask.send(Ask::Status(asked)).await.map_err(|_| RpcError::internal())?;
    answer.await.map_err(|_| RpcError::internal())
}

/// Looks at the hosts whose records are left in the queue: bare ones, as the first Commissaire left them, or in a
/// notification.
async fn queue(bus: Arc<dyn Bus>, asks: mpsc::Sender<Ask>) {
    let subscribed = match Key::new(QUEUE) {
        Ok(key) => bus.subscribe(Source::Queue(key), PREFETCH).await,
        Err(error) => Err(error),
    };
    let mut records = match subscribed {
        Ok(records) => records,
        Err(error) => return tracing::error!(%error, "the queue {QUEUE} is not read"),
    };
    while let Some(received) = records.next().await {
        let Received::Delivery(delivery) = received else { continue };
        let settled = match read(delivery.message().body()) {
            Some(record) => {
                let (asked, answer) = oneshot::channel();
                if asks.send(Ask::Check(record.address, asked)).await.is_err() {
                    return;
                }
                // Whatever comes of it is the host's; one that does not exist leaves the rotation.
                let _ = answer.await;
                delivery.ack().await
            }
            None => delivery.term("rejected", "it is no WatcherRecord").await,
        };
        if let Err(error) = settled {
            tracing::debug!(%error, "a record of the queue comes again");
        }
    }
}

fn read(body: &[u8]) -> Option<WatcherRecord> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let record = match body.get("jsonrpc") {
        Some(_) => match body.get("params")? {
            Value::Array(list) => json!({"address": list.first()?, "last_check": list.get(1)?}),
            named => named.clone(),
        },
        None => body,
    };
    serde_json::from_value(record).ok()
}

#[async_trait]
impl Instance for Watcher {
    fn is_ready(&self) -> bool {
        self.running.is_consuming() && !self.watch.is_finished()
    }

    /// All holds for the looks that are begun from now on.
    fn reconfigure(&self, config: &Config, changed: &[String]) -> Vec<String> {
        match config.own().and_then(Settings::new) {
            Ok(settings) => {
                self.settings.send_replace(settings);
                Vec::new()
            }
            Err(error) => {
                tracing::error!(%error, "what the configuration says now cannot be used");
                changed.to_vec()
            }
        }
    }

    /// Looks at nothing more, and gives its shares back.
    async fn finish(self: Box<Self>, grace: Duration) {
        let Self { running, watch, shares, others, settings: _ } = *self;
        others.iter().for_each(JoinHandle::abort);
        running.drain(grace).await;
        watch.abort();
        let _ = watch.await;
        // The shares are given back when nobody listens any more.
        let _ = timeout(grace.max(Duration::from_secs(1)), shares).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_the_queue_are_bare_or_in_a_notification() {
        let at = "2016-11-22T12:00:00.000000";
        for body in [
            format!(r#"{{"address": "10.0.0.7", "last_check": "{at}"}}"#),
            format!(r#"{{"jsonrpc": "2.0", "params": {{"address": "10.0.0.7", "last_check": "{at}"}}}}"#),
            format!(r#"{{"jsonrpc": "2.0", "method": "m", "id": 1, "params": ["10.0.0.7", "{at}"]}}"#),
        ] {
            let record = read(body.as_bytes());
            let record = record.map(|record| (record.address, record.last_check));
            assert_eq!(record, Some(("10.0.0.7".to_owned(), at.to_owned())), "{body}");
        }
        for body in [
            "",
            "null",
            "7",
            "{}",
            "[]",
            "\"10.0.0.7\"",
            r#"{"jsonrpc": "2.0"}"#,
            r#"{"jsonrpc": "2.0", "params": []}"#,
        ] {
            assert_eq!(read(body.as_bytes()), None, "{body}");
        }
    }
}
