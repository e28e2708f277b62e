//! A load on a broker that is treated badly: what came of it, as a report.

use std::{sync::Arc, time::Duration};

use commissaire::{
    Key,
    testkit::{Findings, History, Load, Rules, Seen, Server},
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde::Serialize;
use tokio::time::Instant;

use crate::{Failure, Outcome, PATIENCE, Site, join};

/// What is done to the broker, again and again at random moments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Blow {
    /// Killed, and started again after up to a second.
    Kill,
    /// Stopped for this many seconds (SIGSTOP).
    Stop(u64),
}

/// What a campaign does.
#[derive(Debug, Clone, Serialize)]
pub struct Plan {
    /// The seed of all that is random.
    pub seed: u64,
    /// How many messages are to be acknowledged.
    pub messages: u64,
    /// How many publish at one time.
    pub publishers: u32,
    /// How many work at one time.
    pub workers: u32,
    /// How often the broker is hit.
    pub blows: u32,
    /// What hits it.
    pub blow: Blow,
}

/// What came of it.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The scheme of the bus.
    pub bus: String,
    /// What the broker calls itself.
    pub broker: String,
    /// What was done.
    pub plan: Plan,
    /// What was found.
    pub found: Findings,
    /// After each blow: from when the broker answered again until the next message was published, and until the next one
    /// was delivered, in milliseconds.
    pub back_ms: Vec<(u64, u64)>,
    /// How long all took, in seconds.
    pub seconds: u64,
}

impl Plan {
    /// Carries it out on the bus of `site`, whose broker must be a server.
    pub async fn run(self, site: &mut Site) -> Outcome<Report> {
        let began = Instant::now();
        let uri = site.broker.uri();
        let buses = [join(&uri).await?, join(&uri).await?, join(&uri).await?];
        let broker = buses[0].survey().await.map(|survey| survey.broker).unwrap_or_default();
        let history = Arc::new(History::default());
        let load = Load {
            publishers: self.publishers,
            workers: self.workers,
            failing: 2,
            longest_run: Duration::from_millis(5),
            ..Load::new(Key::new("jobs.campaign")?, self.seed, self.messages)
        };
        let mut back_ms = Vec::new();
        let blows = hit(&self, site.broker.server()?, &history, &mut back_ms);
        let outcome = load.run(&buses, &history, PATIENCE * 2, blows).await;
        // Not the prefetch: a place is free a moment before its settlement can be noted. The conformance suite holds that.
        let rules = Rules::default();
        let found = history.check(&rules);
        let report = Report {
            bus: uri.split(':').next().unwrap_or_default().to_owned(),
            broker,
            plan: self,
            found,
            back_ms,
            seconds: began.elapsed().as_secs(),
        };
        if let Err(failure) = outcome {
            return Err(Failure::new(format!("{failure}; {report:?}")));
        }
        for bus in buses {
            bus.close().await?;
        }
        Ok(report)
    }
}

async fn hit(
    plan: &Plan,
    server: &mut Server,
    history: &Arc<History>,
    back_ms: &mut Vec<(u64, u64)>,
) -> Outcome {
    let mut random = StdRng::seed_from_u64(plan.seed);
    for _ in 0..plan.blows {
        tokio::time::sleep(Duration::from_millis(random.random_range(500..3_000))).await;
        history.note(Seen::Down);
        match plan.blow {
            Blow::Kill => {
                server.kill();
                tokio::time::sleep(Duration::from_millis(random.random_range(0..1_000))).await;
                server.restart().await?;
            }
            Blow::Stop(seconds) => {
                server.stop()?;
                tokio::time::sleep(Duration::from_secs(seconds)).await;
                server.cont()?;
            }
        }
        let since = Instant::now();
        let (published, delivered) = (
            |seen: &Seen| matches!(seen, Seen::Published { .. }),
            |seen: &Seen| matches!(seen, Seen::Delivered { .. }),
        );
        let (before_p, before_d) = (history.count(published), history.count(delivered));
        history.note(Seen::Up);
        let (mut p, mut d) = (None, None);
        while p.is_none() || d.is_none() {
            if since.elapsed() > PATIENCE {
                return Err(Failure::new("the bus did not go on after a blow"));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
            let ms = since.elapsed().as_millis() as u64;
            if p.is_none() && history.count(published) > before_p {
                p = Some(ms);
            }
            if d.is_none() && history.count(delivered) > before_d {
                d = Some(ms);
            }
        }
        back_ms.push((p.unwrap_or_default(), d.unwrap_or_default()));
    }
    Ok(())
}
