//! The investigator: finds out what hosts are, and brings them in order.
//!
//! * [`facts`]: what a host is.
//! * [`config`]: the members of its configuration.
//! * `plan`: the steps that a host of a kind needs; `apply`: a step on a host.
//! * `journal`: what is asked for of a host; `run`, `steps`, `twins`: doing it.
//! * `methods`: what it answers.

mod apply;
pub mod config;
pub mod facts;
mod journal;
mod methods;
mod plan;
mod run;
mod state;
mod steps;
mod twins;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use commissaire::{
    Client, Running,
    app::{Instance, Program, Start},
    config::{Config, OwnMembers},
};
use commissaire_api::{Investigation, client::Stops};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    config::Members,
    state::{Settings, State},
};

/// The investigator as a program.
pub const PROGRAM: Program = Program {
    name: "investigator",
    about: "Finds out what hosts are, and brings them in order",
    members: OwnMembers::of::<Members>(),
    start: |begin| Box::pin(async move { Ok(Box::new(start(begin).await?) as Box<dyn Instance>) }),
};

/// The investigator at work.
#[derive(Debug)]
struct Investigator {
    state: Arc<State>,
    running: Running,
    work: AbortOnDropHandle<()>,
    stops: Stops,
}

async fn start(begin: Start) -> commissaire::Result<Investigator> {
    let members: Members = begin.config.own()?;
    let client = Client::counted(begin.bus.clone(), begin.metrics.clone());
    let state = Arc::new(State::new(client.clone(), Settings::new(members)?));
    let running = methods::service(state.clone()).metrics(begin.metrics).start(begin.bus).await?;
    let stops = Stops::default();
    let work = state.runs.clone().work::<Investigation, _, _>(client, stops.clone(), {
        let state = state.clone();
        move |address| {
            let state = state.clone();
            async move { run::run(&state, &address).await }
        }
    });
    Ok(Investigator { state, running, work: AbortOnDropHandle::new(tokio::spawn(work)), stops })
}

#[async_trait]
impl Instance for Investigator {
    fn is_ready(&self) -> bool {
        self.running.is_consuming() && !self.work.is_finished()
    }

    /// All holds for the runs that are begun from now on.
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

    /// Takes nothing new, and gives what was begun `grace` to end; what has not is taken up by another instance, or at the
    /// next start.
    async fn finish(self: Box<Self>, grace: Duration) {
        let Self { running, work, stops, .. } = *self;
        stops.stop.cancel();
        tokio::join!(running.drain(grace), stops.finish(grace));
        let _ = work.await;
    }
}
