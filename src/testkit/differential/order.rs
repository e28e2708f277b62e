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
    /// Places that a subscription of some buses has left: it is gone for the broker soon, and no more is promised until
    /// its bus has closed; it may take something until then and give it back.
    haunted: BTreeMap<String, BTreeSet<usize>>,
    last: BTreeMap<(String, usize), u32>,
}

impl Order {
    /// A subscription joins the readers of `place`; `single`: it is alone there, and takes one at a time.
    pub(super) fn joined(&mut self, place: &str, life: usize, single: bool) {
        if single && !self.stirred.contains(place) && !self.haunted.contains_key(place) {
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
    pub(super) fn may_linger(&mut self, place: &str, bus: usize) {
        self.haunted.entry(place.to_owned()).or_default().insert(bus);
    }

    /// A bus has closed: all its subscriptions are gone. What they gave back is somewhere in its place.
    pub(super) fn closed(&mut self, bus: usize) {
        for (place, buses) in &mut self.haunted {
            if buses.remove(&bus) {
                self.stirred.insert(place.clone());
            }
        }
        self.haunted.retain(|_, buses| !buses.is_empty());
    }

    /// Nothing is left in `place`. Who reads it alone [joins](Self::joined) it anew.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_promised_again_when_who_left_has_gone_and_nothing_is_left() {
        let mut order = Order::default();
        order.joined("q", 1, true);
        assert!(order.came("q", 1, 0, 2).is_ok() && order.came("q", 1, 0, 1).is_err());
        order.left("q", false);
        order.may_linger("q", 7);
        let mut is_promised = |again: fn(&mut Order)| {
            again(&mut order);
            order.joined("q", 2, true);
            order.came("q", 2, 0, 9).is_ok() && order.came("q", 2, 0, 8).is_err()
        };
        assert!(!is_promised(|_| {}));
        assert!(!is_promised(|order| order.drained("q")), "it may still take something");
        assert!(!is_promised(|order| order.closed(6)), "another bus");
        assert!(!is_promised(|order| order.closed(7)), "what it gave back is there");
        assert!(is_promised(|order| order.drained("q")));
    }
}
