//! What was taken from the broker and not yet read: a queue between one feed and one consumer, either of whom may leave.

use std::{
    collections::VecDeque,
    sync::PoisonError,
    task::{Context, Poll},
};

// Named by the module around it, so that `integration/loom` can try all ways in which threads meet here.
use super::{AtomicWaker, Mutex};

/// Bounded by its users: each delivery holds a place, and two gaps never stand side by side.
#[derive(Debug)]
pub(super) struct Buffer<T> {
    state: Mutex<State<T>>,
    waker: AtomicWaker,
}

#[derive(Debug)]
struct State<T> {
    items: VecDeque<T>,
    ended: Option<End>,
}

/// Who has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Consumer,
    Feed,
}

impl<T> Default for Buffer<T> {
    fn default() -> Self {
        let state = State { items: VecDeque::new(), ended: None };
        Self { state: Mutex::new(state), waker: AtomicWaker::new() }
    }
}

impl<T> Buffer<T> {
    /// Appends `item`, unless the last is one that makes it `needless`. Dropped when the consumer is gone.
    pub(super) fn push_unless(&self, item: T, needless: impl Fn(&T) -> bool) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.ended == Some(End::Consumer) {
            drop(state);
            return; // and what was received is released, outside the lock
        }
        if !state.items.back().is_some_and(needless) {
            state.items.push_back(item);
        }
        drop(state);
        self.waker.wake();
    }

    /// The next item; `None` when there is no more and none will come.
    pub(super) fn poll_pop(&self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        self.waker.register(cx.waker());
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match (state.items.pop_front(), state.ended) {
            (Some(item), _) => Poll::Ready(Some(item)),
            (None, Some(_)) => Poll::Ready(None),
            (None, None) => Poll::Pending,
        }
    }

    /// Ends one side. When the consumer is gone, returns what it left unread.
    pub(super) fn end(&self, side: End) -> VecDeque<T> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let unread = match side {
            End::Consumer => std::mem::take(&mut state.items),
            End::Feed => VecDeque::new(),
        };
        if state.ended != Some(End::Consumer) {
            state.ended = Some(side);
        }
        drop(state);
        self.waker.wake();
        unread
    }
}
