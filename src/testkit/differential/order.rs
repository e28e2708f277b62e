//! Where the contract promises an order: one consumer with a prefetch of 1 sees the messages of one publisher in the
//! order of their publishing, retries apart.

use std::collections::{BTreeMap, BTreeSet};

use crate::testkit::wait::{Outcome, ensure};

/// Watches the order in queues and durable subscriptions.
#[derive(Default)]
pub(super) struct Order {
    /// The only consumer of a place since there was something in it.
    sole: BTreeMap<String, usize>,
    /// Places in which something was given back that came before.
    stirred: BTreeSet<String>,
    /// Places that a subscription has left whose bus is still there: it is gone for the broker soon, no more is promised,
    /// and may take something until then and give it back.
    haunted: BTreeSet<String>,
    last: BTreeMap<(String, usize), u32>,
}

impl Order {
    /// A subscription joins the readers of `place`; `single`: it is alone there, and takes one at a time.
    pub(super) fn joined(&mut self, place: &str, life: usize, single: bool) {
        if single && !self.stirred.contains(place) && !self.haunted.contains(place) {
            self.sole.insert(place.to_owned(), life);
        } else {
            self.sole.remove(place);
        }
    }

    /// A subscription leaves; `undone`: it may have given something back.
    pub(super) fn left(&mut self, place: &str, undone: bool) {
        self.sole.remove(place);
        if undone {
            self.stirred.insert(place.to_owned());
        }
    }

    /// A subscription has left `place`, and its bus goes on.
    pub(super) fn may_linger(&mut self, place: &str) {
        self.haunted.insert(place.to_owned());
    }

    /// Nothing is left in `place`.
    pub(super) fn drained(&mut self, place: &str) {
        self.stirred.remove(place);
    }

    /// Message `n` of publisher `by` came for the first time.
    pub(super) fn came(&mut self, place: &str, life: usize, by: usize, n: u32) -> Outcome {
        if self.sole.get(place) != Some(&life) {
            return Ok(());
        }
        let last = self.last.insert((place.to_owned(), by), n).unwrap_or(0);
        ensure!(last < n, "message {n} came from {place} behind {last}, to its only consumer, one at a time");
        Ok(())
    }
}
