//! What is heard by those who are connected: events, control messages, replies. At most once; where something may be
//! missing, a gap says so.

use std::{collections::VecDeque, sync::Arc};

use async_nats::{Message as Raw, Subscriber};
use commissaire::{Address, Feed, Inbox, Key, Message, Pattern, Place, Result, envelope};
use futures_util::StreamExt;
use tokio::{sync::watch, time::Instant};

use super::ear;
use crate::{
    bus::{BOUND, Core},
    call::correlation,
    link::State,
};

/// What may wait for a slow consumer.
const MOST_WAITING: usize = 4_096;
const MOST_BYTES: usize = 32 << 20;

/// What is wanted of what comes.
enum Want {
    Events(Vec<Pattern>),
    Control(Key),
    Replies(Inbox),
}

/// One subscription.
struct Hearer {
    core: Arc<Core>,
    feed: Feed,
    subject: String,
    want: Want,
    subscriber: Subscriber,
    waiting: VecDeque<Waits>,
    bytes: usize,
}

enum Waits {
    Message(Message),
    Gap(&'static str),
}

pub(crate) async fn topic(
    core: &Arc<Core>,
    patterns: Vec<Pattern>,
    feed: Feed,
    deadline: Instant,
) -> Result<()> {
    let subject = core.link.names.covering(&patterns);
    start(core, subject, Want::Events(patterns), feed, deadline).await
}

pub(crate) async fn control(core: &Arc<Core>, service: &Key, feed: Feed, deadline: Instant) -> Result<()> {
    let subject = core.link.names.control(service);
    start(core, subject, Want::Control(service.clone()), feed, deadline).await
}

pub(crate) async fn inbox(core: &Arc<Core>, inbox: Inbox, feed: Feed, deadline: Instant) -> Result<()> {
    let subject = core.link.names.inbox(&core.link.prefix, &inbox);
    start(core, subject, Want::Replies(inbox), feed, deadline).await
}

async fn start(core: &Arc<Core>, subject: String, want: Want, feed: Feed, deadline: Instant) -> Result<()> {
    let (mut state, dropped) = (core.link.state(), core.link.dropped.subscribe());
    let generation = state.borrow_and_update().generation;
    let subscriber = ear::open(&core.link, &subject, None, deadline).await?;
    feed.consuming().set(true);
    let hearer =
        Hearer { core: core.clone(), feed, subject, want, subscriber, waiting: VecDeque::new(), bytes: 0 };
    core.listening.spawn(hearer.run(state, dropped, generation));
    Ok(())
}

impl Hearer {
    async fn run(
        mut self,
        mut state: watch::Receiver<State>,
        mut dropped: watch::Receiver<u64>,
        mut generation: u64,
    ) {
        loop {
            tokio::select! {
                biased;
                () = self.feed.closed() => break,
                () = self.core.closing.cancelled() => break,
                () = self.core.link.end.cancelled() => break,
                Ok(()) = state.changed() => {
                    let now = *state.borrow_and_update();
                    self.follow(now, &mut generation).await;
                }
                Ok(()) = dropped.changed() => self.gap("more came than could be taken in time"),
                message = self.subscriber.next() => match message {
                    Some(raw) => {
                        self.take(&raw);
                        // Several at a time, for looking at everything else costs more than a message.
                        for _ in 0..ear::BURST {
                            let Some(raw) = ear::here(&mut self.subscriber) else { break };
                            self.take(&raw);
                        }
                    }
                    None => break,
                },
                place = self.feed.place(), if !self.waiting.is_empty() => match place {
                    Some(place) => self.hand_over(place),
                    None => break,
                },
            }
        }
        self.feed.consuming().set(false);
        for raw in ear::shut(&self.core.link, &mut self.subscriber, async {}).await {
            self.take(&raw);
        }
        while let Some(place) = self.feed.try_place()
            && !self.waiting.is_empty()
        {
            self.hand_over(place);
        }
    }

    /// The connection was lost or made again.
    async fn follow(&mut self, state: State, generation: &mut u64) {
        if !state.up {
            self.feed.consuming().set(false);
            // Who waits for a reply need not wait for the connection to know that it may be lost.
            if matches!(self.want, Want::Replies(_)) {
                self.gap("the connection to NATS was lost");
            }
            return;
        }
        if state.generation == *generation {
            return;
        }
        match ear::known(&self.core.link, &self.subject, Instant::now() + BOUND).await {
            Ok(known) => {
                *generation = known;
                self.gap("the connection to NATS was made again");
                self.feed.consuming().set(true);
            }
            Err(fault) => tracing::warn!(subject = self.subject, ?fault, "a subscription was not made again"),
        }
    }

    fn take(&mut self, raw: &Raw) {
        let message = match envelope::decode(raw.payload.clone()) {
            Ok(message) => message,
            Err(error) => {
                tracing::warn!(subject = self.subject, %error, "what cannot be read was dropped");
                return;
            }
        };
        let wanted = match (&self.want, message.address()) {
            (Want::Events(patterns), Address::Topic(key)) => {
                raw.subject.as_str() == self.core.link.names.event(key)
                    && patterns.iter().any(|pattern| pattern.matches(key))
            }
            (Want::Control(service), Address::Control(key)) => service == key,
            (Want::Replies(inbox), Address::Inbox(to)) => {
                if let Some(correlation) = correlation(&message) {
                    self.core.link.mux.replied(correlation);
                }
                inbox == to
            }
            _ => false,
        };
        if !wanted {
            return;
        }
        if self.waiting.is_empty()
            && let Some(place) = self.feed.try_place()
        {
            self.feed.deliver_unsettled(place, message);
            return;
        }
        if self.waiting.len() >= MOST_WAITING || self.bytes >= MOST_BYTES {
            self.gap("more came than the consumer took");
            return;
        }
        self.bytes += message.size();
        self.waiting.push_back(Waits::Message(message));
    }

    /// Something may be missing behind all that waits.
    fn gap(&mut self, why: &'static str) {
        if matches!(self.want, Want::Control(_)) {
            return;
        }
        match self.waiting.back() {
            None => self.feed.gap(why),
            Some(Waits::Gap(_)) => {}
            Some(Waits::Message(_)) => self.waiting.push_back(Waits::Gap(why)),
        }
    }

    fn hand_over(&mut self, place: Place) {
        let mut place = Some(place);
        while let Some(waits) = self.waiting.pop_front() {
            match (waits, place.take()) {
                (Waits::Gap(why), free) => {
                    self.feed.gap(why);
                    place = free;
                }
                (Waits::Message(message), Some(free)) => {
                    self.bytes -= message.size();
                    self.feed.deliver_unsettled(free, message);
                    // What stands right behind needs no waiting if there is room.
                    place = self.feed.try_place();
                    if place.is_none() {
                        return;
                    }
                }
                (message, None) => {
                    self.waiting.push_front(message);
                    return;
                }
            }
        }
    }
}
