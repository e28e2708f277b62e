//! Subscriptions: a feed and a consumer who both take, give back and leave as they like.

// As in the product.
#[path = "../../../src/subscription/buffer.rs"]
mod buffer;
#[path = "../../../src/subscription/ends.rs"]
mod ends;
#[path = "../../../src/subscription/place.rs"]
mod place;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use loom::{future::block_on, sync::Mutex, thread};

use self::buffer::{Buffer, End};
pub use self::{
    ends::{Consuming, Feed, Subscription},
    place::Place,
};
use crate::{
    ALL, MANY, check,
    stand_in::{AtomicWaker, CancellationToken, OwnedSemaphorePermit, Semaphore, pause},
};

type Result<T> = std::result::Result<T, ()>;

/// Something to deliver.
#[derive(Debug)]
pub struct Message;

/// What a subscription yields.
#[derive(Debug)]
#[allow(dead_code, reason = "as the product's")]
pub enum Received {
    Delivery(Delivery),
    Gap(Gap),
}

/// Messages may be missing.
#[derive(Debug)]
#[allow(dead_code, reason = "as the product's")]
pub struct Gap {
    pub reason: String,
}

/// How a delivery ends.
#[derive(Debug)]
pub enum Settlement {
    Ack,
}

/// A transport's side of a delivery.
#[async_trait::async_trait]
pub trait Settle: Send + Sync {
    async fn settle(self: Box<Self>, settlement: Settlement) -> Result<()>;
    fn release(self: Box<Self>);
}

/// A delivery, which is given back when it is dropped.
pub struct Delivery(Option<Box<dyn Settle>>);

impl Delivery {
    fn new(_: Message, _: u32, settle: Box<dyn Settle>) -> Self {
        Self(Some(settle))
    }

    /// It is done.
    pub async fn ack(mut self) {
        if let Some(settle) = self.0.take() {
            settle.settle(Settlement::Ack).await.unwrap();
        }
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if let Some(settle) = self.0.take() {
            settle.release();
        }
    }
}

impl std::fmt::Debug for Delivery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Delivery")
    }
}

/// What becomes of deliveries. No part of what is tried: the counters are not loom's.
#[derive(Debug, Default)]
pub struct Books {
    in_hand: AtomicUsize,
    pub(crate) acked: AtomicUsize,
    pub(crate) given_back: AtomicUsize,
}

impl Drop for Books {
    fn drop(&mut self) {
        let in_hand = *self.in_hand.get_mut();
        assert!(in_hand == 0 || std::thread::panicking(), "{in_hand} is in hand of nobody");
    }
}

/// A transport's side of one of them: given back unless it is settled.
struct Letter(Option<Arc<Books>>);

#[async_trait::async_trait]
impl Settle for Letter {
    async fn settle(mut self: Box<Self>, Settlement::Ack: Settlement) -> Result<()> {
        // The broker is told.
        pause().await;
        if let Some(books) = self.0.take() {
            books.acked.fetch_add(1, Relaxed);
            books.in_hand.fetch_sub(1, Relaxed);
        }
        Ok(())
    }

    fn release(self: Box<Self>) {}
}

impl Drop for Letter {
    fn drop(&mut self) {
        if let Some(books) = self.0.take() {
            books.given_back.fetch_add(1, Relaxed);
            books.in_hand.fetch_sub(1, Relaxed);
        }
    }
}

/// Takes a place and hands something over; says whether the subscription was still there. Fails when more is in hand
/// than there are places.
pub(crate) fn feed_one(feed: &Feed, books: &Arc<Books>, prefetch: usize) -> bool {
    let Some(place) = block_on(feed.place()) else { return false };
    assert!(books.in_hand.fetch_add(1, Relaxed) < prefetch, "more is in hand than there are places");
    feed.deliver(place, Message, 0, Box::new(Letter(Some(books.clone()))));
    true
}

/// Whether as many places are free as there ever were.
fn all_places_are_free(feed: &Feed, prefetch: usize) -> bool {
    let places: Vec<_> = (0..prefetch).map_while(|_| feed.try_place()).collect();
    places.len() == prefetch && feed.try_place().is_none()
}

/// However fast the feed is, never is more in hand than there are places; and each is free again in the end.
pub fn no_more_is_in_hand_than_there_are_places() {
    check(MANY, || {
        let (mut subscription, feed) = Subscription::new(1);
        let books = Arc::new(Books::default());
        let fed = books.clone();
        let feeding = thread::spawn(move || {
            assert!(feed_one(&feed, &fed, 1));
            assert!(feed_one(&feed, &fed, 1));
            feed
        });
        let Some(one) = block_on(subscription.next_delivery()) else { panic!("it ended") };
        block_on(one.ack());
        drop(block_on(subscription.next_delivery()));
        let feed = feeding.join().unwrap();
        assert_eq!((books.acked.load(Relaxed), books.given_back.load(Relaxed)), (1, 1));
        assert!(all_places_are_free(&feed, 1), "a place is lost");
    });
}

/// Two settle at one time while the feed waits for a place.
pub fn two_places_are_freed_by_two() {
    check(MANY, || {
        let (mut subscription, feed) = Subscription::new(2);
        let books = Arc::new(Books::default());
        assert!(feed_one(&feed, &books, 2) && feed_one(&feed, &books, 2));
        let (one, two) =
            block_on(async { (subscription.next_delivery().await, subscription.next_delivery().await) });
        let settling = thread::spawn(move || drop(one));
        let fed = books.clone();
        let feeding = thread::spawn(move || {
            assert!(feed_one(&feed, &fed, 2));
            feed
        });
        block_on(two.unwrap().ack());
        settling.join().unwrap();
        let feed = feeding.join().unwrap();
        drop(subscription);
        assert_eq!((books.acked.load(Relaxed), books.given_back.load(Relaxed)), (1, 2));
        assert!(all_places_are_free(&feed, 2), "a place is lost");
    });
}

/// A consumer that leaves gives all back, and a feed that waits for a place is told.
pub fn who_leaves_gives_all_back() {
    check(MANY, || {
        let (mut subscription, feed) = Subscription::new(1);
        let books = Arc::new(Books::default());
        let fed = books.clone();
        let feeding = thread::spawn(move || {
            let mut delivered = 0;
            while delivered < 2 && feed_one(&feed, &fed, 1) {
                delivered += 1;
            }
            (feed, delivered)
        });
        let taken = std::future::poll_fn(|cx| {
            // Whatever is there by chance.
            let next = std::pin::pin!(subscription.next_delivery()).poll(cx);
            std::task::Poll::Ready(match next {
                std::task::Poll::Ready(next) => next,
                std::task::Poll::Pending => None,
            })
        });
        drop(block_on(taken));
        drop(subscription);
        let (feed, delivered) = feeding.join().unwrap();
        assert_eq!(books.given_back.load(Relaxed), delivered, "something was not given back");
        assert!(feed.is_closed() && block_on(feed.place()).is_none(), "a place on what is closed");
        assert!(all_places_are_free(&feed, 1), "a place is lost");
    });
}

async fn next(buffer: &Buffer<loom::sync::Arc<u32>>) -> Option<loom::sync::Arc<u32>> {
    std::future::poll_fn(|cx| buffer.poll_pop(cx)).await
}

/// What is fed comes out in its order, however late the consumer looks.
pub fn no_item_is_lost_and_no_wake_either() {
    check(MANY, || {
        let buffer = Arc::new(Buffer::default());
        let feed = buffer.clone();
        let feeding = thread::spawn(move || {
            feed.push_unless(loom::sync::Arc::new(1), |_| false);
            feed.push_unless(loom::sync::Arc::new(2), |_| false);
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

/// What comes when nobody reads any more is dropped.
pub fn what_comes_while_the_consumer_leaves_is_released() {
    check(ALL, || {
        let buffer = Arc::new(Buffer::default());
        let item = loom::sync::Arc::new(1);
        let (feed, given) = (buffer.clone(), item.clone());
        let feeding = thread::spawn(move || {
            feed.push_unless(given, |_| false);
            feed.end(End::Feed);
        });
        drop(buffer.end(End::Consumer));
        feeding.join().unwrap();
        assert_eq!(loom::sync::Arc::strong_count(&item), 1, "it stays in a buffer that nobody reads");
        assert!(block_on(next(&buffer)).is_none());
    });
}

/// One gap says it.
pub fn gaps_never_stand_side_by_side() {
    check(ALL, || {
        let buffer = Arc::new(Buffer::default());
        let feeds: Vec<_> = [1, 2]
            .into_iter()
            .map(|_| {
                let feed = buffer.clone();
                thread::spawn(move || {
                    feed.push_unless(loom::sync::Arc::new(0), |last: &loom::sync::Arc<u32>| **last == 0);
                })
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
