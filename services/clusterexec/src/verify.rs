//! Whether a host is well after its operation, and the way back when it is not.

use std::time::Duration;

use commissaire_api::{HostFailure, clusterexec::OperationKind, record::HostStage};
use commissaire_ssh::{FailureKind, Script, Target, os::OsRelease};
use tokio::time::{Instant, sleep};

use crate::{
    host::{FIRST, LONGEST, QUICK, Work, boot, ended, failed, of_host, refused},
    ledger::Halt,
    scripts::GATES,
};

/// How a gate ends that may hold in a moment.
const NOT_YET: u32 = 75;

impl Work {
    /// Waits until all gates hold.
    pub(crate) async fn verify(&mut self, target: &Target) -> Result<(), Halt> {
        let verified = self.gates(target).await;
        let (Err(Halt::Failed(failure)), true) = (&verified, self.wanted.options.rollback) else {
            return verified;
        };
        match self.roll_back(target, failure).await {
            Ok(()) => {
                let text = format!("{}; it was taken back to what it was before", failure.text);
                Err(Halt::Failed(Box::new(HostFailure { text, ..(**failure).clone() })))
            }
            Err(Halt::Failed(more)) => {
                let text = format!("{}; and it cannot be taken back: {}", failure.text, more.text);
                Err(Halt::Failed(Box::new(HostFailure { text, ..(**failure).clone() })))
            }
            Err(other) => Err(other),
        }
    }

    async fn gates(&mut self, target: &Target) -> Result<(), Halt> {
        let gates = &self.wanted.options.gates;
        let until = Instant::now() + Duration::from_secs(gates.seconds.into());
        let script = Script::new(GATES)
            .as_root()
            .within(QUICK)
            .with("DEGRADED", if gates.degraded { "yes" } else { "no" })
            .with("UNITS", gates.units.join(" "))
            .with("GATE", gates.command.as_deref().unwrap_or_default());
        let mut rest = FIRST;
        loop {
            let looked = match self.settings.ssh.connect(target).await {
                Ok(session) => {
                    let looked = session.run(&script).await;
                    session.close().await;
                    looked
                }
                Err(failure) => Err(failure),
            };
            let why = match looked {
                Ok(output) if output.is_well() => break,
                Ok(output) if output.status == Some(NOT_YET) => output.out.trim().to_owned(),
                Ok(output) => return Err(ended("verify", "", &output)),
                Err(failure) if failure.kind == FailureKind::HostKey => {
                    return Err(of_host("verify", &failure));
                }
                Err(failure) => failure.text,
            };
            if Instant::now() >= until {
                let text = format!("it is not well within {} s: {why}", gates.seconds);
                return Err(failed("verify", "gate", &text));
            }
            sleep(rest).await;
            rest = (rest * 3 / 2).min(LONGEST);
        }
        let Some(node) = &self.node else { return Ok(()) };
        let progress = &self.entry.progress;
        let before = (!progress.boot_after.is_empty()).then(|| progress.boot_before.clone());
        node.ready(gates, before).await.map_err(|error| refused("verify", error))
    }

    /// Takes the host back to what it was before the operation.
    async fn roll_back(&mut self, target: &Target, why: &HostFailure) -> Result<(), Halt> {
        let session = self.connect(target).await?;
        let done = async {
            let release = OsRelease::ask(&session).await.map_err(|failure| of_host("rollback", &failure))?;
            let settings = self.settings.clone();
            let rollback = settings.systems.find(&release).and_then(|os| os.rollback.clone());
            let Some(rollback) = rollback.filter(|_| self.wanted.kind != OperationKind::Restart) else {
                return Err(failed("rollback", "commissaire", "its system has no way back"));
            };
            self.entry.progress.boot_before = boot(&session).await?;
            self.once(target, "rollback", &rollback).await
        };
        let done = done.await;
        session.close().await;
        done?;
        self.entry.progress.away = true;
        self.entry.progress.failure = Some(why.clone());
        self.ledger.enter(&mut self.entry, HostStage::Rebooting, "it is taken back").await?;
        self.reboot(target).await?;
        self.entry.progress.away = false;
        Ok(())
    }
}
