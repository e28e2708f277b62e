//! What became of what a channel published.
//!
//! RabbitMQ returns an unroutable message before it confirms it. lapin (4.12.3) hands each returned message to whichever
//! confirmation it resolves next, and walks those that one frame confirms in no order, so that what a confirmation carries
//! may belong to another message. Here nothing is told before all that lapin resolved together with it has been seen,
//! and a returned message is known by the number that it bears itself.

use std::{collections::HashMap, pin::Pin, task::Poll};

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
    pub(super) who: oneshot::Sender<Verdict>,
    /// Its share of what may be under way, however soon its publisher leaves.
    pub(super) share: OwnedSemaphorePermit,
    pub(super) speaking: Speaking,
}

/// What waits for its verdict.
#[derive(Default)]
struct Confirms {
    open: HashMap<u64, Open>,
    speaking: FuturesUnordered<Speaking>,
    /// Confirmed, and not told yet.
    spoken: Vec<(u64, bool)>,
}

struct Open {
    who: oneshot::Sender<Verdict>,
    returned: bool,
    _share: OwnedSemaphorePermit,
}

/// Tells publishers what became of their messages until the channel is `lost`; gives the error that told so, if one did.
/// Who is not told by then knows by that.
pub(super) async fn tell(
    channel: lapin::Channel,
    mut sent: mpsc::Receiver<Sent>,
    lost: CancellationToken,
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
                None if confirms.speaking.is_empty() => return None,
                None => match confirms.speaking.next().await {
                    Some(spoken) => confirms.hear(spoken),
                    None => Ok(()),
                },
            },
        };
        let told = heard.and_then(|()| {
            while let Ok(message) = sent.try_recv() {
                confirms.enter(message);
            }
            confirms.hear_all()?;
            confirms.tell(|| together(&channel))
        });
        if let Err(error) = told {
            return Some(error);
        }
    }
}

/// Returns when lapin has resolved all that one frame confirms: it does so under the lock that this takes.
fn together(channel: &lapin::Channel) {
    // Whatever it says: it waits for the last message only after the lock.
    let _ = begin(std::pin::pin!(channel.wait_for_confirms()));
}

impl Confirms {
    fn enter(&mut self, message: Sent) {
        let Sent { number, who, share, speaking } = message;
        self.open.insert(number, Open { who, returned: false, _share: share });
        self.speaking.push(speaking);
    }

    fn hear(&mut self, (number, word): Spoken) -> lapin::Result<()> {
        let (returned, stored) = match word? {
            Confirmation::Ack(returned) => (returned, true),
            Confirmation::Nack(returned) => (returned, false),
            Confirmation::NotRequested => (None, true),
        };
        if let Some(open) =
            returned.as_ref().and_then(number_of).and_then(|number| self.open.get_mut(&number))
        {
            open.returned = true;
        }
        self.spoken.push((number, stored));
        Ok(())
    }

    /// All that lapin has resolved by now.
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

    fn tell(&mut self, together: impl Fn()) -> lapin::Result<()> {
        while !self.spoken.is_empty() {
            let certain = std::mem::take(&mut self.spoken);
            together();
            self.hear_all()?;
            for (number, stored) in certain {
                let Some(open) = self.open.remove(&number) else { continue };
                let verdict = match (open.returned, stored) {
                    (true, _) => Verdict::Returned,
                    (false, true) => Verdict::Stored,
                    (false, false) => Verdict::Refused,
                };
                // Whoever published may have left.
                let _ = open.who.send(verdict);
            }
        }
        Ok(())
    }
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
