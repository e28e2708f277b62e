//! One host of an operation, from stage to stage. Each is written down before what it is about is begun, and each may be
//! begun again: what was done on the host is known there.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use commissaire::time::timestamp;
use commissaire_api::{
    HostCreds, HostFailure, HostState,
    clusterexec::OperationKind,
    record::{HostStage, OperationWanted, Ran},
};
use commissaire_ssh::{
    Credentials, Failure, FailureKind, Output, Script, Session, Target,
    os::{Os, OsRelease},
};
use rand::RngExt as _;
use tokio::time::{Instant, sleep};

use crate::{
    ledger::{Entry, Halt, Ledger},
    node::{Node, is_refusal},
    scripts::{BOOT, ONCE, REBOOT},
    state::Settings,
};

/// The rests between tries to reach a host that should be there.
const RESTS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(3)];
/// The first and the longest rest between two looks at a host that is to come back.
pub(crate) const FIRST: Duration = Duration::from_millis(500);
pub(crate) const LONGEST: Duration = Duration::from_secs(10);
/// How long what is quick may take on a host.
pub(crate) const QUICK: Duration = Duration::from_secs(60);

/// A host at work.
pub(crate) struct Work {
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) settings: Arc<Settings>,
    pub(crate) wanted: Arc<OperationWanted>,
    pub(crate) node: Option<Node>,
    /// Whether nothing more is to be begun, not even on this host.
    pub(crate) halt: Arc<AtomicBool>,
    pub(crate) entry: Entry,
}

impl Work {
    /// Brings the host to its end, and writes that down.
    pub(crate) async fn go(mut self) -> (Entry, Result<(), Halt>) {
        let ended = self.end().await;
        (self.entry, ended)
    }

    async fn end(&mut self) -> Result<(), Halt> {
        let (stage, failure) = match self.stages().await {
            Ok(()) => (HostStage::Done, None),
            Err(Halt::Failed(failure)) => (HostStage::Failed, Some(failure)),
            Err(Halt::Unreachable(failure)) => (HostStage::Unreachable, Some(failure)),
            Err(other) => return Err(other),
        };
        // A node that is not well, or not there, gets nothing new; the next operation that it is well after lifts that.
        if !self.entry.progress.away && failure.as_ref().is_none_or(|failure| failure.step != "verify") {
            self.uncordon().await?;
        }
        let text = failure.as_ref().map(|failure| failure.text.clone()).unwrap_or_default();
        self.entry.progress.failure = failure.map(|failure| *failure);
        self.ledger.enter(&mut self.entry, stage, &text).await
    }

    async fn stages(&mut self) -> Result<(), Halt> {
        let target = self.target().await?;
        if self.entry.stage == HostStage::Verifying {
            return self.verify(&target).await;
        }
        if self.entry.stage != HostStage::Rebooting {
            let needs_reboot = self.command(&target).await?;
            if !needs_reboot {
                self.ledger.enter(&mut self.entry, HostStage::Verifying, "no reboot is needed").await?;
                return self.verify(&target).await;
            }
            self.entry.progress.away = true;
            self.ledger.enter(&mut self.entry, HostStage::Rebooting, "").await?;
        }
        self.reboot(&target).await?;
        self.entry.progress.away = false;
        if let Some(failure) = self.entry.progress.failure.clone() {
            // It was on its way back to what it was before.
            return Err(Halt::Failed(Box::new(failure)));
        }
        let text = format!("back in boot {}", self.entry.progress.boot_after);
        self.ledger.enter(&mut self.entry, HostStage::Verifying, &text).await?;
        self.verify(&target).await
    }

    /// All up to the reboot. Whether one is needed.
    async fn command(&mut self, target: &Target) -> Result<bool, Halt> {
        let session = self.connect(target).await?;
        let asked = async {
            let release = OsRelease::ask(&session).await.map_err(|failure| of_host("facts", &failure))?;
            Ok::<_, Halt>((release, boot(&session).await?))
        };
        let asked = asked.await;
        session.close().await;
        let (release, before) = asked?;
        let settings = self.settings.clone();
        let Some(os) = settings.systems.find(&release) else {
            let text = format!("no row of the OS table is for {:?}: say in os_file what to do", release.id);
            return Err(failed("plan", "commissaire", &text));
        };
        let command = self.wanted.command(os).map_err(|why| failed("plan", "commissaire", &why))?;
        self.entry.progress.boot_before = before;
        if self.entry.stage != HostStage::Running {
            self.leave().await?;
            self.may_go_on()?;
            let text = command.unwrap_or_default();
            self.ledger.enter(&mut self.entry, HostStage::Running, text).await?;
        }
        if let Some(command) = command {
            self.once(target, "run", command).await?;
        }
        let reboots = match (self.wanted.kind, &os.needs_reboot) {
            (OperationKind::Restart, _) => true,
            (_, None) => false,
            (_, Some(asked)) => {
                let session = self.connect(target).await?;
                let asked = session.run(&Script::new(asked.as_str()).as_root().within(QUICK)).await;
                // It may have been through a reboot that nobody ordered: that is not the one that is needed now.
                let now = boot(&session).await;
                session.close().await;
                self.entry.progress.boot_before = now?;
                asked.map_err(|failure| of_host("needs-reboot", &failure))?.is_well()
            }
        };
        if reboots {
            self.may_go_on()?;
        }
        Ok(reboots)
    }

    /// Has what runs on it leave, where it is a node.
    async fn leave(&mut self) -> Result<(), Halt> {
        let Some(node) = self.node.clone() else { return Ok(()) };
        self.ledger.enter(&mut self.entry, HostStage::Cordoned, "").await?;
        let cordoned = node.cordon().await.map_err(|error| refused("cordon", error))?;
        self.entry.progress.cordoned = cordoned;
        let text = if cordoned { "" } else { "somebody else has cordoned it: that stays" };
        self.ledger.enter(&mut self.entry, HostStage::Draining, text).await?;
        node.drain(&self.wanted.options.drain).await.map_err(|error| refused("drain", error))
    }

    /// Lifts the cordon of the operation.
    async fn uncordon(&mut self) -> Result<(), Halt> {
        let Some(node) = self.node.as_ref().filter(|_| self.entry.progress.cordoned) else { return Ok(()) };
        if let Err(error) = node.uncordon().await {
            if !is_refusal(&error) {
                return Err(error.into());
            }
            tracing::warn!(address = self.entry.address, %error, "a cordon was not lifted");
        }
        self.entry.progress.cordoned = false;
        Ok(())
    }

    /// Runs a command of the operation, unless it ran already. It goes on when the connection breaks, because it changes the
    /// network say, and tells whoever comes again how it ended.
    pub(crate) async fn once(&mut self, target: &Target, step: &str, command: &str) -> Result<(), Halt> {
        let limit = Duration::from_secs(self.wanted.options.step_seconds.into());
        let script = Script::new(ONCE)
            .alone()
            .within(limit)
            .with("TOKEN", format!("{} {step}", self.ledger.run))
            .with("COMMAND", command)
            .with("VERSION", self.wanted.version.as_str());
        let until = Instant::now() + limit;
        let output = loop {
            let ran = match self.settings.ssh.connect(target).await {
                Ok(session) => {
                    let ran = session.run(&script).await;
                    session.close().await;
                    ran
                }
                Err(failure) => Err(failure),
            };
            match ran {
                Ok(output) => break output,
                Err(failure) if failure.is_of_the_way() && Instant::now() < until => sleep(FIRST * 4).await,
                Err(failure) => return Err(of_host(step, &failure)),
            }
        };
        let shown = command.replace("\"$VERSION\"", &self.wanted.version).trim().to_owned();
        tracing::info!(
            target: "audit",
            operation = self.ledger.run,
            actor = self.wanted.actor,
            address = self.entry.address,
            command = shown,
            exit = output.ending(),
            "a command ran on a host"
        );
        let ran = Ran { command: shown, exit: output.ending(), tail: output.tail.clone(), at: timestamp() };
        self.entry.progress.commands.push(ran);
        self.ledger.write(&self.entry).await?;
        if output.is_well() { Ok(()) } else { Err(ended(step, command, &output)) }
    }

    /// Reboots the host, and waits until it is back: in another boot, whatever answers before.
    pub(crate) async fn reboot(&mut self, target: &Target) -> Result<(), Halt> {
        let limit = Duration::from_secs(self.wanted.options.reboot_seconds.into());
        let (until, before) = (Instant::now() + limit, self.entry.progress.boot_before.clone());
        let (mut rest, mut told, mut last) = (FIRST, false, String::new());
        loop {
            match self.settings.ssh.connect(target).await {
                Ok(session) => {
                    let now = boot(&session).await.unwrap_or_default();
                    if !now.is_empty() && now != before {
                        self.entry.progress.boot_after = now;
                        session.close().await;
                        return Ok(());
                    }
                    if !told {
                        told = self.tell_to_reboot(&session).await?;
                    }
                    session.close().await;
                    "it is still in the same boot".clone_into(&mut last);
                }
                // Who it is now is for somebody to say.
                Err(failure) if failure.kind == FailureKind::HostKey => {
                    return Err(of_host("reboot", &failure));
                }
                Err(failure) => last = failure.text,
            }
            if Instant::now() >= until {
                let text = format!("it is not back from its reboot within {limit:?}: {last}");
                return Err(failed("reboot", "not_back", &text));
            }
            let jitter: f64 = rand::rng().random_range(0.8..1.2);
            sleep(rest.mul_f64(jitter)).await;
            rest = (rest * 3 / 2).min(LONGEST);
        }
    }

    /// Whether the host has heard that it is to reboot; it hears it once in a boot.
    async fn tell_to_reboot(&self, session: &Session) -> Result<bool, Halt> {
        let release = OsRelease::ask(session).await.map_err(|failure| of_host("reboot", &failure))?;
        let Some(os) = self.settings.systems.find(&release) else { return Ok(false) };
        let script = Script::new(REBOOT)
            .alone()
            .within(QUICK)
            .with("TOKEN", self.ledger.run.as_str())
            .with("REBOOT", os.reboot.as_str());
        match session.run(&script).await {
            Ok(output) if output.is_well() => Ok(true),
            Ok(output) => Err(ended("reboot", &os.reboot, &output)),
            // It may be on its way already.
            Err(_) => Ok(false),
        }
    }

    /// Whom to log in to, and how.
    async fn target(&self) -> Result<Target, Halt> {
        let (address, storage) = (self.entry.address.clone(), &self.ledger.state.storage);
        let (key, user) = match storage.find::<HostCreds>(&address).await? {
            Some(found) => (found.record.ssh_priv_key, found.record.remote_user),
            None => (String::new().into(), "root".to_owned()),
        };
        let credentials = Credentials::of_record(&address, &key);
        let credentials = credentials.map_err(|failure| of_host("connect", &failure))?;
        let pinned = storage.find::<HostState>(&address).await?.map(|found| found.record.host_keys);
        Ok(Target { address, user, credentials, pinned: pinned.unwrap_or_default() })
    }

    /// Logs in to a host that should be there.
    pub(crate) async fn connect(&self, target: &Target) -> Result<Session, Halt> {
        let mut rests = RESTS.iter();
        loop {
            match self.settings.ssh.connect(target).await {
                Ok(session) => return Ok(session),
                Err(failure) => match rests.next().filter(|_| failure.is_of_the_way()) {
                    Some(rest) => sleep(*rest).await,
                    None if self.entry.stage == HostStage::Pending => {
                        return Err(Halt::Unreachable(failure_of(
                            "connect",
                            failure.kind.as_str(),
                            &failure.text,
                        )));
                    }
                    None => return Err(of_host("connect", &failure)),
                },
            }
        }
    }

    fn may_go_on(&self) -> Result<(), Halt> {
        if self.halt.load(Ordering::Relaxed) {
            return Err(failed("stop", "stopped", "the operation stopped before it was done with this host"));
        }
        Ok(())
    }
}

/// Which boot a host is in.
pub(crate) async fn boot(session: &Session) -> Result<String, Halt> {
    let output = session.run(&Script::new(BOOT).within(QUICK)).await;
    let output = output.map_err(|failure| of_host("facts", &failure))?;
    match output.out.trim() {
        "" => Err(failed("facts", "command", "it does not say which boot it is in")),
        boot => Ok(boot.to_owned()),
    }
}

pub(crate) fn of_host(step: &str, failure: &Failure) -> Halt {
    failed(step, failure.kind.as_str(), &failure.text)
}

/// An error of the container manager; one of the way there is nobody's fault.
pub(crate) fn refused(step: &str, error: commissaire::Error) -> Halt {
    if is_refusal(&error) {
        failed(step, "container_manager", &error.chain().to_string())
    } else {
        error.into()
    }
}

pub(crate) fn ended(step: &str, command: &str, output: &Output) -> Halt {
    let last = output.tail.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
    let text = format!("{step} failed ({}): {last}", output.ending());
    Halt::Failed(Box::new(HostFailure {
        command: command.trim().to_owned(),
        exit: output.ending(),
        tail: output.tail.clone(),
        ..*failure_of(step, "command", &text)
    }))
}

pub(crate) fn failed(step: &str, kind: &str, text: &str) -> Halt {
    Halt::Failed(failure_of(step, kind, text))
}

pub(crate) fn failure_of(step: &str, kind: &str, text: &str) -> Box<HostFailure> {
    Box::new(HostFailure {
        kind: kind.to_owned(),
        step: step.to_owned(),
        text: text.to_owned(),
        at: timestamp(),
        ..HostFailure::default()
    })
}

/// What an operation runs on hosts of a kind.
pub(crate) trait Commands {
    /// The command, if there is one; or why nothing can be done there.
    fn command<'a>(&self, os: &'a Os) -> Result<Option<&'a str>, String>;
}

impl Commands for OperationWanted {
    fn command<'a>(&self, os: &'a Os) -> Result<Option<&'a str>, String> {
        let (command, word) = match self.kind {
            OperationKind::Restart => return Ok(None),
            OperationKind::Upgrade => (&os.upgrade, "upgrade"),
            OperationKind::Deploy => (&os.deploy, "deploy"),
        };
        let missing = || format!("the OS table has no {word} for {}: say in os_file what to do", os.name);
        command.as_deref().map(Some).ok_or_else(missing)
    }
}
