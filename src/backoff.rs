//! Rests that grow: exponential back-off with jitter.

use std::time::Duration;

/// Rests between attempts: each up to twice as long as the one before, shortened by chance by up to a half, so that
/// those who failed together do not come again together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The first rest at its longest.
    pub first: Duration,
    /// What no rest is longer than.
    pub most: Duration,
}

impl Backoff {
    /// The rest after `attempt` attempts, counted from 1.
    pub fn after(&self, attempt: u32) -> Duration {
        let doubled =
            self.first.saturating_mul(1_u32.checked_shl(attempt.saturating_sub(1)).unwrap_or(u32::MAX));
        doubled.min(self.most).mul_f64(rand::random_range(0.5..=1.0))
    }
}
