//! Sending again what may be sent again.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::time::{Instant, sleep};

use crate::{
    backoff::Backoff,
    error::{Error, ErrorKind},
    handler::{Call, Handler, Layer, Outcome},
};

/// Repeats a call that failed for a passing reason, within its deadline: one that was surely not executed, and one that
/// may have been only if its method is declared idempotent. Nobody answering at all
/// ([`NoResponders`](crate::ErrorKind::NoResponders)) is an answer, and is not repeated.
#[derive(Debug, Clone, Copy)]
pub struct Retry {
    /// The most times that a call is sent, the first included.
    pub attempts: u32,
    /// The rests between.
    pub backoff: Backoff,
}

struct Repeated {
    rule: Retry,
    inner: Arc<dyn Handler>,
}

impl Default for Retry {
    /// Three times, resting about 50 ms and 100 ms.
    fn default() -> Self {
        Self {
            attempts: 3,
            backoff: Backoff { first: Duration::from_millis(50), most: Duration::from_secs(1) },
        }
    }
}

impl Retry {
    fn may_repeat(&self, call: &Call, error: &Error) -> bool {
        match error.kind() {
            ErrorKind::NoResponders => false,
            ErrorKind::Remote(remote) => remote.code == crate::RpcError::BUSY,
            _ => error.is_temporary() && (call.idempotent || !error.may_have_executed()),
        }
    }
}

impl Layer for Retry {
    fn layer(&self, inner: Arc<dyn Handler>) -> Arc<dyn Handler> {
        Arc::new(Repeated { rule: *self, inner })
    }
}

#[async_trait]
impl Handler for Repeated {
    async fn call(&self, call: Call) -> Outcome {
        let mut attempt = 1;
        loop {
            let outcome = self.inner.call(call.clone()).await;
            let rest = self.rule.backoff.after(attempt);
            match outcome {
                Err(error)
                    if attempt < self.rule.attempts
                        && self.rule.may_repeat(&call, &error)
                        && call.deadline.is_none_or(|deadline| Instant::now() + rest < deadline) =>
                {
                    tracing::debug!(key = %call.key, attempt, %error, "call is sent again");
                    attempt += 1;
                    sleep(rest).await;
                }
                outcome => return outcome,
            }
        }
    }
}
