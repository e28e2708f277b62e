//! The end of a service: work comes, and it is told to end.

// As in the product.
#[path = "../../../src/service/running.rs"]
mod running;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use loom::{future::block_on, thread};

pub use self::running::{Drained, Running};
use crate::{
    SOME, check,
    metrics::Metrics,
    stand_in::{CancellationToken, TaskTracker, pause, timeout},
    subscription::{Books, Delivery, Feed, Subscription, feed_one},
};

/// What handlers do. No part of what is tried: the counters are not loom's.
#[derive(Debug, Default)]
struct Work {
    begun: AtomicUsize,
    running: AtomicUsize,
}

/// A run of a handler, from its beginning until it ends or is dropped.
struct Run(Arc<Work>);

impl Run {
    fn begin(work: &Arc<Work>) -> Self {
        work.begun.fetch_add(1, Relaxed);
        work.running.fetch_add(1, Relaxed);
        Self(work.clone())
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Relaxed);
    }
}

async fn handle(work: Arc<Work>, delivery: Delivery) {
    let run = Run::begin(&work);
    pause().await;
    drop(run);
    delivery.ack().await;
}

struct Service {
    running: Running,
    feed: Feed,
    work: Arc<Work>,
    books: Arc<Books>,
}

fn start() -> Service {
    let (work, books) = (Arc::<Work>::default(), Arc::<Books>::default());
    let mut running = Running::new("modelled", Metrics::default());
    let (subscription, feed) = Subscription::new(1);
    let handled = work.clone();
    running.serve(subscription, "jobs".to_owned(), move |delivery| handle(handled.clone(), delivery));
    Service { running, feed, work, books }
}

/// What was delivered, after the service has ended.
fn ended(work: &Work, books: &Books, delivered: usize) -> usize {
    assert_eq!(work.running.load(Relaxed), 0, "a handler runs in a service that has ended");
    let (acked, given_back) = (books.acked.load(Relaxed), books.given_back.load(Relaxed));
    assert_eq!(acked + given_back, delivered, "what was taken is neither done nor given back");
    acked
}

/// With time enough, what was begun is finished, and the rest is given back.
pub fn a_drain_with_grace_finishes_what_was_begun() {
    check(SOME, || {
        let Service { running, feed, work, books } = start();
        let fed = books.clone();
        let feeding = thread::spawn(move || usize::from(feed_one(&feed, &fed, 1)));
        let drained = block_on(running.drain(Duration::MAX));
        assert_eq!(drained.cut_off, 0, "it was cut off within its grace");
        let begun = work.begun.load(Relaxed);
        assert_eq!(work.running.load(Relaxed), 0, "a handler runs in a service that has ended");
        let delivered = feeding.join().unwrap();
        assert_eq!(ended(&work, &books, delivered), begun, "what was begun is not done");
        assert_eq!(work.begun.load(Relaxed), begun, "a handler began after the end");
    });
}

/// Without any, what was begun is cut off, and given back.
pub fn a_drain_without_grace_gives_all_back() {
    check(SOME, || {
        let Service { running, feed, work, books } = start();
        let fed = books.clone();
        let feeding = thread::spawn(move || usize::from(feed_one(&feed, &fed, 1)));
        block_on(running.drain(Duration::ZERO));
        let begun = work.begun.load(Relaxed);
        assert_eq!(work.running.load(Relaxed), 0, "a handler runs in a service that has ended");
        let delivered = feeding.join().unwrap();
        ended(&work, &books, delivered);
        assert_eq!(work.begun.load(Relaxed), begun, "a handler began after the end");
    });
}

/// A service that is dropped ends by itself.
pub fn a_service_that_is_dropped_ends() {
    check(SOME, || {
        let Service { running, feed, books, .. } = start();
        assert!(feed_one(&feed, &books, 1));
        drop(running);
        // The books say in the end whether something is in hand still; a task without an end is found by loom itself.
        block_on(feed.closed());
    });
}
