//! What became of what a channel published.

use std::collections::BTreeMap;

use tokio::sync::{OwnedSemaphorePermit, oneshot};

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

/// What waits for its verdict, by the number of the message on its channel.
#[derive(Debug, Default)]
pub(super) struct Confirms {
    last: u64,
    pending: BTreeMap<u64, Pending>,
}

#[derive(Debug)]
struct Pending {
    who: oneshot::Sender<Verdict>,
    returned: bool,
    /// Its share of what may be under way, however soon its publisher leaves.
    _share: Option<OwnedSemaphorePermit>,
}

impl Confirms {
    /// The number of the next message.
    pub(super) fn next(&self) -> u64 {
        self.last + 1
    }

    /// That message was sent.
    pub(super) fn sent(&mut self, share: Option<OwnedSemaphorePermit>) -> oneshot::Receiver<Verdict> {
        let (who, verdict) = oneshot::channel();
        self.last += 1;
        self.pending.insert(self.last, Pending { who, returned: false, _share: share });
        verdict
    }

    /// The message came back; its confirmation is still to come.
    pub(super) fn returned(&mut self, number: u64) {
        if let Some(pending) = self.pending.get_mut(&number) {
            pending.returned = true;
        }
    }

    /// The broker has spoken of this message, and with `multiple` of all before it.
    pub(super) fn confirm(&mut self, number: u64, multiple: bool, stored: bool) {
        if multiple {
            let later = self.pending.split_off(&number.saturating_add(1));
            for (_, pending) in std::mem::replace(&mut self.pending, later) {
                pending.tell(stored);
            }
        } else if let Some(pending) = self.pending.remove(&number) {
            pending.tell(stored);
        }
    }

    /// There will be no verdict any more.
    pub(super) fn clear(&mut self) {
        self.pending.clear();
    }
}

impl Pending {
    fn tell(self, stored: bool) {
        let verdict = match (self.returned, stored) {
            (true, _) => Verdict::Returned,
            (false, true) => Verdict::Stored,
            (false, false) => Verdict::Refused,
        };
        // Whoever published may have left.
        let _ = self.who.send(verdict);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_message_gets_its_own_verdict() {
        let mut confirms = Confirms::default();
        let mut verdicts: Vec<_> = (1..=6)
            .map(|number| {
                assert_eq!(confirms.next(), number);
                confirms.sent(None)
            })
            .collect();
        confirms.returned(2);
        confirms.returned(5);
        confirms.confirm(6, false, false);
        confirms.confirm(4, true, true);
        confirms.confirm(9, true, true);
        confirms.confirm(1, false, true);
        let got: Vec<_> = verdicts.iter_mut().map(|verdict| verdict.try_recv().ok()).collect();
        use Verdict::{Refused, Returned, Stored};
        assert_eq!(got, [Stored, Returned, Stored, Stored, Returned, Refused].map(Some));
        assert_eq!(confirms.next(), 7);
    }
}
