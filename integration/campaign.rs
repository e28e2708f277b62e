//! A load on a broker that is treated badly: what came of it, as a report.

use std::{sync::Arc, time::Duration};

use commissaire::{
    Key,
    testkit::{Findings, History, Lateness, Load, Rules},
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::{
    Outcome, PATIENCE, Site,
    blow::{Blow, Struck, Target},
    callers::Callers,
    report,
};

/// What a campaign does.
#[derive(Debug, Clone, Serialize)]
pub struct Plan {
    /// The seed of all that is random.
    pub seed: u64,
    /// How many messages are to be acknowledged.
    pub messages: u64,
    /// How many publish at one time.
    pub publishers: u32,
    /// How long each of them rests after a message.
    pub rest: Duration,
    /// How many work at one time.
    pub workers: u32,
    /// How many call at one time.
    pub callers: u32,
    /// What happens, one after the other at random moments.
    pub blows: Vec<Blow>,
}

/// What came of it.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The scheme of the bus.
    pub bus: String,
    /// What the broker calls itself.
    pub broker: String,
    /// The version of this.
    pub version: &'static str,
    /// What was done.
    pub plan: Plan,
    /// What was found.
    pub found: Findings,
    /// What came of each blow.
    pub struck: Vec<Struck>,
    /// Why it was not carried out to its end, if it was not.
    pub failure: Option<String>,
    /// How late a plain timer was at worst, in milliseconds: how busy the machine was.
    pub lateness: u64,
    /// How long all took, in seconds.
    pub seconds: u64,
}

impl Plan {
    /// A plan for the blows, with a load that leaves a small machine time for other things.
    pub fn of(seed: u64, blows: Vec<Blow>) -> Self {
        let rest = Duration::from_millis(20);
        Self { seed, messages: 1_000, publishers: 8, rest, workers: 4, callers: 2, blows }
    }

    /// Carries it out on the bus of `site`. The report, which says also what was not well, goes into the folder that
    /// COMMISSAIRE_REPORTS names, if it names one; where not all was well the history is kept as well, and its path
    /// printed.
    pub async fn run(self, site: &mut Site) -> Outcome<Report> {
        let (began, lateness) = (Instant::now(), Lateness::watch());
        let uri = site.uri();
        let buses = [site.join().await?, site.join().await?, site.join().await?];
        let broker = buses[0].survey().await.map(|survey| survey.broker).unwrap_or_default();
        let history = Arc::new(History::default());
        let load = Load {
            publishers: self.publishers,
            rest: self.rest,
            workers: self.workers,
            failing: 2,
            longest_run: Duration::from_millis(5),
            ..Load::new(Key::new("jobs.campaign")?, self.seed, self.messages)
        };
        let callers = Callers::start(self.callers, &buses[0], &buses[1], &history).await?;
        let mut struck = Vec::new();
        let target = Target { site, buses: &buses, history: &history, calling: self.callers > 0 };
        let blows = async {
            strike(&self, target, &mut struck).await?;
            // Whether the load goes on to its end shows only when nobody calls.
            callers.stop().await
        };
        let outcome = load.run(&buses, &history, PATIENCE * 2, blows).await;
        // Not the prefetch: a place is free a moment before its settlement can be noted. The conformance suite holds that.
        let rules = Rules { grace: Rules::default().grace + lateness.worst(), ..Rules::default() };
        let report = Report {
            bus: uri.split(':').next().unwrap_or_default().to_owned(),
            broker,
            version: env!("CARGO_PKG_VERSION"),
            plan: self,
            found: history.check(&rules),
            struck,
            failure: outcome.as_ref().err().map(ToString::to_string),
            lateness: lateness.worst().as_millis() as u64,
            seconds: began.elapsed().as_secs(),
        };
        report::keep(&report, &history)?;
        for bus in buses {
            // One that cannot know whether the broker has what was settled last says so, as on a disk that is slow.
            match bus.close().await {
                Err(error) if report.well() && !error.may_have_executed() => return Err(error.into()),
                _ => {}
            }
        }
        Ok(report)
    }
}

impl Report {
    /// Whether it was carried out to its end and no rule was broken.
    pub fn well(&self) -> bool {
        self.failure.is_none() && self.found.well()
    }
}

async fn strike(plan: &Plan, mut target: Target<'_>, struck: &mut Vec<Struck>) -> Outcome {
    let mut random = StdRng::seed_from_u64(plan.seed);
    for blow in plan.blows.iter().copied() {
        sleep(Duration::from_millis(random.random_range(500..3_000))).await;
        struck.push(target.strike(blow, &mut random).await?);
    }
    Ok(())
}
