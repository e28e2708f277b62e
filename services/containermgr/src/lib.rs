//! The container managers' service: one way to ask all of them, whatever they are.
//!
//! * [`config`]: the members of its configuration; `options`: how a container manager is reached.
//! * `manager`: what each can be asked; `kubernetes`, `trivial`: those that there are; `pod`: what may leave a node.
//! * `managers`: which there are now; `fault`: what is wrong with one.
//! * `methods`, `wait`, `drain`: what it answers, and the drains that it works on.

pub mod config;
mod drain;
mod fault;
mod kubernetes;
mod manager;
mod managers;
mod methods;
mod options;
mod pod;
mod state;
mod trivial;
mod wait;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use commissaire::{
    Client, Running,
    app::{Instance, Program, Start, data_dir},
    config::{Config, OwnMembers},
};
use commissaire_api::{NodeDrain, StorageClient, client::Stops};
use tokio_util::task::AbortOnDropHandle;

pub use options::check;

use crate::{config::Members, managers::Managers, state::State};

/// The container managers' service as a program.
pub const PROGRAM: Program = Program {
    name: "containermgr",
    about: "Keeps container managers informed of hosts, and drains their nodes",
    members: OwnMembers::of::<Members>(),
    start: |begin| Box::pin(async move { Ok(Box::new(start(begin).await?) as Box<dyn Instance>) }),
};

/// The container managers' service at work.
#[derive(Debug)]
struct ContainerManagers {
    state: Arc<State>,
    running: Running,
    follow: AbortOnDropHandle<()>,
    work: AbortOnDropHandle<()>,
    stops: Stops,
}

async fn start(begin: Start) -> commissaire::Result<ContainerManagers> {
    let members: Members = begin.config.own()?;
    let client = Client::counted(begin.bus.clone(), begin.metrics.clone());
    let storage = StorageClient::new(client.clone());
    let dir = data_dir(&begin.config, "containermgr")?;
    let managers = Managers::new(storage.clone(), dir, members.container_handlers.all().to_vec());
    let state = Arc::new(State::new(client.clone(), managers, &members));
    let follow = tokio::spawn({
        let state = state.clone();
        async move { state.managers.follow().await }
    });
    let running = methods::service(state.clone()).metrics(begin.metrics).start(begin.bus).await?;
    let stops = Stops::default();
    let work = state.runs.clone().work::<NodeDrain, _, _>(client, stops.clone(), {
        let state = state.clone();
        move |node| {
            let state = state.clone();
            async move { drain::run(state, &node).await }
        }
    });
    let (follow, work) = (AbortOnDropHandle::new(follow), AbortOnDropHandle::new(tokio::spawn(work)));
    Ok(ContainerManagers { state, running, follow, work, stops })
}

#[async_trait]
impl Instance for ContainerManagers {
    fn is_ready(&self) -> bool {
        self.running.is_consuming() && !self.follow.is_finished() && !self.work.is_finished()
    }

    fn reconfigure(&self, config: &Config, changed: &[String]) -> Vec<String> {
        match config.own::<Members>() {
            Ok(members) => {
                self.state.set(&members);
                changed.iter().filter(|name| *name == "container_handlers").cloned().collect()
            }
            Err(_) => changed.to_vec(),
        }
    }

    /// Takes nothing new. A drain that is not over within `grace` another instance goes on with, or this at the next start.
    async fn finish(self: Box<Self>, grace: Duration) {
        let Self { running, follow, work, stops, .. } = *self;
        stops.stop.cancel();
        tokio::join!(running.drain(grace), stops.finish(grace));
        let _ = work.await;
        drop(follow);
    }
}
