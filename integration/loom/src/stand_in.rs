//! What the product has of tokio and the standard library, in loom's terms: as simple as it can be.

use std::{
    collections::VecDeque,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use loom::{future::block_on, sync::Mutex, thread};

/// A waker in one place.
#[derive(Debug, Default)]
pub(crate) struct AtomicWaker(Mutex<Option<Waker>>);

/// As tokio's, but for the order in which waiters get permits.
#[derive(Debug)]
pub(crate) struct Semaphore(Mutex<(usize, VecDeque<Waker>)>);

#[derive(Debug)]
pub(crate) struct OwnedSemaphorePermit(Arc<Semaphore>);

/// As that of tokio-util, without children.
#[derive(Debug, Clone, Default)]
pub struct CancellationToken(Arc<Signal>);

/// As that of tokio-util: each task is a thread.
#[derive(Debug, Clone, Default)]
pub(crate) struct TaskTracker(Arc<Mutex<Tracked>>);

#[derive(Debug, Default)]
struct Tracked {
    closed: bool,
    tasks: usize,
    waiting: Vec<Waker>,
}

/// Something that happens once, and who waits for it.
#[derive(Debug, Default)]
struct Signal(Mutex<(bool, Vec<Waker>)>);

impl AtomicWaker {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn register(&self, waker: &Waker) {
        *self.0.lock().unwrap() = Some(waker.clone());
    }

    pub(crate) fn wake(&self) {
        let waker = self.0.lock().unwrap().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Semaphore {
    pub(crate) fn new(permits: usize) -> Self {
        Self(Mutex::new((permits, VecDeque::new())))
    }

    pub(crate) fn try_acquire_owned(self: Arc<Self>) -> Result<OwnedSemaphorePermit, ()> {
        let mut state = self.0.lock().unwrap();
        state.0 = state.0.checked_sub(1).ok_or(())?;
        drop(state);
        Ok(OwnedSemaphorePermit(self))
    }

    pub(crate) async fn acquire_owned(self: Arc<Self>) -> Result<OwnedSemaphorePermit, ()> {
        poll_fn(|cx| {
            let mut state = self.0.lock().unwrap();
            match state.0.checked_sub(1) {
                Some(left) => {
                    state.0 = left;
                    drop(state);
                    Poll::Ready(Ok(OwnedSemaphorePermit(self.clone())))
                }
                None => {
                    state.1.push_back(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }
}

impl Drop for OwnedSemaphorePermit {
    fn drop(&mut self) {
        let waiting = {
            let mut state = self.0.0.lock().unwrap();
            state.0 += 1;
            std::mem::take(&mut state.1)
        };
        waiting.into_iter().for_each(Waker::wake);
    }
}

impl Signal {
    fn set(&self) {
        let waiting = {
            let mut state = self.0.lock().unwrap();
            state.0 = true;
            std::mem::take(&mut state.1)
        };
        waiting.into_iter().for_each(Waker::wake);
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.0.lock().unwrap();
        if state.0 {
            return Poll::Ready(());
        }
        state.1.push(cx.waker().clone());
        Poll::Pending
    }
}

impl CancellationToken {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn cancel(&self) {
        self.0.set();
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.0.0.lock().unwrap().0
    }

    pub(crate) async fn cancelled(&self) {
        poll_fn(|cx| self.0.poll(cx)).await;
    }
}

impl TaskTracker {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn close(&self) {
        self.0.lock().unwrap().closed = true;
        self.wake();
    }

    pub(crate) fn len(&self) -> usize {
        self.0.lock().unwrap().tasks
    }

    pub(crate) async fn wait(&self) {
        poll_fn(|cx| {
            let mut tracked = self.0.lock().unwrap();
            if tracked.closed && tracked.tasks == 0 {
                return Poll::Ready(());
            }
            tracked.waiting.push(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.0.lock().unwrap().tasks += 1;
        let tracker = self.clone();
        thread::spawn(move || {
            block_on(task);
            tracker.0.lock().unwrap().tasks -= 1;
            tracker.wake();
        });
    }

    fn wake(&self) {
        let waiting = std::mem::take(&mut self.0.lock().unwrap().waiting);
        waiting.into_iter().for_each(Waker::wake);
    }
}

/// The time was over first.
#[derive(Debug)]
pub(crate) struct Elapsed;

/// Some time or none: whoever waits is late at once, or never. When that is, is for loom to try.
pub(crate) async fn timeout<T>(limit: Duration, waited: impl Future<Output = T>) -> Result<T, Elapsed> {
    let mut waited = pin!(waited);
    poll_fn(|cx| match waited.as_mut().poll(cx) {
        Poll::Ready(done) => Poll::Ready(Ok(done)),
        Poll::Pending if limit.is_zero() => Poll::Ready(Err(Elapsed)),
        Poll::Pending => Poll::Pending,
    })
    .await
}

/// An await at which others go on.
pub(crate) async fn pause() {
    let mut paused = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut paused, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// As tokio's.
pub(crate) mod oneshot {
    use super::*;

    #[derive(Debug)]
    pub(crate) struct Sender<T>(Option<Arc<Mutex<Slot<T>>>>);

    #[derive(Debug)]
    pub(crate) struct Receiver<T>(Arc<Mutex<Slot<T>>>);

    #[derive(Debug)]
    struct Slot<T> {
        value: Option<T>,
        sender: bool,
        receiver: bool,
        waker: Option<Waker>,
    }

    pub(crate) fn channel<T>() -> (Sender<T>, Receiver<T>) {
        let slot = Slot { value: None, sender: true, receiver: true, waker: None };
        let slot = Arc::new(Mutex::new(slot));
        (Sender(Some(slot.clone())), Receiver(slot))
    }

    impl<T> Sender<T> {
        pub(crate) fn send(mut self, value: T) -> Result<(), T> {
            let Some(slot) = self.0.take() else { return Err(value) };
            finish(&slot, Some(value)).map_or(Ok(()), Err)
        }
    }

    impl<T> Drop for Sender<T> {
        fn drop(&mut self) {
            if let Some(slot) = self.0.take() {
                finish(&slot, None);
            }
        }
    }

    /// Gives back a value that nobody takes any more.
    fn finish<T>(slot: &Mutex<Slot<T>>, value: Option<T>) -> Option<T> {
        let mut slot = slot.lock().unwrap();
        slot.sender = false;
        if !slot.receiver {
            return value;
        }
        slot.value = value;
        let waker = slot.waker.take();
        drop(slot);
        if let Some(waker) = waker {
            waker.wake();
        }
        None
    }

    impl<T> Future for Receiver<T> {
        type Output = Result<T, ()>;

        fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
            let mut slot = self.0.lock().unwrap();
            match slot.value.take() {
                Some(value) => Poll::Ready(Ok(value)),
                None if !slot.sender => Poll::Ready(Err(())),
                None => {
                    slot.waker = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        }
    }

    impl<T> Drop for Receiver<T> {
        fn drop(&mut self) {
            self.0.lock().unwrap().receiver = false;
        }
    }
}
