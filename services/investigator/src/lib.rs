//! The investigator: finds out what hosts are, and brings them in order.
//!
//! * [`facts`]: what a host is.
//! * [`config`]: the members of its configuration.
//! * `plan`: the steps that a host of a kind needs; `apply`: a step on a host.
//! * `journal`: what is wanted of a host and how far it is; `runs`: which of that this instance does; `run`, `steps`, `twins`: one of them.
//! * `methods`: what it answers.

mod apply;
pub mod config;
pub mod facts;
mod journal;
mod methods;
mod plan;
mod run;
mod runs;
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
use tokio::time::timeout;
use tokio_util::{
    sync::CancellationToken,
    task::{AbortOnDropHandle, TaskTracker},
};

use crate::{config::Members, state::State};

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
    running: Running,
    work: AbortOnDropHandle<()>,
    stop: CancellationToken,
    end: CancellationToken,
    tasks: TaskTracker,
}

async fn start(begin: Start) -> commissaire::Result<Investigator> {
    let members: Members = begin.config.own()?;
    let client = Client::counted(begin.bus.clone(), begin.metrics.clone());
    let state = Arc::new(State::new(client, members)?);
    let running = methods::service(state.clone()).metrics(begin.metrics).start(begin.bus).await?;
    let (stop, end, tasks) = (CancellationToken::new(), CancellationToken::new(), TaskTracker::new());
    let work = tokio::spawn(runs::work(state, stop.clone(), tasks.clone(), end.clone()));
    Ok(Investigator { running, work: AbortOnDropHandle::new(work), stop, end, tasks })
}

#[async_trait]
impl Instance for Investigator {
    fn is_ready(&self) -> bool {
        self.running.is_consuming() && !self.work.is_finished()
    }

    fn reconfigure(&self, _: &Config, changed: &[String]) -> Vec<String> {
        changed.to_vec()
    }

    /// Takes nothing new, and gives what was begun `grace` to end; what has not is taken up by another instance, or at the
    /// next start.
    async fn finish(self: Box<Self>, grace: Duration) {
        let Self { running, work, stop, end, tasks } = *self;
        stop.cancel();
        tasks.close();
        tokio::join!(running.drain(grace), async {
            let _ = timeout(grace.saturating_sub(Duration::from_millis(500)), tasks.wait()).await;
            end.cancel();
            tasks.wait().await;
        });
        let _ = work.await;
    }
}
