//! A service at work, and how it ends.

use std::{future::Future, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;

// Named by the module around it, so that `integration/loom` can try all ways in which threads meet here.
use super::{CancellationToken, Delivery, TaskTracker, timeout};
use crate::{
    metrics::Metrics,
    subscription::{Consuming, Received, Subscription},
};

/// A service that has been started. It works until it is [drained](Self::drain); dropping it ends it at once.
#[derive(Debug)]
#[must_use = "a service that is dropped ends"]
pub struct Running {
    name: &'static str,
    metrics: Metrics,
    sources: Vec<(String, Consuming)>,
    tasks: TaskTracker,
    stop: CancellationToken,
    abort: CancellationToken,
}

/// How a service ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// How many calls, jobs and listeners were cut off at the end of the grace time. Jobs among them come again.
    pub cut_off: usize,
}

impl Running {
    pub(super) fn new(name: &'static str, metrics: Metrics) -> Self {
        Self {
            name,
            metrics,
            sources: Vec::new(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            abort: CancellationToken::new(),
        }
    }

    /// What the service is called.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Whether the broker hands messages to every subscription of the service now. Also brings the gauges up to date.
    pub fn is_consuming(&self) -> bool {
        let mut all = true;
        for (source, consuming) in &self.sources {
            self.metrics.set_consuming(source, consuming.get());
            all &= consuming.get();
        }
        all
    }

    /// Takes nothing new, finishes what was begun within `grace`, and ends.
    pub async fn drain(self, grace: Duration) -> Drained {
        self.stop.cancel();
        self.tasks.close();
        let in_time = timeout(grace, self.tasks.wait()).await.is_ok();
        let cut_off = if in_time { 0 } else { self.tasks.len() };
        self.abort.cancel();
        self.tasks.wait().await;
        if cut_off > 0 {
            tracing::warn!(
                service = self.name,
                cut_off,
                ?grace,
                "work was cut off at the end of the grace time"
            );
        }
        Drained { cut_off }
    }

    /// Runs `listen` over `subscription`, which is closed when the service is to stop.
    pub(super) fn spawn<L>(&mut self, subscription: Subscription, source: String, listen: L)
    where
        L: FnOnce(Subscription) -> BoxFuture<'static, ()>,
    {
        self.sources.push((source, subscription.consuming()));
        let closer = subscription.closer();
        let listening = listen(subscription);
        let (stop, abort) = (self.stop.clone(), self.abort.clone());
        self.tasks.spawn(async move {
            tokio::pin!(listening);
            tokio::select! {
                biased;
                () = stop.cancelled() => closer.cancel(),
                () = &mut listening => return,
            }
            tokio::select! {
                biased;
                () = abort.cancelled() => {}
                () = listening => {}
            }
        });
    }

    /// Works each delivery of `subscription` in a task of its own.
    pub(super) fn serve<W, R>(&mut self, subscription: Subscription, source: String, work: W)
    where
        W: Fn(Delivery) -> R + Send + Sync + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        let (tasks, abort, work) = (self.tasks.clone(), self.abort.clone(), Arc::new(work));
        self.spawn(subscription, source, move |mut subscription| {
            Box::pin(async move {
                while let Some(received) = subscription.next().await {
                    let Received::Delivery(delivery) = received else { continue };
                    let (work, abort) = (work.clone(), abort.clone());
                    tasks.spawn(async move {
                        // The end first: what was not begun by then is not begun.
                        tokio::select! {
                            biased;
                            () = abort.cancelled() => {}
                            () = work(delivery) => {}
                        }
                    });
                }
            })
        });
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.abort.cancel();
        self.stop.cancel();
    }
}
