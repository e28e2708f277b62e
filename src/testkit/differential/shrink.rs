//! Making a program that fails shorter, as long as it fails.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt, stream};
use tokio::time::Instant;

use super::carry_out;
use crate::testkit::{
    program::{Abilities, Program},
    target::Target,
    wait::Failure,
};

/// How many shorter ones are tried at one time.
const AT_ONCE: usize = 16;

/// The shortest program that was found to fail within `limit`, and how.
pub(super) async fn shrink(
    program: Arc<Program>,
    failure: Failure,
    target: &Arc<Target>,
    can: Abilities,
    limit: Duration,
) -> (Arc<Program>, Failure) {
    let until = Instant::now() + limit;
    let (mut best, mut why) = (program, failure);
    let mut size = best.steps.len().div_ceil(2);
    let at_once = if can.restart { 1 } else { AT_ONCE };
    while size > 0 && Instant::now() < until {
        let shorter = (0..best.steps.len()).step_by(size).map(|from| {
            let mut steps = best.steps.clone();
            steps.drain(from..(from + size).min(steps.len()));
            Arc::new(Program { seed: best.seed, steps })
        });
        let tries: Vec<_> = shorter
            .map(|program| async {
                let run = carry_out(program.clone(), target.clone(), can);
                match tokio::time::timeout_at(until, run).await {
                    Ok(Err(failure)) => Some((program, failure)),
                    Ok(Ok(())) | Err(_) => None,
                }
            })
            .collect();
        let mut tries = stream::iter(tries).buffer_unordered(at_once);
        let mut found = None;
        while found.is_none()
            && let Some(tried) = tries.next().await
        {
            found = tried;
        }
        drop(tries);
        match found {
            Some((program, failure)) => {
                (best, why) = (program, failure);
                size = size.min(best.steps.len().div_ceil(2));
            }
            None => size /= 2,
        }
    }
    (best, why)
}
