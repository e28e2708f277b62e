//! `commissaire bridge`: two buses, as if they were one, for as long as programs move from one to the other.

mod calls;
mod counters;
mod plan;
mod stored;

use std::{sync::Arc, time::Duration};

use clap::Args;
use commissaire::{
    Bus, Error, Pattern, Token,
    app::{Failure, until_told},
    config::Hidden,
};
use tokio::time::{Instant, interval, sleep, timeout, timeout_at};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{calls::Calls, counters::Counters, plan::Plan, stored::Stored};
use crate::{
    Failed,
    connection::Connection,
    input,
    output::{complain, print},
};

/// How often it is looked who is on which bus.
const LOOK: Duration = Duration::from_millis(500);
/// How long what was begun may take once it is told to end.
const GRACE: Duration = Duration::from_secs(10);
/// How long leaving a bus may take.
const LEAVE: Duration = Duration::from_secs(5);

/// Join two buses: carry calls, jobs and events both ways, until a signal ends it
#[derive(Debug, Args)]
#[command(after_help = "\
For a move from one broker to another without a stop: start the bridge, start the services on the new bus, move the callers,
stop the services on the old bus, end the bridge.

A pattern says what is carried. SERVICE.* are the calls of a service, which go to the bus where an instance of it runs;
jobs.KEY are the jobs of a queue, which go to the bus where somebody takes them, and nobody does where they are; all other
patterns, and SERVICE.* too, are events. Jobs and events come at least once, and with their ids, so that the services know
what comes twice. Each 10 s a line of JSON tells what was carried, if that has changed, and one at the end.

A URI with a password is better put into a file, for other users of this machine can see the command line: @FILE.

Example: commissaire bridge redis://old nats://new --keys 'storage.*' 'simple.*' 'jobs.investigate' 'notify.#'")]
pub(crate) struct Bridge {
    /// The one bus, or @FILE that holds its URI
    from: Hidden,
    /// The other bus, or @FILE
    to: Hidden,
    /// What to carry: * is one word, # is zero or more
    #[arg(long, value_name = "PATTERN", num_args = 1.., required = true)]
    keys: Vec<String>,
    /// The name space on both [default: commissaire]
    #[arg(long, value_name = "NAME")]
    bus_exchange: Option<String>,
    /// How often to tell what was carried
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = input::duration)]
    report: Duration,
}

/// What all parts of a bridge share.
struct Span {
    /// The buses; a message goes from one to the other.
    buses: [Arc<dyn Bus>; 2],
    /// What marks what it carries: the name of its durable subscriptions.
    name: Token,
    counters: Counters,
    /// Cancelled when nothing more is to be taken.
    closing: CancellationToken,
    /// What is on its way.
    tasks: TaskTracker,
}

impl Bridge {
    pub(crate) async fn run(self) -> Result<(), Failed> {
        let patterns: Vec<Pattern> = self.keys.iter().map(Pattern::new).collect::<Result<_, _>>()?;
        let plan = Plan::new(&patterns)?;
        let (from, to) = (uri(&self.from)?, uri(&self.to)?);
        if from.0 == to.0 {
            return Err(Error::config("both ends of the bridge are the same bus").into());
        }
        let name = name(&patterns)?;
        let open = |uri: Hidden| async { Connection::to(uri, self.bus_exchange.clone()).open().await };
        let (from, to) = futures_util::try_join!(open(from), open(to))?;
        let span = Arc::new(Span {
            buses: [from, to],
            name,
            counters: Counters::default(),
            closing: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        let never = Failure::default();
        let told = until_told(&never)?;
        tokio::pin!(told);
        let calls = Calls::new(span.clone()).await?;
        let mut stored = Stored::new(span.clone());
        stored.hear(&plan.events).await?;
        plan::look(&plan, &calls, &mut stored).await;
        complain("ready");
        let (mut look, mut report) = (interval(LOOK), interval(self.report.max(Duration::from_millis(100))));
        loop {
            tokio::select! {
                // A broker that has gone may hold that up: not the end.
                _ = look.tick() => tokio::select! {
                    () = plan::look(&plan, &calls, &mut stored) => {}
                    _ = &mut told => break,
                },
                _ = report.tick() => if let Some(line) = span.counters.news() { print(&line)? },
                _ = &mut told => break,
            }
        }
        complain("ending");
        span.closing.cancel();
        span.tasks.close();
        // Who was asked answers by way of this bridge; all of the end together takes no longer than this.
        let deadline = Instant::now() + GRACE;
        let _ = timeout_at(deadline, async {
            while calls.waits() {
                sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        calls.end();
        let drained = timeout_at(deadline, span.tasks.wait()).await;
        let [from, to] = &span.buses;
        // A bus whose broker has gone has nothing to give back to.
        let leave = async |bus: &Arc<dyn Bus>| {
            timeout(LEAVE, bus.close()).await.map_err(|_| Error::timeout("leaving a bus", LEAVE))?
        };
        let (one, other) = futures_util::join!(leave(from), leave(to));
        print(&span.counters.line())?;
        one?;
        other?;
        drained.map_err(|_| Error::timeout("ending the bridge", GRACE).maybe_executed())?;
        Ok(())
    }
}

/// The URI itself, or what the file holds that is named after `@`.
fn uri(given: &Hidden) -> Result<Hidden, Failed> {
    let Some(path) = given.0.strip_prefix('@') else { return Ok(given.clone()) };
    let text = std::fs::read_to_string(path)
        .map_err(|e| Error::config(format!("the file {path:?} of a URI cannot be read: {}", e.kind())))?;
    Ok(Hidden(text.trim().to_owned()))
}

/// The name under which the bridge of these patterns hears events, the same whenever it is started.
fn name(patterns: &[Pattern]) -> Result<Token, Failed> {
    let mut texts: Vec<&str> = patterns.iter().map(Pattern::as_str).collect();
    texts.sort_unstable();
    // FNV: names need be the same again, not hard to find.
    let hash = texts.join(" ").bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    Ok(Token::new(format!("bridge-{hash:016x}"))?)
}
