//! The steps of a run, each written down before it is done and after; and which services are to be started anew for them.

use std::time::Duration;

use commissaire_api::{
    investigator::InvestigatorState,
    record::{Step, StepState},
};
use commissaire_ssh::Session;

use crate::{
    apply::Hands,
    facts::Facts,
    plan::{self, Action, Kind, Wanted},
    run::{Run, Stopped},
};

impl Run<'_> {
    /// Does the steps that are not done.
    pub(crate) async fn steps(
        &mut self,
        session: &Session,
        facts: &Facts,
        network: &Wanted,
    ) -> Result<(), Stopped> {
        let settings = self.settings.clone();
        let members = &settings.members;
        let Some(os) = settings.systems.find(&facts.release()) else {
            let text = format!(
                "no row of the OS table is for {:?} (ID_LIKE {:?}): say in os_file what to do",
                facts.os,
                facts.os_like.join(" ")
            );
            return Err(self.commissaire("plan", &text));
        };
        let actions = plan::plan(members, &settings.templates, os, network);
        let actions = actions.map_err(|why| self.commissaire("plan", &why))?;
        self.take_up(&os.name, &actions);
        self.write().await?;
        let limit = Duration::from_secs(members.step_seconds.max(1));
        let hands = Hands { session, os, dry_run: self.journal.wanted.dry_run, limit };
        for (at, action) in actions.iter().enumerate() {
            if self.journal.progress.steps[at].state.is_over() {
                continue;
            }
            let due = self.journal.progress.due.clone();
            self.begin(at, &actions).await?;
            match hands.apply(action, self.is_due(action)).await {
                Ok(state) => self.end(at, state, due).await?,
                Err(failure) => {
                    // A step whose connection broke is taken up like one whose instance died.
                    self.journal.progress.steps[at].state = StepState::Failed;
                    self.write().await?;
                    return Err(Stopped::Failed(failure));
                }
            }
        }
        Ok(())
    }

    /// Keeps what was done of these steps in an attempt before.
    fn take_up(&mut self, os: &str, actions: &[Action]) {
        let progress = &mut self.journal.progress;
        let done = std::mem::take(&mut progress.steps);
        let state = |name: &str| {
            let known = done.iter().find(|step| step.name == name).map(|step| step.state);
            known.filter(|state| state.is_over() && progress.os == os).unwrap_or(StepState::Pending)
        };
        progress.steps = actions
            .iter()
            .map(|action| Step { name: action.name.clone(), state: state(&action.name) })
            .collect();
        os.clone_into(&mut progress.os);
    }

    /// Writes down that a step is begun; and that the services which rest on it are due, from before it is done: however
    /// this run ends, a later one knows.
    async fn begin(&mut self, at: usize, actions: &[Action]) -> Result<(), Stopped> {
        let dry_run = self.journal.wanted.dry_run;
        let progress = &mut self.journal.progress;
        progress.steps[at].state = StepState::Running;
        for resting in actions.iter().filter(|resting| rests_on(resting, &actions[at].name) && !dry_run) {
            if !progress.due.contains(&resting.name) {
                progress.due.push(resting.name.clone());
            }
        }
        self.write().await
    }

    /// Whether a service is to be started anew, or would be.
    fn is_due(&self, action: &Action) -> bool {
        let progress = &self.journal.progress;
        let would = |step: &Step| step.state == StepState::WouldChange && rests_on(action, &step.name);
        progress.due.contains(&action.name) || progress.steps.iter().any(would)
    }

    /// Writes down what came of a step. `due`: what was due before it.
    async fn end(&mut self, at: usize, state: StepState, due: Vec<String>) -> Result<(), Stopped> {
        let dry_run = self.journal.wanted.dry_run;
        let progress = &mut self.journal.progress;
        progress.changed |= state != StepState::Unchanged;
        let step = &mut progress.steps[at];
        step.state = state;
        let name = step.name.clone();
        if state == StepState::Unchanged {
            progress.due = due;
        }
        progress.due.retain(|due| dry_run || *due != name);
        self.write().await?;
        let word = serde_json::to_value(state).unwrap_or_default();
        self.tell(InvestigatorState::Step, &name, word.as_str().unwrap_or_default()).await;
        Ok(())
    }

    async fn write(&mut self) -> Result<(), Stopped> {
        if self.journal.write().await? { Ok(()) } else { Err(Stopped::Taken) }
    }
}

/// Whether `action` is a service that is to be started anew when that step has changed something.
fn rests_on(action: &Action, step: &str) -> bool {
    matches!(&action.kind, Kind::Service { after, .. } if after.iter().any(|name| name == step))
}
