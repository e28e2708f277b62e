//! Delays: queues whose messages rest for a fixed time and then go on to where they came from.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    link::Link,
    names::Names,
    publish::{Letter, Publisher},
    topology,
    wire::{Connection, Fault, Verdict},
};

/// In ms: up to here delays are multiples of that.
const LINEAR: [(u64, u64); 2] = [(500, 25), (4_000, 50)];
/// Up to here, and from there on, each is so much longer than the one before: the broker takes its time as well.
const FINER: (u64, f64) = (30_000, 1.02);
const COARSER: f64 = 1.05;
/// The longest that RabbitMQ takes, some 49 days.
const MOST: u64 = u32::MAX as u64 - 1;

/// The delays that are known to be declared on one connection.
#[derive(Debug, Default)]
pub(crate) struct Delays {
    known: Mutex<(Option<Connection>, HashSet<Duration>)>,
    declaring: tokio::sync::Mutex<()>,
}

/// The shortest delay there is a queue for that is not shorter than `after`.
pub(crate) fn step(after: Duration) -> Duration {
    let wanted = u64::try_from(after.as_micros().div_ceil(1_000)).unwrap_or(MOST).min(MOST);
    if let Some((_, fine)) = LINEAR.into_iter().find(|(end, _)| wanted <= *end) {
        return Duration::from_millis(wanted.next_multiple_of(fine));
    }
    let mut step = LINEAR[LINEAR.len() - 1].0;
    while step < wanted {
        let factor = if step < FINER.0 { FINER.1 } else { COARSER };
        step = ((step as f64 * factor) as u64).next_multiple_of(10);
    }
    Duration::from_millis(step.min(MOST))
}

impl Delays {
    /// Lets `letter` rest for `after` and then go to the queue that its key names. It is in that queue's name that it
    /// comes back, whatever its exchange.
    pub(crate) async fn rest(
        &self,
        (publisher, link, names): (&Publisher, &Link, &Names),
        letter: &Letter<'_>,
        after: Duration,
        deadline: Instant,
    ) -> Result<Verdict, Fault> {
        let step = step(after);
        let queue = names.delay(step);
        for again in [false, true] {
            let up = link.until(deadline).await.ok_or(Fault::NotSent)?;
            if again || !self.knows(&up.connection, step) {
                let _declaring = self.declaring.lock().await;
                // For what finds its own queue gone afterwards; its mark is the step that no delay has.
                if again || !self.knows(&up.connection, Duration::ZERO) {
                    let lost = names.lost_queue();
                    let bindings = [(names.lost(), String::new())];
                    topology::declare(&up.connection, names, &lost, &bindings).await?;
                    self.learn(&up.connection, Duration::ZERO);
                }
                if again || !self.knows(&up.connection, step) {
                    topology::declare_with_exchange(&up.connection, names, &queue).await?;
                    self.learn(&up.connection, step);
                }
            }
            let resting = Letter {
                exchange: &queue.name,
                id: letter.id.clone(),
                mandatory: true,
                stored: true,
                end: None,
                ..*letter
            };
            match publisher.keep(&queue.name, &resting, deadline).await {
                Ok(Verdict::Returned) if !again => {}
                Err(Fault::Lost) => {
                    // Perhaps because the exchange is gone.
                    *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Default::default();
                    return Err(Fault::Lost);
                }
                sent => return sent,
            }
        }
        Ok(Verdict::Returned)
    }

    fn knows(&self, connection: &Connection, step: Duration) -> bool {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.0.as_ref().is_some_and(|known| known.is(connection)) && known.1.contains(&step)
    }

    fn learn(&self, connection: &Connection, step: Duration) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if !known.0.as_ref().is_some_and(|known| known.is(connection)) {
            *known = (Some(connection.clone()), HashSet::new());
        }
        known.1.insert(step);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_step_is_early_and_none_is_late_by_more_than_a_part_of_what_is_allowed() {
        let mut steps = HashSet::new();
        for millis in (0..20_000).chain((20_000..100_000_000).step_by(7_919)) {
            let after = Duration::from_millis(millis);
            let step = step(after);
            steps.insert(step);
            let late = step.checked_sub(after).expect("not early");
            let most = if millis < 30_000 { after / 45 } else { after / 19 };
            assert!(late < Duration::from_millis(50).max(most), "{after:?} rests for {step:?}");
        }
        assert!(steps.len() < 400, "{} queues", steps.len());
        assert!(step(Duration::MAX) <= Duration::from_millis(MOST));
        assert_eq!(step(Duration::from_micros(1)), Duration::from_millis(25));
    }
}
