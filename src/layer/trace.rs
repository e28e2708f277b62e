//! One line in the log for each call.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::time::Instant;

use crate::handler::{Call, Handler, Layer, Outcome};

/// Logs each call when it is over, at debug, with method, outcome and time taken. Never parameters or results.
#[derive(Debug, Clone, Copy, Default)]
pub struct Traced;

struct Logged(Arc<dyn Handler>);

impl Layer for Traced {
    fn layer(&self, inner: Arc<dyn Handler>) -> Arc<dyn Handler> {
        Arc::new(Logged(inner))
    }
}

#[async_trait]
impl Handler for Logged {
    async fn call(&self, call: Call) -> Outcome {
        if !tracing::enabled!(tracing::Level::DEBUG) {
            return self.0.call(call).await;
        }
        let (key, trace, started) = (call.key.clone(), call.trace, Instant::now());
        let outcome = self.0.call(call).await;
        let took = started.elapsed();
        match &outcome {
            Ok(_) => tracing::debug!(%key, %trace, ?took, "answered"),
            Err(error) => tracing::debug!(%key, %trace, ?took, kind = error.kind().name(), "failed"),
        }
        outcome
    }
}
