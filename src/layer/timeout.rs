//! A time limit on each call.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::time::timeout_at;

use crate::{
    error::Error,
    handler::{Call, Handler, Layer, Outcome},
    time::from_now,
};

/// Ends each call after so long at the latest; a call that has an earlier deadline keeps it. The call is cancelled and
/// its caller gets [`Timeout`](crate::ErrorKind::Timeout), maybe executed.
#[derive(Debug, Clone, Copy)]
pub struct Timeout(pub Duration);

struct Limited {
    limit: Duration,
    inner: Arc<dyn Handler>,
}

impl Layer for Timeout {
    fn layer(&self, inner: Arc<dyn Handler>) -> Arc<dyn Handler> {
        Arc::new(Limited { limit: self.0, inner })
    }
}

#[async_trait]
impl Handler for Limited {
    async fn call(&self, mut call: Call) -> Outcome {
        let own = from_now(self.limit);
        let until = call.deadline.map_or(own, |deadline| deadline.min(own));
        call.deadline = Some(until);
        let key = call.key.clone();
        match timeout_at(until, self.inner.call(call)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Error::timeout(format_args!("call {key}"), self.limit).maybe_executed()),
        }
    }
}
