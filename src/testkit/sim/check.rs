//! What must hold of everything that happened.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    events::{Event, Log},
    world::MOST,
};

/// How much later than its limit something may end: a timer counts in milliseconds.
const GRAIN: Duration = Duration::from_millis(5);

/// What is known of a job or an event.
#[derive(Default)]
struct Job {
    /// It is an event, which was announced after so many others.
    announced: Option<usize>,
    /// It must come to its end if it was sent: it is a job, or the durable subscription was there before.
    kept: bool,
    promised: bool,
    refused: bool,
    begun: bool,
    done: u32,
    failed: u32,
    acked: u32,
    undone: u32,
    buried: u32,
    redriven: u32,
}

/// What is known of a call.
#[derive(Default)]
struct Call {
    limit: Duration,
    over: bool,
    refused: bool,
    served: u32,
    finished: bool,
}

/// What is known of an instance.
#[derive(Default)]
struct Instance {
    at_once: usize,
    /// The jobs that run, and whether alone; the calls. The same job may run twice where the broker lost sight of the
    /// first run.
    jobs: Vec<(u32, bool)>,
    events: Vec<(u32, bool)>,
    calls: BTreeSet<u32>,
    hears: Option<Ear>,
    drain_by: Option<Duration>,
    gone: Option<&'static str>,
}

/// What is known of an ephemeral subscription.
#[derive(Default)]
struct Ear {
    /// What was announced before this need not come: there was no subscription yet, or a gap since.
    since: usize,
    heard: BTreeSet<u32>,
    /// What is still to come.
    due: BTreeSet<u32>,
}

#[derive(Default)]
struct Known {
    jobs: BTreeMap<u32, Job>,
    calls: BTreeMap<u32, Call>,
    instances: BTreeMap<u32, Instance>,
    announced: usize,
    /// The durable subscription is there.
    keeps: bool,
    ended: bool,
}

/// Says what does not hold.
pub(super) fn check(log: &Log) -> Result<(), String> {
    let mut known = Known::default();
    for (at, event) in log.events() {
        known.take(at, &event).map_err(|why| format!("at {at:?}, {event:?}: {why}"))?;
    }
    known.finish()
}

impl Known {
    fn take(&mut self, at: Duration, event: &Event) -> Result<(), String> {
        match event {
            Event::Enqueue { n } => drop(self.jobs.insert(*n, Job { kept: true, ..Job::default() })),
            Event::Announce { n } => {
                self.announced += 1;
                let job = Job { announced: Some(self.announced), kept: self.keeps, ..Job::default() };
                self.jobs.insert(*n, job);
            }
            Event::Enqueued { n } => {
                let job = self.job(*n);
                job.promised = job.kept;
                if let Some(announced) = job.announced {
                    for ear in self.instances.values_mut().filter_map(|instance| instance.hears.as_mut()) {
                        if ear.since < announced && !ear.heard.contains(n) {
                            ear.due.insert(*n);
                        }
                    }
                }
            }
            Event::NotEnqueued { n, maybe } => self.job(*n).refused = !maybe,
            Event::Handed { failed, rested, .. } => {
                ensure(failed == rested, "its failed runs are not counted rightly")?;
            }
            Event::Begin { n, by, attempt, alone } => {
                ensure(*attempt <= MOST, "that is a run too many")?;
                let job = self.job(*n);
                job.begun = true;
                let (heard, instance) = (job.announced.is_some(), self.running(*by)?);
                let most = if heard { 1 } else { instance.at_once };
                let beside = instance.runs(heard);
                ensure(!beside.iter().any(|(_, alone)| *alone), "one that runs alone is not alone")?;
                ensure(!alone || beside.is_empty(), "it was to run alone, and others run")?;
                beside.push((*n, *alone));
                ensure(beside.len() <= most, "more jobs run than are allowed at once")?;
            }
            Event::Resume { n, by } => {
                let instance = self.running(*by)?;
                let mut runs = instance.jobs.iter().chain(&instance.events);
                let begun = runs.any(|(known, _)| known == n) || instance.calls.contains(n);
                ensure(begun, "it goes on unbegun")?;
            }
            Event::Done { n, by } | Event::Fail { n, by } | Event::Cut { n, by } => {
                let heard = self.job(*n).announced.is_some();
                let runs = self.instance(*by).runs(heard);
                let at = runs.iter().position(|(known, _)| known == n).ok_or("it ends unbegun")?;
                runs.remove(at);
                let job = self.job(*n);
                job.done += u32::from(matches!(event, Event::Done { .. }));
                job.failed += u32::from(matches!(event, Event::Fail { .. }));
                if !matches!(event, Event::Cut { .. }) {
                    self.running(*by)?;
                }
            }
            Event::Acked { n } => {
                let job = self.job(*n);
                job.acked += 1;
                ensure(job.done > 0, "it was acknowledged and never done")?;
                ensure(job.acked <= 1 + job.undone, "it was acknowledged twice")?;
            }
            Event::Undone { n } => self.job(*n).undone += 1,
            Event::Redriven { n } => {
                let job = self.job(*n);
                job.redriven += 1;
                ensure(job.redriven <= job.buried, "it was brought back and was not dead")?;
            }
            Event::Buried { n, attempts, cause } => {
                let job = self.job(*n);
                job.buried += 1;
                ensure(job.buried == 1 + job.redriven, "it became a dead letter twice")?;
                match &**cause {
                    "attempts" => {
                        ensure(*attempts == MOST, "it died too early or too late")?;
                        ensure(job.failed >= MOST, "it died of failures that were not")?;
                    }
                    "crashes" => {}
                    _ => return Err("it died for no reason".into()),
                }
            }
            Event::Call { n, limit } => {
                self.calls.insert(*n, Call { limit: at + *limit + GRAIN, ..Call::default() });
            }
            Event::Answered { n, .. } | Event::Failed { n, .. } | Event::Forsaken { n } => {
                let call = self.call(*n);
                ensure(!std::mem::replace(&mut call.over, true), "it ended twice")?;
                ensure(at <= call.limit, "it ended after its deadline")?;
                match event {
                    Event::Answered { answer, .. } => {
                        ensure(call.finished, "it was answered and not executed")?;
                        ensure(*answer == u64::from(*n) + 1, "it got the answer of another")?;
                    }
                    Event::Failed { maybe: false, .. } => {
                        ensure(call.served == 0, "it was executed, and is said not to be")?;
                        call.refused = true;
                    }
                    _ => {}
                }
            }
            Event::Serve { n, by } => {
                let call = self.call(*n);
                call.served += 1;
                ensure(call.served == 1, "it was executed twice")?;
                ensure(!call.refused, "it was said not to be executed")?;
                let instance = self.running(*by)?;
                instance.calls.insert(*n);
                ensure(instance.calls.len() <= instance.at_once, "more calls run than are allowed at once")?;
            }
            Event::Served { n, by } => {
                self.call(*n).finished = true;
                self.running(*by)?.calls.remove(n);
            }
            Event::Dropped { n, by } => drop(self.instance(*by).calls.remove(n)),
            Event::Concurrency { by, at_once } => self.instance(*by).at_once = usize::from(*at_once),
            Event::Started { by } => {
                self.keeps = true;
                let since = self.announced;
                self.instance(*by).hears = Some(Ear { since, ..Ear::default() });
            }
            Event::NotStarted { by } => self.instance(*by).gone = Some("it did not start"),
            Event::Kill { by } => {
                let instance = self.instance(*by);
                (instance.gone, instance.hears) = (Some("it was killed"), None);
            }
            Event::Drain { by, grace } => {
                let instance = self.instance(*by);
                (instance.drain_by, instance.hears) = (Some(at + *grace + GRAIN), None);
            }
            Event::Heard { n, by } => {
                if let Some(ear) = &mut self.running(*by)?.hears {
                    ensure(ear.heard.insert(*n), "it was heard twice")?;
                    ear.due.remove(n);
                }
            }
            Event::Missed { by } => {
                let since = self.announced;
                if let Some(ear) = &mut self.running(*by)?.hears {
                    ear.since = since;
                    ear.due.clear();
                }
            }
            Event::Quiet => {
                for (by, instance) in &self.instances {
                    let due = instance.hears.as_ref().and_then(|ear| ear.due.first());
                    ensure(due.is_none(), &format!("instance {by} never heard {due:?}, and of no gap"))?;
                }
            }
            Event::Drained { by, in_hand } => {
                let instance = self.instance(*by);
                ensure(instance.drain_by.is_none_or(|limit| at <= limit), "it took longer than its grace")?;
                ensure(instance.is_idle(), "handlers still run")?;
                ensure(*in_hand == 0, "it has something in hand still")?;
                instance.gone = Some("it was drained");
            }
            Event::End { left, in_hand, dead } => {
                let buried: u32 = self.jobs.values().map(|job| job.buried - job.redriven).sum();
                ensure(*dead == buried as usize, "dead letters are lost")?;
                ensure(*left == 0, "jobs are left that nobody does")?;
                ensure(*in_hand == 0, "jobs are in hands that are gone")?;
                self.ended = true;
            }
            Event::Start { .. } => {}
            Event::Down { .. } | Event::Up { .. } | Event::Crash => {}
        }
        Ok(())
    }

    fn finish(&self) -> Result<(), String> {
        ensure(self.ended, "it has no end")?;
        for (n, job) in &self.jobs {
            let ended = job.acked + job.buried > job.redriven + job.undone;
            let what = if job.announced.is_some() { "event" } else { "job" };
            ensure(!job.promised || ended, &format!("{what} {n} was promised and is lost"))?;
            ensure(!job.begun || ended, &format!("{what} {n} was begun and has no end"))?;
            ensure(
                !(job.refused && job.begun),
                &format!("{what} {n} was said not to be sent, and was begun"),
            )?;
        }
        for (n, call) in &self.calls {
            ensure(call.over, &format!("call {n} has no end"))?;
        }
        for (by, instance) in &self.instances {
            ensure(instance.is_idle(), &format!("handlers of instance {by} have no end"))?;
        }
        Ok(())
    }

    fn job(&mut self, n: u32) -> &mut Job {
        self.jobs.entry(n).or_default()
    }

    fn call(&mut self, n: u32) -> &mut Call {
        self.calls.entry(n).or_default()
    }

    fn instance(&mut self, by: u32) -> &mut Instance {
        self.instances.entry(by).or_default()
    }

    /// The instance, in which something runs: it must be there.
    fn running(&mut self, by: u32) -> Result<&mut Instance, String> {
        let instance = self.instance(by);
        match instance.gone {
            // Death comes at the next await.
            None | Some("it was killed") => Ok(instance),
            Some(gone) => Err(format!("a handler runs in an instance: {gone}")),
        }
    }
}

impl Instance {
    /// The runs of events, or of jobs.
    fn runs(&mut self, event: bool) -> &mut Vec<(u32, bool)> {
        if event { &mut self.events } else { &mut self.jobs }
    }

    fn is_idle(&self) -> bool {
        self.jobs.is_empty() && self.events.is_empty() && self.calls.is_empty()
    }
}

fn ensure(holds: bool, why: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(why.to_owned()) }
}
