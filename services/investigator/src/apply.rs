//! A step on a host: looked at, and done where something is to be done.

use std::time::Duration;

use commissaire_api::record::{HostFailure, StepState};
use commissaire_ssh::{Failure, Output, Script, Session, os::Os};
use sha2::{Digest, Sha256};

use crate::plan::{Action, Kind};

/// How steps are done on one host.
pub(crate) struct Hands<'a> {
    pub(crate) session: &'a Session,
    pub(crate) os: &'a Os,
    pub(crate) dry_run: bool,
    pub(crate) limit: Duration,
}

/// How the check of a script ends that has found that something is to be done and may not be.
const WOULD: u32 = 75;
/// The same, when it cannot be helped.
const MISSING: u32 = 76;

impl Hands<'_> {
    /// Does what `action` says; with what came of it. `restart`: something on which a service rests was changed.
    pub(crate) async fn apply(&self, action: &Action, restart: bool) -> Result<StepState, Box<HostFailure>> {
        match &action.kind {
            Kind::Script { check, apply, shown, missing, variables } => {
                let then = match (apply, self.dry_run) {
                    (None, _) => format!("exit {MISSING}"),
                    (Some(_), true) => format!("exit {WOULD}"),
                    (Some(apply), false) => format!("( {apply}\n) || exit\necho 'commissaire: changed'"),
                };
                let text = format!(
                    "if ( {check}\n) >/dev/null 2>&1; then echo 'commissaire: unchanged'; exit 0; fi\n{then}"
                );
                let mut script = self.script(text);
                for (name, value) in variables {
                    script = script.with(name, value);
                }
                let output = self.run(action, &script).await?;
                if apply.is_none() && output.status == Some(MISSING) {
                    let failure = failed(action, "command", missing);
                    return Err(Box::new(HostFailure { command: check.clone(), ..failure }));
                }
                judge(action, shown, &output, self.dry_run)
            }
            Kind::File { path, content, mode } if self.dry_run => {
                let hash: String = Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
                let check = format!(
                    "[ \"$(sha256sum <\"$FILE\" | cut -d' ' -f1)\" = {hash} ] && [ -z \"$MODE\" -o \"$(stat -c %a \"$FILE\")\" = \
                     \"$MODE\" ] && echo 'commissaire: unchanged' && exit 0\nexit {WOULD}"
                );
                let mode = mode.map(|mode| format!("{mode:o}")).unwrap_or_default();
                let script = Script::new(check).with("FILE", path).with("MODE", mode).as_root();
                judge(action, "", &self.run(action, &script).await?, true)
            }
            Kind::File { path, content, mode } => {
                let written = self.session.write_file(path, content, *mode).await;
                let changed = written.map_err(|failure| of_host(action, &failure))?;
                Ok(if changed { StepState::Changed } else { StepState::Unchanged })
            }
            Kind::Service { unit, .. } => {
                let Os { enabled, enable, active, reload, restart: start, .. } = self.os;
                let act = if self.dry_run { format!("exit {WOULD}") } else { String::new() };
                let text = format!(
                    "changed=unchanged\nif ! ( {enabled} ) >/dev/null 2>&1; then {act}\n( {enable} ) || exit; changed=changed; fi\n\
                     if [ \"$RESTART\" = yes ] || ! ( {active} ) >/dev/null 2>&1; then {act}\n( {reload} ) && ( {start} ) || \
                     exit; changed=changed; fi\necho \"commissaire: $changed\""
                );
                let restart = if restart { "yes" } else { "no" };
                let script = self.script(text).with("UNIT", *unit).with("RESTART", restart);
                let output = self.run(action, &script).await?;
                judge(action, &format!("{enable}; {start}").replace("\"$UNIT\"", unit), &output, self.dry_run)
            }
        }
    }

    /// One that may change the host.
    fn script(&self, text: String) -> Script {
        let script = Script::new(text).within(self.limit);
        if self.dry_run { script.as_root() } else { script.alone() }
    }

    async fn run(&self, action: &Action, script: &Script) -> Result<Output, Box<HostFailure>> {
        self.session.run(script).await.map_err(|failure| of_host(action, &failure))
    }
}

fn judge(
    action: &Action,
    command: &str,
    output: &Output,
    dry_run: bool,
) -> Result<StepState, Box<HostFailure>> {
    match output.out.lines().last().unwrap_or_default() {
        _ if dry_run && output.status == Some(WOULD) => Ok(StepState::WouldChange),
        "commissaire: changed" if output.is_well() => Ok(StepState::Changed),
        "commissaire: unchanged" if output.is_well() => Ok(StepState::Unchanged),
        _ => {
            let last =
                output.tail.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
            let text = format!("{} failed ({}): {last}", action.name, output.ending());
            Err(Box::new(HostFailure {
                command: command.trim().to_owned(),
                exit: output.ending(),
                tail: output.tail.clone(),
                ..failed(action, "command", &text)
            }))
        }
    }
}

fn of_host(action: &Action, failure: &Failure) -> Box<HostFailure> {
    Box::new(failed(action, failure.kind.as_str(), &failure.text))
}

fn failed(action: &Action, kind: &str, text: &str) -> HostFailure {
    HostFailure {
        kind: kind.to_owned(),
        step: action.name.clone(),
        text: text.to_owned(),
        at: commissaire::time::timestamp(),
        ..HostFailure::default()
    }
}
