//! Counting calls.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::time::Instant;

use crate::{
    handler::{Call, Handler, Layer, Outcome},
    metrics::Metrics,
};

/// Counts each call and its time in `metrics`, by method and outcome.
#[derive(Debug, Clone)]
pub struct Metered(pub Metrics);

struct Counted {
    metrics: Metrics,
    inner: Arc<dyn Handler>,
}

impl Layer for Metered {
    fn layer(&self, inner: Arc<dyn Handler>) -> Arc<dyn Handler> {
        Arc::new(Counted { metrics: self.0.clone(), inner })
    }
}

#[async_trait]
impl Handler for Counted {
    async fn call(&self, call: Call) -> Outcome {
        let (key, started) = (call.key.clone(), Instant::now());
        let outcome = self.inner.call(call).await;
        let word = match &outcome {
            Ok(_) => "ok",
            Err(error) => error.kind().name(),
        };
        self.metrics.count_call(key.as_str(), word, started.elapsed());
        outcome
    }
}
