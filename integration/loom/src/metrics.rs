//! Counters, as far as the sources here count.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// No part of what is tried: the counters are not loom's.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    strays: Arc<AtomicUsize>,
}

impl Metrics {
    pub(crate) fn count_stray_reply(&self) {
        self.strays.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn strays(&self) -> usize {
        self.strays.load(Ordering::Relaxed)
    }

    pub fn set_consuming(&self, _source: &str, _consuming: bool) {}
}
