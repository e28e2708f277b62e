//! What became of what a channel published.
//!
//! RabbitMQ returns an unroutable message before it confirms it. lapin (4.12.3) keeps returned messages in a row and hands
//! the oldest to whichever confirmation it resolves next, so what a confirmation carries may belong to another message, and
//! what belongs to it may come with a later one. Here a returned message is known by the number that it bears, and a
//! mandatory message counts as routed only when the row is known to have been empty since: when its own confirmation
//! carried nothing, or that of a message which was published later. Where no later one comes, a probe is published.

use std::{
    collections::{HashMap, HashSet},
    pin::Pin,
    task::Poll,
};

use futures_util::{FutureExt, StreamExt, stream::FuturesUnordered};
use lapin::{Confirmation, message::BasicReturnMessage};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::begin;

/// The broker's word on a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is where it belongs.
    Stored,
    /// Some queue did not take it.
    Refused,
    /// No queue wanted it.
    Returned,
}

/// The broker's word, or why there will be none.
pub(super) type Spoken = (u64, lapin::Result<Confirmation>);
/// Waits for it.
pub(super) type Speaking = Pin<Box<dyn Future<Output = Spoken> + Send>>;

/// A message that was sent.
pub(super) struct Sent {
    pub(super) number: u64,
    /// It comes back when nobody wants it.
    pub(super) mandatory: bool,
    pub(super) who: oneshot::Sender<Verdict>,
    /// Its share of what may be under way, however soon its publisher leaves.
    pub(super) share: Option<OwnedSemaphorePermit>,
    pub(super) speaking: Speaking,
}

/// What waits for its verdict.
#[derive(Default)]
struct Confirms {
    open: HashMap<u64, Open>,
    /// Came back before we were told that they were sent.
    early: HashSet<u64>,
    speaking: FuturesUnordered<Speaking>,
    /// The number of the last message that was sent.
    last: u64,
    /// Confirmed, and told when all that lapin has resolved is heard.
    certain: Vec<(u64, Verdict)>,
    /// Confirmed as stored or not, but their return may still come, with the last number that was sent when that was heard.
    doubtful: Vec<(u64, bool, u64)>,
}

struct Open {
    who: oneshot::Sender<Verdict>,
    mandatory: bool,
    returned: bool,
    _share: Option<OwnedSemaphorePermit>,
}

/// Tells publishers what became of their messages until the channel is `lost`; gives the error that told so, if one did.
/// Who is not told by then knows by that. `probe` publishes a message that nobody wants and that does not come back;
/// `all_entered` returns when what lapin was given before is in `sent`.
pub(super) async fn tell(
    mut sent: mpsc::Receiver<Sent>,
    lost: CancellationToken,
    probe: impl Fn() -> bool,
    all_entered: impl Fn(),
) -> Option<lapin::Error> {
    let mut confirms = Confirms::default();
    loop {
        let heard = tokio::select! {
            biased;
            () = lost.cancelled() => return None,
            Some(spoken) = confirms.speaking.next() => confirms.hear(spoken),
            message = sent.recv() => match message {
                Some(message) => {
                    confirms.enter(message);
                    Ok(())
                }
                // The channel is closing; what was sent still gets its word.
                None => match confirms.speaking.next().await {
                    Some(spoken) => confirms.hear(spoken),
                    None => return None,
                },
            },
        };
        if let Err(error) = heard.and_then(|()| confirms.hear_all()) {
            return Some(error);
        }
        while !confirms.certain.is_empty() {
            let certain = std::mem::take(&mut confirms.certain);
            // What was confirmed before these may have been sent a moment ago, and may carry what came back of them.
            all_entered();
            while let Ok(message) = sent.try_recv() {
                confirms.enter(message);
            }
            if let Err(error) = confirms.hear_all() {
                return Some(error);
            }
            confirms.tell(certain);
        }
        if confirms.needs_probe() && !probe() {
            return None;
        }
    }
}

impl Confirms {
    fn enter(&mut self, message: Sent) {
        let Sent { number, mandatory, who, share, speaking } = message;
        self.last = number;
        let returned = self.early.remove(&number);
        self.open.insert(number, Open { who, mandatory, returned, _share: share });
        self.speaking.push(speaking);
    }

    fn hear(&mut self, (number, word): Spoken) -> lapin::Result<()> {
        let (returned, stored) = match word? {
            Confirmation::Ack(returned) => (returned, true),
            Confirmation::Nack(returned) => (returned, false),
            Confirmation::NotRequested => (None, true),
        };
        let empty = returned.is_none();
        if let Some(returned) = returned.as_ref().and_then(number_of) {
            match self.open.get_mut(&returned) {
                Some(open) => open.returned = true,
                None if returned > self.last => drop(self.early.insert(returned)),
                None => tracing::error!("a message came back that was told to be routed"),
            }
            if let Some(at) = self.doubtful.iter().position(|(number, ..)| *number == returned) {
                self.doubtful.swap_remove(at);
                self.certain.push((returned, Verdict::Returned));
            }
        }
        if empty {
            // Whatever was confirmed before this one was sent has come back by now, if it comes back at all.
            let certain = self.doubtful.extract_if(.., |(_, _, last)| *last < number);
            self.certain.extend(certain.map(|(number, stored, _)| (number, word_of(stored))));
        }
        match self.open.get(&number) {
            Some(open) if open.returned => self.certain.push((number, Verdict::Returned)),
            Some(open) if open.mandatory && !empty => self.doubtful.push((number, stored, self.last)),
            _ => self.certain.push((number, word_of(stored))),
        }
        Ok(())
    }

    /// All that lapin has resolved by now: of what it resolves at one time the order is not known.
    fn hear_all(&mut self) -> lapin::Result<()> {
        let mut pauses = 0;
        // It may pause between much work.
        while pauses < 2 {
            match self.speaking.next().now_or_never() {
                Some(Some(spoken)) => {
                    pauses = 0;
                    self.hear(spoken)?;
                }
                Some(None) => return Ok(()),
                None => pauses += 1,
            }
        }
        Ok(())
    }

    fn tell(&mut self, certain: Vec<(u64, Verdict)>) {
        for (number, verdict) in certain {
            let Some(open) = self.open.remove(&number) else { continue };
            let verdict = if open.returned { Verdict::Returned } else { verdict };
            // Whoever published may have left.
            let _ = open.who.send(verdict);
        }
    }

    /// Whether nothing under way will end a doubt.
    fn needs_probe(&self) -> bool {
        !self.doubtful.is_empty() && self.speaking.is_empty()
    }
}

fn word_of(stored: bool) -> Verdict {
    if stored { Verdict::Stored } else { Verdict::Refused }
}

/// The number that a message bears.
fn number_of(message: &BasicReturnMessage) -> Option<u64> {
    message.properties.correlation_id().as_ref()?.as_str().parse().ok()
}

/// Begins to send, so that messages go out in the order of these calls; `Err` when nothing was sent.
pub(super) fn send(
    number: u64,
    sending: impl Future<Output = lapin::Result<lapin::PublisherConfirm>> + Send + 'static,
) -> lapin::Result<Speaking> {
    let mut sending = Box::pin(sending);
    Ok(match begin(sending.as_mut()) {
        Poll::Ready(Err(error)) => return Err(error),
        Poll::Ready(Ok(confirm)) => Box::pin(async move { (number, confirm.await) }),
        Poll::Pending => Box::pin(async move {
            match sending.await {
                Ok(confirm) => (number, confirm.await),
                Err(error) => (number, Err(error)),
            }
        }),
    })
}
