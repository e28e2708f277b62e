//! clusterexec: upgrade, restart and deployment over all hosts of a cluster.
//!
//! * [`config`]: the members of its configuration.
//! * `methods`: what it answers; `options`, `window`: how an operation goes over the hosts; `plan`: to which, and what it
//!   would do.
//! * `run`: one operation; `host`, `verify`: one host of it; `scripts`: what is run there; `node`: the host as a node.
//! * `ledger`: what is written down; `projection`: the same as the first Commissaire wrote it.

pub mod config;
mod host;
mod ledger;
mod methods;
mod node;
mod options;
mod plan;
mod projection;
mod run;
mod scripts;
mod state;
mod verify;
mod window;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use commissaire::{
    Client, Running,
    app::{Instance, Program, Start},
    config::{Config, OwnMembers},
};
use commissaire_api::{Operation, client::Stops};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    config::Members,
    state::{Settings, State},
};

/// clusterexec as a program.
pub const PROGRAM: Program = Program {
    name: "clusterexec",
    about: "Upgrades, restarts and deploys the hosts of clusters",
    members: OwnMembers::of::<Members>(),
    start: |begin| Box::pin(async move { Ok(Box::new(start(begin).await?) as Box<dyn Instance>) }),
};

/// clusterexec at work.
#[derive(Debug)]
struct Clusterexec {
    state: Arc<State>,
    running: Running,
    work: AbortOnDropHandle<()>,
    stops: Stops,
}

async fn start(begin: Start) -> commissaire::Result<Clusterexec> {
    let members: Members = begin.config.own()?;
    let client = Client::counted(begin.bus.clone(), begin.metrics.clone());
    let state = Arc::new(State::new(client.clone(), Settings::new(members)?));
    let running = methods::service(state.clone()).metrics(begin.metrics).start(begin.bus).await?;
    let stops = Stops::default();
    let work = state.runs.clone().work::<Operation, _, _>(client, stops.clone(), {
        let state = state.clone();
        move |cluster| {
            let state = state.clone();
            async move { run::run(&state, &cluster).await }
        }
    });
    Ok(Clusterexec { state, running, work: AbortOnDropHandle::new(tokio::spawn(work)), stops })
}

#[async_trait]
impl Instance for Clusterexec {
    fn is_ready(&self) -> bool {
        self.running.is_consuming() && !self.work.is_finished()
    }

    /// All holds for the operations that are begun from now on.
    fn reconfigure(&self, config: &Config, changed: &[String]) -> Vec<String> {
        match config.own().and_then(Settings::new) {
            Ok(settings) => {
                self.state.set(settings);
                Vec::new()
            }
            Err(error) => {
                tracing::error!(%error, "what the configuration says now cannot be used");
                changed.to_vec()
            }
        }
    }

    /// Takes nothing new, and leaves what is under way to another instance, or to the next start: an operation takes too
    /// long to be waited for, and each host goes on from where it is.
    async fn finish(self: Box<Self>, grace: Duration) {
        let Self { running, work, stops, .. } = *self;
        stops.stop.cancel();
        stops.end.cancel();
        tokio::join!(running.drain(grace), stops.finish(grace));
        let _ = work.await;
    }
}
