//! What is done to a broker, or to the network before it, and how everything goes on after it.

use std::{sync::Arc, time::Duration};

use commissaire::{
    Bus, Connection,
    testkit::{Cut, History, Mishap, Proxy, Seen, Traffic, Way},
};
use rand::{RngExt, rngs::StdRng};
use serde::Serialize;
use tokio::time::{Instant, sleep, timeout};

use crate::{Failure, Outcome, PATIENCE, Site};

/// The least that is looked for again.
const LOOK: Duration = Duration::from_millis(20);

/// What is done to the broker, or to the network between it and a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Blow {
    /// The broker is killed, and started again after up to a second.
    Kill,
    /// The broker is stopped for this many seconds (SIGSTOP).
    Stop(u64),
    /// Nothing moves on the network for this many seconds, and nobody is told: what was sent arrives afterwards.
    Blackhole(u64),
    /// The same on one way alone.
    HalfOpen(Way, u64),
    /// All connections are cut at once.
    Cut(Cut),
    /// So many times in a row, at random moments, each connection is cut in the middle of what it says.
    Sever(u32),
    /// So many times in a row, at random moments, one bit of each connection is turned over.
    Flip(u32),
    /// The network is as bad as that for this many seconds, and yet passes everything on.
    Bad(Traffic, u64),
}

/// What came of one blow. Times are in milliseconds; those of going on count from when everything passes again.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Struck {
    /// What it was.
    pub blow: Blow,
    /// When the last of the buses said that it is not connected, since nothing moved any more; none where one did not.
    pub noticed: Option<u64>,
    /// When a message that was published anew was acknowledged.
    pub published: u64,
    /// When every consuming bus had got one of those.
    pub delivered: u64,
    /// When a new call was answered, if anybody calls.
    pub answered: Option<u64>,
    /// When all buses said that they are connected.
    pub connected: u64,
    /// How often the proxy was dialled since the blow.
    pub dialled: u64,
}

/// What blows are struck at.
pub(crate) struct Target<'a> {
    pub(crate) site: &'a mut Site,
    /// The first publishes and calls, the others consume.
    pub(crate) buses: &'a [Arc<dyn Bus>],
    pub(crate) history: &'a History,
    pub(crate) calling: bool,
}

impl Struck {
    /// The time until everything went on.
    pub fn back(&self) -> Duration {
        let times = [self.published, self.delivered, self.answered.unwrap_or_default(), self.connected];
        Duration::from_millis(times.into_iter().max().unwrap_or_default())
    }
}

impl Target<'_> {
    /// Strikes, and waits until everything goes on.
    pub(crate) async fn strike(&mut self, blow: Blow, random: &mut StdRng) -> Outcome<Struck> {
        let before = self.site.proxy.as_ref().map_or(0, Proxy::dialled);
        let noticed = self.hit(blow, random).await.map_err(|failure| failure.in_step(format!("{blow:?}")))?;
        let mut struck =
            Struck { blow, noticed, published: 0, delivered: 0, answered: None, connected: 0, dialled: 0 };
        self.goes_on(&mut struck).await?;
        struck.dialled = self.site.proxy.as_ref().map_or(0, Proxy::dialled) - before;
        Ok(struck)
    }

    async fn hit(&mut self, blow: Blow, random: &mut StdRng) -> Outcome<Option<u64>> {
        let stalled = Traffic { stalled: true, ..Traffic::default() };
        // What only slows the network down explains nothing.
        if !matches!(blow, Blow::Bad(..)) {
            self.history.note(Seen::Down);
        }
        match blow {
            Blow::Kill => {
                self.site.broker.server()?.kill();
                sleep(Duration::from_millis(random.random_range(0..1_000))).await;
                self.site.broker.server()?.restart().await?;
            }
            Blow::Stop(seconds) => {
                self.site.broker.server()?.stop()?;
                sleep(Duration::from_secs(seconds)).await;
                self.site.broker.server()?.cont()?;
            }
            Blow::Blackhole(seconds) => {
                self.proxy()?.set(stalled);
                let noticed = self.noticed(Duration::from_secs(seconds)).await;
                self.proxy()?.set(Traffic::default());
                return Ok(noticed);
            }
            Blow::HalfOpen(way, seconds) => {
                self.proxy()?.set_way(way, stalled);
                let noticed = self.noticed(Duration::from_secs(seconds)).await;
                self.proxy()?.set_way(way, Traffic::default());
                return Ok(noticed);
            }
            Blow::Cut(how) => {
                self.proxy()?.cut(how);
            }
            Blow::Sever(times) => {
                let how = |random: &mut StdRng| {
                    Mishap::Cut(if random.random_bool(0.5) { Cut::Reset } else { Cut::Finish })
                };
                self.befall(times, how, random).await?;
            }
            Blow::Flip(times) => self.befall(times, |_| Mishap::Flip, random).await?,
            Blow::Bad(traffic, seconds) => {
                self.proxy()?.set(traffic);
                sleep(Duration::from_secs(seconds)).await;
                self.proxy()?.set(Traffic::default());
            }
        }
        Ok(None)
    }

    /// Lets mishaps happen one after the other, also while connections are being made again.
    async fn befall(
        &self,
        times: u32,
        mishap: impl Fn(&mut StdRng) -> Mishap,
        random: &mut StdRng,
    ) -> Outcome {
        let proxy = self.proxy()?;
        for _ in 0..times {
            let (met, since) = (proxy.met(), Instant::now());
            self.history.note(Seen::Down);
            proxy.after(random.random_range(0..2_048), Some(mishap(random)));
            while proxy.met() == met && since.elapsed() < PATIENCE {
                // Those that were made meanwhile, and where nobody had anything to say.
                if since.elapsed() > Duration::from_secs(2) {
                    proxy.after(random.random_range(0..64), Some(mishap(random)));
                }
                sleep(Duration::from_millis(1)).await;
            }
            self.history.note(Seen::Down);
            sleep(Duration::from_millis(random.random_range(0..1_500))).await;
        }
        proxy.after(0, None);
        Ok(())
    }

    /// When all buses said that they are not connected, within `limit`, which it waits for in any case.
    async fn noticed(&self, limit: Duration) -> Option<u64> {
        let begun = Instant::now();
        let all = async {
            for bus in self.buses {
                let mut connection = bus.connection();
                while connection.now() == Connection::Up {
                    connection.changed().await;
                }
            }
            begun.elapsed().as_millis() as u64
        };
        let noticed = timeout(limit, all).await.ok();
        sleep(limit.saturating_sub(begun.elapsed())).await;
        noticed
    }

    /// Waits until what begins now goes all the way.
    async fn goes_on(&self, struck: &mut Struck) -> Outcome {
        let since = Instant::now();
        self.history.note(Seen::Up);
        let events = self.history.events();
        let (passed, up) = (events.len(), events.last().map_or(0, |event| event.at));
        let (mut message, mut call) = (None, None);
        for event in &events {
            match event.what {
                Seen::Publish { n } => message = message.max(Some(n)),
                Seen::Call { n, .. } => call = call.max(Some(n)),
                _ => {}
            }
        }
        drop(events);
        let consuming = self.buses.len() as u32 - 1;
        loop {
            let (mut published, mut answered) = (None, None);
            let mut delivered = vec![None; consuming as usize];
            for event in self.history.since(passed) {
                let at = Some((event.at - up) / 1_000);
                match event.what {
                    Seen::Published { n } if Some(n) > message => published = published.or(at),
                    Seen::Answered { n } if Some(n) > call => answered = answered.or(at),
                    Seen::Delivered { n, by, .. } if Some(n) > message => {
                        let first = &mut delivered[(by % consuming) as usize];
                        *first = first.or(at);
                    }
                    _ => {}
                }
            }
            let connected = self.buses.iter().all(|bus| bus.connection().now() == Connection::Up);
            let delivered = delivered.into_iter().collect::<Option<Vec<u64>>>();
            if let (Some(published), Some(delivered), true) = (published, &delivered, connected)
                && answered.is_some() == self.calling
            {
                struck.published = published;
                struck.delivered = delivered.iter().copied().max().unwrap_or_default();
                struck.answered = answered;
                struck.connected = since.elapsed().as_millis() as u64;
                return Ok(());
            }
            if since.elapsed() > PATIENCE {
                return Err(Failure::new(format!(
                    "it did not go on after {:?}: published {published:?}, delivered {delivered:?}, \
                     answered {answered:?}, connected {connected}",
                    struck.blow
                )));
            }
            sleep(LOOK).await;
        }
    }

    fn proxy(&self) -> Outcome<&Proxy> {
        self.site.proxy.as_ref().ok_or_else(|| Failure::new("there is no proxy before this broker"))
    }
}
