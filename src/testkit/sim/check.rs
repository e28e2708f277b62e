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

/// What is known of a job.
#[derive(Default)]
struct Job {
    promised: bool,
    refused: bool,
    begun: bool,
    done: u32,
    failed: u32,
    acked: u32,
    undone: u32,
    buried: u32,
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
    calls: BTreeSet<u32>,
    drain_by: Option<Duration>,
    gone: Option<&'static str>,
}

#[derive(Default)]
struct Known {
    jobs: BTreeMap<u32, Job>,
    calls: BTreeMap<u32, Call>,
    instances: BTreeMap<u32, Instance>,
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
            Event::Enqueue { n } => drop(self.jobs.insert(*n, Job::default())),
            Event::Enqueued { n } => self.job(*n).promised = true,
            Event::NotEnqueued { n, maybe } => self.job(*n).refused = !maybe,
            Event::Handed { failed, rested, .. } => {
                ensure(failed == rested, "its failed runs are not counted rightly")?;
            }
            Event::Begin { n, by, attempt, alone } => {
                ensure(*attempt <= MOST, "that is a run too many")?;
                self.job(*n).begun = true;
                let instance = self.running(*by)?;
                ensure(!instance.jobs.iter().any(|(_, alone)| *alone), "one that runs alone is not alone")?;
                ensure(!alone || instance.jobs.is_empty(), "it was to run alone, and others run")?;
                instance.jobs.push((*n, *alone));
                ensure(instance.jobs.len() <= instance.at_once, "more jobs run than are allowed at once")?;
            }
            Event::Resume { n, by } => {
                let instance = self.running(*by)?;
                let begun = instance.jobs.iter().any(|(known, _)| known == n) || instance.calls.contains(n);
                ensure(begun, "it goes on unbegun")?;
            }
            Event::Done { n, by } | Event::Fail { n, by } | Event::Cut { n, by } => {
                let jobs = &mut self.instance(*by).jobs;
                let at = jobs.iter().position(|(known, _)| known == n).ok_or("it ends unbegun")?;
                jobs.remove(at);
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
            Event::Buried { n, attempts, cause } => {
                let job = self.job(*n);
                job.buried += 1;
                ensure(job.buried == 1, "it became a dead letter twice")?;
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
            Event::NotStarted { by } => self.instance(*by).gone = Some("it did not start"),
            Event::Kill { by } => self.instance(*by).gone = Some("it was killed"),
            Event::Drain { by, grace } => self.instance(*by).drain_by = Some(at + *grace + GRAIN),
            Event::Drained { by, in_hand } => {
                let instance = self.instance(*by);
                ensure(instance.drain_by.is_none_or(|limit| at <= limit), "it took longer than its grace")?;
                ensure(instance.jobs.is_empty() && instance.calls.is_empty(), "handlers still run")?;
                ensure(*in_hand == 0, "it has something in hand still")?;
                instance.gone = Some("it was drained");
            }
            Event::End { left, in_hand } => {
                ensure(*left == 0, "jobs are left that nobody does")?;
                ensure(*in_hand == 0, "jobs are in hands that are gone")?;
                self.ended = true;
            }
            Event::Start { .. } | Event::Started { .. } => {}
            Event::Down { .. } | Event::Up { .. } | Event::Crash => {}
        }
        Ok(())
    }

    fn finish(&self) -> Result<(), String> {
        ensure(self.ended, "it has no end")?;
        for (n, job) in &self.jobs {
            let ended = job.acked + job.buried > 0;
            ensure(!job.promised || ended, &format!("job {n} was promised and is lost"))?;
            ensure(!job.begun || ended, &format!("job {n} was begun and has no end"))?;
            ensure(!(job.refused && job.begun), &format!("job {n} was said not to be sent, and was begun"))?;
        }
        for (n, call) in &self.calls {
            ensure(call.over, &format!("call {n} has no end"))?;
        }
        for (by, instance) in &self.instances {
            let idle = instance.jobs.is_empty() && instance.calls.is_empty();
            ensure(idle, &format!("handlers of instance {by} have no end"))?;
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

fn ensure(holds: bool, why: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(why.to_owned()) }
}
