//! A subscription at the broker: made, watched over, made again, and left in order.

use std::{sync::Arc, time::Duration};

use commissaire::{Backoff, Error, Feed, Origin, Result, Source};
use futures_util::future::join_all;
use tokio::time::{Instant, sleep};

use crate::{
    bus::{BOUND, Core},
    durable::Keeping,
    intake::{Intake, Kind, Line},
    link::Up,
    names::Queue,
    registry::Entered,
    settle::Place,
    topology::{self, Binding},
    wire::{Channel, Fault, method, value::Table},
};

/// How often the broker is asked whether all is as it must be.
const WATCH: Duration = Duration::from_secs(3);
/// A process that was stopped for this long may have missed events.
const STOPPED: Duration = Duration::from_secs(4);
/// How long it may take until a consumer is known to have gone at the broker.
const LEAVING: Duration = Duration::from_secs(5);
/// Rests between attempts to make a subscription again.
const AGAIN: Backoff = Backoff { first: Duration::from_millis(100), most: Duration::from_secs(2) };
const TAG: &str = "c";

/// One subscription.
pub(crate) struct Reader {
    core: Arc<Core>,
    what: String,
    prefetch: u16,
    queue: Queue,
    /// Beside those of a durable subscription's patterns.
    bindings: Vec<Binding>,
    /// What a durable subscription is besides a queue.
    keeping: Option<Arc<Keeping>>,
    /// What is entered in the registry of what is none.
    entry: Option<Entered>,
    intake: Arc<Intake>,
}

/// The subscription as it was made on one channel.
struct Made {
    channel: Channel,
    line: Arc<Line>,
}

impl Reader {
    pub(crate) fn new(core: &Arc<Core>, source: &Source, prefetch: u16, feed: Feed) -> Self {
        let names = &core.names;
        let stored = |origin: &Origin| {
            let queue = names.stored(origin);
            let bindings = names.bindings_of(&queue.name);
            (queue, bindings, Kind::Kept(Place::Stored(origin.clone())))
        };
        let (queue, bindings, kind) = match source {
            Source::Service(service) => {
                (names.service(service), vec![(names.rpc(), service.to_string())], Kind::Calls)
            }
            Source::Queue(key) => stored(&Origin::Queue(key.clone())),
            Source::Durable(name, _) => stored(&Origin::Durable(name.clone())),
            Source::Topic(patterns) => {
                let bindings = patterns.iter().map(|pattern| (names.evt(), pattern.to_string())).collect();
                (names.ephemeral(rand::random()), bindings, Kind::Events)
            }
            Source::Control(service) => {
                let bindings = vec![(names.ctl(), service.to_string())];
                (names.control(service, rand::random()), bindings, Kind::Control)
            }
            Source::Inbox(inbox) => {
                (names.inbox(*inbox), vec![(names.reply(), inbox.to_string())], Kind::Replies)
            }
            Source::DeadLetters(origin) => {
                let queue = names.dead_of(origin);
                let bindings = vec![(names.dead(), queue.name.clone())];
                (queue, bindings, Kind::Kept(Place::Dead(origin.clone())))
            }
        };
        let keeping = match source {
            Source::Durable(name, patterns) => {
                Some(Arc::new(Keeping::new(core.clone(), name.clone(), patterns.clone())))
            }
            _ => None,
        };
        Self {
            core: core.clone(),
            what: format!("subscribing to {source}"),
            prefetch: prefetch.max(1),
            queue,
            bindings,
            keeping,
            entry: entered(source),
            intake: Intake::new(core.clone(), kind, feed),
        }
    }

    /// Makes the subscription for the first time and watches over it from then on.
    pub(crate) async fn start(self) -> Result<()> {
        let deadline = Instant::now() + BOUND;
        let mut made = self.make_first(deadline).await;
        if let (Ok(_), Some(keeping)) = (&made, &self.keeping)
            && let Err(fault) = keeping.announce(deadline).await
        {
            made = Err(fault);
        }
        let made = made.map_err(|fault| {
            self.intake.end();
            match fault {
                Fault::Late => Error::timeout(&self.what, BOUND),
                fault => fault.into_error(&self.what),
            }
        })?;
        self.intake.consuming(true);
        self.enter();
        let core = self.core.clone();
        core.reading.spawn(self.run(made));
        Ok(())
    }

    /// Enters it, for which nobody has to wait.
    fn enter(&self) {
        if let Some(entry) = self.entry.clone() {
            self.core.registry.enter_soon(entry);
        }
    }

    async fn make_first(&self, deadline: Instant) -> Result<Made, Fault> {
        loop {
            let up = self.core.consuming.until(deadline).await.ok_or(Fault::NotSent)?;
            match self.make(&up, true).await {
                Err(fault) if fault.passes() && Instant::now() < deadline => {
                    sleep(Duration::from_millis(50)).await;
                }
                made => return made,
            }
        }
    }

    async fn run(self, mut made: Made) {
        let closed = async {
            tokio::select! {
                () = self.intake.closed() => {}
                () = self.core.closing.cancelled() => {}
            }
        };
        tokio::select! {
            () = closed => {}
            () = self.intake.hand_on() => {}
            () = self.keep(&mut made) => {}
        }
        self.leave(&made.channel).await;
    }

    /// Makes it again whenever it is lost. Returns when the bus has closed.
    async fn keep(&self, made: &mut Made) {
        loop {
            self.watch(&made.channel).await;
            self.intake.consuming(false);
            made.line.by(None);
            // Where its consumer is still there after all; what is in hand can still be settled.
            drop(made.channel.call(&method::cancel(TAG)));
            let mut attempt = 0;
            *made = loop {
                let Some(up) = self.core.consuming.up().await else { return };
                match self.make(&up, false).await {
                    Ok(made) => break made,
                    Err(fault) => {
                        attempt += 1;
                        let lasting = !fault.passes();
                        if lasting && attempt < 2 {
                            tracing::error!(error = %fault.into_error(&self.what), "a subscription is refused");
                        } else {
                            tracing::debug!(?fault, what = self.what, "a subscription is not there yet");
                        }
                        sleep(AGAIN.after(if lasting { 16 } else { attempt })).await;
                    }
                }
            };
            self.intake.consuming(true);
            // The registry may have been lost meanwhile.
            self.enter();
        }
    }

    /// Declares, binds and consumes, all in one go.
    async fn make(&self, up: &Up, first: bool) -> Result<Made, Fault> {
        // Once it is bound it may be written to. One that is there still has been made sure of before.
        let queue = &self.queue;
        if first || (queue.is_quorum() && topology::look(&up.connection, &queue.name).await?.is_none()) {
            topology::make_sure(&up.connection, &self.core.names, queue).await?;
        }
        let line = Line::new(self.intake.clone());
        let channel = up.connection.channel(line.clone()).await?;
        let kind = self.intake.kind();
        if kind.is_unsettled() {
            channel.unsettled();
        }
        if !first {
            match kind {
                Kind::Events => self.intake.gap("the connection to rabbitmq was lost, or the queue"),
                Kind::Replies if self.has_forgotten(&channel).await? => {
                    self.intake.gap("rabbitmq has restarted, or lost the queue of the replies");
                }
                _ => {}
            }
        }
        line.by(Some(channel.clone()));
        let made = Made { channel: channel.clone(), line };
        let mut bindings = self.bindings.clone();
        if let Some(keeping) = &self.keeping {
            bindings.extend(keeping.bindings(&self.core.names.evt(), first));
        }
        let Queue { name, auto_delete, arguments } = &self.queue;
        let mut asked = vec![
            channel.call(&method::qos(self.prefetch)),
            channel.call(&method::queue_declare(name, *auto_delete, arguments)),
        ];
        asked.extend(
            bindings.iter().map(|(exchange, key)| channel.call(&method::queue_bind(name, exchange, key))),
        );
        if *kind == Kind::Replies {
            asked.push(channel.call(&method::queue_bind(name, &self.core.names.alive(), name)));
        }
        asked.push(channel.call(&method::consume(name, TAG, kind.is_unsettled(), &Table::new())));
        for answer in join_all(asked).await {
            answer?;
        }
        if let (Some(keeping), false) = (self.keeping.clone(), first) {
            tokio::spawn(async move { keeping.again().await });
        }
        Ok(made)
    }

    /// Whether the broker has lost what it held of the replies: then it knows a binding no longer that it does not keep.
    async fn has_forgotten(&self, channel: &Channel) -> Result<bool, Fault> {
        let alive = self.core.names.alive();
        channel.call(&method::exchange_declare(&alive, "direct", false, &Table::new())).await?;
        channel.post(&alive, &self.queue.name, b"").await?;
        // What comes back comes before this answer.
        channel.call(&method::qos(self.prefetch)).await?;
        Ok(channel.has_returned().await)
    }

    /// Returns when the subscription is not what it must be any more.
    async fn watch(&self, channel: &Channel) {
        let gone = channel.gone();
        let mut silent = false;
        loop {
            tokio::select! {
                () = gone.cancelled() => return,
                () = sleep(if silent { Duration::ZERO } else { WATCH }) => {}
            }
            if self.intake.kind() == &Kind::Events && self.core.ages.stop() > STOPPED {
                self.intake.gap("this process was stopped for a while");
            }
            let Some(up) = self.core.consuming.now() else {
                silent = false;
                continue;
            };
            let seen = self.verify(&up).await;
            let late = matches!(seen, Err(Fault::Late));
            match seen {
                Ok(true) => {}
                Ok(false) => return,
                // One that waits for the rest of a frame has a heartbeat all the same.
                Err(Fault::Late) if silent => {
                    up.connection.cut("rabbitmq answers no question any more");
                    return;
                }
                // The channel says so itself where that matters.
                Err(fault) => tracing::debug!(?fault, what = self.what, "a look at the broker failed"),
            }
            silent = late;
            if let Some(keeping) = &self.keeping {
                keeping.seen().await;
            }
        }
    }

    async fn verify(&self, up: &Up) -> Result<bool, Fault> {
        let Some((messages, consumers)) = topology::look(&up.connection, &self.queue.name).await? else {
            return Ok(false);
        };
        if self.intake.kind() == &Kind::Events && i64::from(messages) > crate::names::MOST_EVENTS * 9 / 10 {
            self.intake.gap("the subscription did not keep up, and its queue is full");
        }
        if consumers == 0 {
            return Ok(false);
        }
        let mut bindings = self.bindings.clone();
        if let Some(keeping) = &self.keeping {
            bindings.extend(keeping.bindings(&self.core.names.evt(), false));
            keeping.unbind(&up.connection).await?;
        }
        match topology::bind(&up.connection, &self.queue.name, &bindings).await {
            Err(fault) if fault.is_missing() => Ok(false),
            bound => bound.map(|()| true),
        }
    }

    /// Ends the consumer; what was taken stays with the reader.
    async fn leave(&self, channel: &Channel) {
        let left = async {
            // The queue goes with its consumer; what is routed to a queue that is going is refused to its publisher, who
            // would send it again, though other queues have it.
            if self.queue.auto_delete && matches!(self.intake.kind(), Kind::Events | Kind::Control) {
                for (exchange, key) in &self.bindings {
                    channel.call(&method::queue_unbind(&self.queue.name, exchange, key)).await?;
                }
            }
            channel.call(&method::cancel(TAG)).await?;
            if *self.intake.kind() == Kind::Replies {
                channel.call(&method::queue_delete(&self.queue.name)).await?;
            }
            Ok::<_, Fault>(())
        };
        // If the broker does not answer, the consumer goes with its channel.
        let _ = tokio::time::timeout(LEAVING, left).await;
        self.intake.end();
    }
}

/// What is entered when `source` is subscribed to. A durable subscription enters itself.
fn entered(source: &Source) -> Option<Entered> {
    let dead = |kind: &str, name: String| Entered::Dead { kind: kind.to_owned(), name };
    match source {
        Source::Service(service) => Some(Entered::Service { name: service.to_string() }),
        Source::Queue(key) => Some(Entered::Queue { name: key.to_string() }),
        Source::DeadLetters(Origin::Queue(key)) => Some(dead("queue", key.to_string())),
        Source::DeadLetters(Origin::Durable(name)) => Some(dead("durable", name.to_string())),
        Source::Durable(..) | Source::Topic(_) | Source::Control(_) | Source::Inbox(_) => None,
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.intake.end();
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        self.line.by(None);
    }
}
