//! What comes out of a bus: read, compared with the model, and settled as its letter says.

use std::collections::BTreeMap;

use tokio::time::Instant;

use super::{
    hands::{Held, Slot, now, settle},
    perform::{GRAIN, NUMBER, Performance},
};
use crate::{
    address::Origin,
    delivery::Delivery,
    message::header,
    subscription::{Received, Source},
    testkit::{
        program::{End, Letter, Rites, origin_of},
        wait::{Failure, Outcome, ensure, within},
    },
};

impl Performance {
    /// Looks at the dead letters of `origin`, which was drained: they are to be those of the model.
    pub(super) async fn exhume(&mut self, origin: &Origin, then: Rites) -> Outcome {
        if self.model.source(origin).is_none() {
            return Ok(());
        }
        let Some((_, expected)) = self.model.account().graves.last().cloned() else { return Ok(()) };
        let most = u16::try_from(expected.len() + 1).unwrap_or(u16::MAX);
        let digging = self.buses[0].subscribe(Source::DeadLetters(origin.clone()), most);
        let mut graves = within("subscribing to dead letters", self.target.bound(), digging).await??;
        let mut found = Vec::new();
        let mut seen = BTreeMap::new();
        while found.len() < expected.len() {
            let next = tokio::time::timeout(self.patience, graves.next_delivery()).await;
            let Ok(Some(letter)) = next else {
                return Err(Failure::new(format!("dead are {seen:?}, and {expected:?} were to be")));
            };
            let n = self.identify(&letter)?.letter.n;
            let named = letter.message().headers().get(header::ORIGIN);
            let name = origin.to_string();
            ensure!(named == Some(&*name), "dead letter {n} of {name} says that it comes from {named:?}");
            let again = seen.insert(n, letter.message().failed());
            ensure!(again.is_none(), "dead letter {n} came twice");
            found.push(letter);
        }
        ensure!(seen == expected, "dead are {seen:?}, and {expected:?} were to be");
        if let Some(Received::Delivery(more)) = now(&mut graves) {
            return Err(Failure::new(format!("dead is {more:?} too, beside {expected:?}")));
        }
        for letter in found {
            match then {
                Rites::Ack => within("taking a dead letter out", self.target.bound(), letter.ack()).await??,
                Rites::Redrive => within("redriving", self.target.bound(), letter.redrive()).await??,
                Rites::Leave => drop(letter),
            }
        }
        Ok(())
    }

    pub(super) async fn received(&mut self, slot: usize, received: Option<Received>) -> Outcome {
        let Some(Slot { life, by, source, prefetch, .. }) = self.slots.get(&slot) else { return Ok(()) };
        let (life, by, origin, prefetch) = (*life, *by, origin_of(source), usize::from(*prefetch));
        let delivery = match received {
            Some(Received::Delivery(delivery)) => delivery,
            other => {
                return Err(Failure::new(format!("slot {slot} got {other:?} where a message was to come")));
            }
        };
        let sent = self.identify(&delivery)?;
        let n = sent.letter.n;
        let Some(origin) = origin else {
            let heard = self.seen.heard.entry(life).or_default();
            ensure!(!heard.contains(&n), "slot {slot} heard {n} twice");
            heard.push(n);
            return Ok(());
        };
        let name = origin.to_string();
        let fate = self.seen.stored.entry(name.clone()).or_default().entry(n).or_default();
        fate.runs.push((delivery.attempt(), delivery.message().redriven()));
        fate.end = None;
        let index = fate.runs.len() - 1;
        let expected = self.model.drained(&origin).remove(&n).unwrap_or_default();
        ensure!(
            expected.runs.starts_with(&fate.runs),
            "message {n} came from {name} for the runs {:?}, where {:?} were to come",
            fate.runs,
            expected.runs
        );
        if let Some(due) = self.resting.remove(&(name.clone(), n)) {
            let early = due.saturating_duration_since(Instant::now());
            ensure!(early <= GRAIN, "the retry of {n} in {name} came {early:?} too early");
        }
        if index == 0 {
            self.order.came(&name, life, sent.by, n)?;
        }
        let verdict = sent.letter.verdict(index);
        let held = Held { origin: name, n, index, life, by, end: verdict.end, delivery };
        if !verdict.late {
            return self.settle(held).await;
        }
        self.hand.push(held);
        if self.hand.iter().filter(|held| held.life == life).count() < prefetch {
            return Ok(());
        }
        if let Some(slot) = self.slots.get_mut(&slot)
            && let Some(more) = now(&mut slot.subscription)
        {
            return Err(Failure::new(format!("{more:?} came although {prefetch} were in hand already")));
        }
        match self.hand.iter().position(|held| held.life == life) {
            Some(oldest) => {
                let held = self.hand.remove(oldest);
                self.settle(held).await
            }
            None => Ok(()),
        }
    }

    pub(super) async fn settle_held(&mut self, which: impl Fn(&Held) -> bool) -> Outcome {
        while let Some(at) = self.hand.iter().position(&which) {
            let held = self.hand.remove(at);
            self.settle(held).await?;
        }
        Ok(())
    }

    async fn settle(&mut self, held: Held) -> Outcome {
        let place = (held.origin.clone(), held.n);
        let end = held.end;
        let due = within("settling", self.target.bound(), settle(held)).await??;
        match end {
            End::Nack => drop(self.resting.insert(place, due)),
            End::Ack | End::Term => {
                let fate = self.seen.stored.entry(place.0).or_default().entry(place.1).or_default();
                fate.end = Some(end);
            }
            End::Drop => {}
        }
        Ok(())
    }

    /// Which letter a delivery is; fails if it is none that this program sent, or not as it was sent.
    fn identify(&self, delivery: &Delivery) -> Outcome<Sent> {
        let message = delivery.message();
        let Some((by, letter)) = self.program.sent(message.body()) else {
            return Err(Failure::new(format!("{message:?} came, which this program did not send so")));
        };
        ensure!(*message.address() == letter.to, "{message:?} came, which was sent to {}", letter.to);
        let number = message.headers().get(NUMBER);
        ensure!(number == Some(&*letter.n.to_string()), "letter {} came with number {number:?}", letter.n);
        Ok(Sent { by, letter: letter.clone() })
    }
}

/// A letter, and which program sent it.
struct Sent {
    by: usize,
    letter: Letter,
}
