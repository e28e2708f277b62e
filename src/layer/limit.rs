//! A limit on calls at one time.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep_until},
};

use crate::{
    error::{Error, ErrorKind},
    handler::{Call, Handler, Layer, Outcome},
};

/// At most so many calls at one time through all handlers that this value was put around; more wait their turn. One
/// whose deadline comes before its turn is [`Busy`](crate::ErrorKind::Busy) and was not executed.
#[derive(Debug, Clone)]
pub struct Limit(Arc<Semaphore>);

struct Limited {
    turns: Arc<Semaphore>,
    inner: Arc<dyn Handler>,
}

impl Limit {
    /// A limit of `calls`, at least 1.
    pub fn new(calls: usize) -> Self {
        Self(Arc::new(Semaphore::new(calls.clamp(1, Semaphore::MAX_PERMITS))))
    }
}

impl Layer for Limit {
    fn layer(&self, inner: Arc<dyn Handler>) -> Arc<dyn Handler> {
        Arc::new(Limited { turns: self.0.clone(), inner })
    }
}

#[async_trait]
impl Handler for Limited {
    async fn call(&self, call: Call) -> Outcome {
        let never = Instant::now() + std::time::Duration::from_secs(86_400);
        let _turn = tokio::select! {
            biased;
            turn = self.turns.acquire() => turn,
            () = sleep_until(call.deadline.unwrap_or(never)) => {
                let what = format!("call {} did not get its turn before its deadline", call.key);
                return Err(Error::new(ErrorKind::Busy, what));
            }
        };
        self.inner.call(call).await
    }
}
