//! What the investigator answers.

use std::{sync::Arc, time::Duration};

use commissaire::{Context, RetryPolicy, RpcError, Service};
use commissaire_api::{
    Host, Investigation,
    client::Ending,
    investigator::{INVESTIGATION_FAILED, Investigate, InvestigateJob, InvestigateParams},
    record::FINISHED,
};
use serde_json::json;
use tokio::time::timeout;

use crate::{
    journal::{Asked, request},
    state::State,
};

/// How often a run is looked at of whose end nothing is heard.
const LOOK: Duration = Duration::from_secs(5);

pub(crate) fn service(state: Arc<State>) -> Service<State> {
    Service::new("investigator", state)
        .method(Investigate, investigate)
        .job(InvestigateJob, begin)
        // One that meets another run waits for its end: that may take as long as a step.
        .retry(RetryPolicy { max_attempts: 30, ..RetryPolicy::default() })
}

/// Writes down what is to be done; nothing of it hangs on the job.
async fn begin(state: Arc<State>, wanted: InvestigateParams, _: Context) -> Result<(), RpcError> {
    exists(&state, &wanted.address).await?;
    let asked = request(&state.storage, &wanted).await?;
    state.runs.want(&wanted.address);
    match asked {
        Asked::Run(_) => Ok(()),
        Asked::Busy(_) => Err(RpcError::new(
            RpcError::BUSY,
            format!("an investigation of {} with other wishes is under way", wanted.address),
        )),
    }
}

/// The same, and waits for its end.
async fn investigate(state: Arc<State>, wanted: InvestigateParams, _: Context) -> Result<Host, RpcError> {
    exists(&state, &wanted.address).await?;
    loop {
        // It may end at once.
        let over = state.runs.ending(&wanted.address);
        let asked = request(&state.storage, &wanted).await?;
        state.runs.want(&wanted.address);
        let (run, is_ours) = match asked {
            Asked::Run(run) => (run, true),
            Asked::Busy(run) => (run, false),
        };
        let record = end(&state, &wanted.address, &run, over).await?;
        if !is_ours {
            continue;
        }
        if record.run == run && record.status != FINISHED {
            let failure = record.progress().failure.unwrap_or_default();
            let text = if failure.text.is_empty() { "the investigation failed" } else { &failure.text };
            return Err(RpcError::new(INVESTIGATION_FAILED, text).with_data(json!(failure)));
        }
        return Ok(state.storage.get::<Host>(&wanted.address).await?);
    }
}

/// The journal at the end of `run`, of which `over` hears.
async fn end(state: &State, address: &str, run: &str, mut over: Ending) -> Result<Investigation, RpcError> {
    loop {
        let _ = timeout(LOOK, over.heard()).await;
        over = state.runs.ending(address);
        let record = state.storage.get::<Investigation>(address).await?;
        if record.run != run || record.is_over() {
            return Ok(record);
        }
    }
}

async fn exists(state: &State, address: &str) -> Result<(), RpcError> {
    if state.storage.find::<Host>(address).await?.is_some() {
        return Ok(());
    }
    let error = RpcError::new(404, format!("there is no host {address:?}: `commissaire host add` makes one"));
    Err(error.with_data(json!({"address": address})))
}
