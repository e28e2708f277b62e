//! All ways in which a feed's thread and a consumer's can meet in the buffer of a subscription, tried one by one.
//!
//! Run with `cargo test --release` in this folder; it takes a second. The source of the buffer is the product's own. What
//! else threads share (the map of pending calls, the calls in flight) is one lock around one map, without waiting, and
//! channels, permits and trackers are tokio's, which tries them so itself: models of these would test the model.

#![cfg(test)]

use std::task::Waker;

use loom::{
    future::block_on,
    sync::{Arc, Mutex},
    thread,
};

#[path = "../../../src/subscription/buffer.rs"]
mod buffer;

use buffer::{Buffer, End};

/// A waker as the buffer knows it.
#[derive(Debug, Default)]
struct AtomicWaker(loom::future::AtomicWaker);

impl AtomicWaker {
    fn new() -> Self {
        Self::default()
    }

    fn register(&self, waker: &Waker) {
        self.0.register_by_ref(waker);
    }

    fn wake(&self) {
        self.0.wake();
    }
}

async fn next(buffer: &Buffer<Arc<u32>>) -> Option<Arc<u32>> {
    std::future::poll_fn(|cx| buffer.poll_pop(cx)).await
}

#[test]
fn no_item_is_lost_and_no_wake_either() {
    // All ways are too many; most that goes wrong needs fewer changes between the threads than these.
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let buffer = std::sync::Arc::new(Buffer::default());
        let feed = buffer.clone();
        let feeding = thread::spawn(move || {
            feed.push_unless(Arc::new(1), |_| false);
            feed.push_unless(Arc::new(2), |_| false);
            feed.end(End::Feed);
        });
        let read = block_on(async {
            let mut read = Vec::new();
            while let Some(item) = next(&buffer).await {
                read.push(*item);
            }
            read
        });
        assert_eq!(read, [1, 2]);
        feeding.join().unwrap();
    });
}

#[test]
fn what_comes_while_the_consumer_leaves_is_released() {
    loom::model(|| {
        let buffer = std::sync::Arc::new(Buffer::default());
        let item = Arc::new(1);
        let (feed, given) = (buffer.clone(), item.clone());
        let feeding = thread::spawn(move || {
            feed.push_unless(given, |_| false);
            feed.end(End::Feed);
        });
        drop(buffer.end(End::Consumer));
        feeding.join().unwrap();
        assert_eq!(Arc::strong_count(&item), 1, "it stays in a buffer that nobody reads");
        assert!(block_on(next(&buffer)).is_none());
    });
}

#[test]
fn gaps_never_stand_side_by_side() {
    loom::model(|| {
        let buffer = std::sync::Arc::new(Buffer::default());
        let feeds: Vec<_> = [1, 2]
            .into_iter()
            .map(|_| {
                let feed = buffer.clone();
                thread::spawn(move || feed.push_unless(Arc::new(0), |last: &Arc<u32>| **last == 0))
            })
            .collect();
        for feeding in feeds {
            feeding.join().unwrap();
        }
        buffer.end(End::Feed);
        assert_eq!(block_on(next(&buffer)).as_deref(), Some(&0));
        assert!(block_on(next(&buffer)).is_none());
    });
}
