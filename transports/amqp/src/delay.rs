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
    wire::{Connection, Fault, Silent, Verdict, method, value::Table},
};

/// Delays up to here are a multiple of [`FINE`]; longer ones are each so much longer than the one before.
const LINEAR: u64 = 1_000;
const FINE: u64 = 50;
const FINER: f64 = 1.05;
/// The longest that RabbitMQ takes, some 49 days.
const MOST: u64 = u32::MAX as u64 - 1;

/// The delays that are known to be declared on one connection.
#[derive(Debug, Default)]
pub(crate) struct Delays(Mutex<(Option<Connection>, HashSet<Duration>)>);

/// The shortest delay there is a queue for that is not shorter than `after`.
pub(crate) fn step(after: Duration) -> Duration {
    let wanted = u64::try_from(after.as_micros().div_ceil(1_000)).unwrap_or(MOST).min(MOST);
    if wanted <= LINEAR {
        return Duration::from_millis(wanted.div_ceil(FINE) * FINE);
    }
    let mut step = LINEAR;
    while step < wanted {
        step = ((step as f64 * FINER) as u64).next_multiple_of(10);
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
                declare(&up.connection, names, step).await?;
                self.learn(up.connection, step);
            }
            let resting = Letter {
                exchange: &queue.name,
                id: letter.id.clone(),
                mandatory: true,
                stored: true,
                end: None,
                ..*letter
            };
            match publisher.send(&resting, deadline).await {
                Ok(Verdict::Returned) if !again => {}
                Err(Fault::Lost) => {
                    // Perhaps because the exchange is gone.
                    *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Default::default();
                    return Err(Fault::Lost);
                }
                sent => return sent,
            }
        }
        Ok(Verdict::Returned)
    }

    fn knows(&self, connection: &Connection, step: Duration) -> bool {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.0.as_ref().is_some_and(|known| known.is(connection)) && known.1.contains(&step)
    }

    fn learn(&self, connection: Connection, step: Duration) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !known.0.as_ref().is_some_and(|known| known.is(&connection)) {
            *known = (Some(connection), HashSet::new());
        }
        known.1.insert(step);
    }
}

/// The delay, and the queue for what finds its own queue gone afterwards.
async fn declare(connection: &Connection, names: &Names, step: Duration) -> Result<(), Fault> {
    let (lost, delay) = (names.lost_queue(), names.delay(step));
    topology::declare(connection, &lost, &[(names.lost(), String::new())]).await?;
    let channel = connection.channel(std::sync::Arc::new(Silent)).await?;
    channel.call(&method::exchange_declare(&delay.name, "fanout", true, &Table::new())).await?;
    topology::declare_on(&channel, &delay, &[(delay.name.clone(), String::new())]).await?;
    channel.close().await
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
            assert!(late < Duration::from_millis(50).max(after / 16), "{after:?} rests for {step:?}");
        }
        assert!(steps.len() < 300, "{} queues", steps.len());
        assert!(step(Duration::MAX) <= Duration::from_millis(MOST));
        assert_eq!(step(Duration::from_micros(1)), Duration::from_millis(50));
    }
}
