//! Pending calls: answers, forgotten calls and lost connections, in any order.

// As in the product.
#[path = "../../../src/client/pending.rs"]
mod pending;

use std::{
    collections::BTreeMap as HashMap,
    sync::atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use loom::{
    future::block_on,
    sync::{Mutex, MutexGuard},
    thread,
};

use self::pending::Pending;
use crate::{MANY, check, metrics::Metrics, stand_in::oneshot};

/// No number twice; that they can be guessed does no harm here.
fn random() -> u128 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed).into()
}

/// Two calls and their answers, which come at one time.
pub fn each_call_gets_its_own_answer() {
    check(MANY, || {
        let pending = Pending::new(Metrics::default());
        let (mut one, mut two) = (pending.enter(), pending.enter());
        let answering: Vec<_> = [(one.correlation, "1"), (two.correlation, "2")]
            .into_iter()
            .map(|(correlation, body)| {
                let pending = pending.clone();
                thread::spawn(move || pending.answer(Some(correlation), Bytes::from_static(body.as_bytes())))
            })
            .collect();
        assert_eq!(block_on(two.answer()).as_deref(), Some(&b"2"[..]));
        assert_eq!(block_on(one.answer()).as_deref(), Some(&b"1"[..]));
        answering.into_iter().for_each(|answering| answering.join().unwrap());
    });
}

/// One answer that comes twice, to a call that waits: it is resolved once, and the other is counted.
pub fn an_answer_that_comes_twice_counts_once() {
    check(MANY, || {
        let metrics = Metrics::default();
        let pending = Pending::new(metrics.clone());
        let mut call = pending.enter();
        let answering: Vec<_> = [(), ()]
            .into_iter()
            .map(|()| {
                let (pending, correlation) = (pending.clone(), call.correlation);
                thread::spawn(move || pending.answer(Some(correlation), Bytes::new()))
            })
            .collect();
        assert!(block_on(call.answer()).is_some());
        answering.into_iter().for_each(|answering| answering.join().unwrap());
        assert_eq!(metrics.strays(), 1);
    });
}

/// The connection is lost while the answer comes: the call ends either way.
pub fn a_call_ends_by_its_answer_or_by_a_lost_connection() {
    check(MANY, || {
        let metrics = Metrics::default();
        let pending = Pending::new(metrics.clone());
        let mut call = pending.enter();
        let (answers, correlation) = (pending.clone(), call.correlation);
        let answering = thread::spawn(move || answers.answer(Some(correlation), Bytes::new()));
        let lost = pending.clone();
        let losing = thread::spawn(move || lost.fail_all());
        let answered = block_on(call.answer()).is_some();
        answering.join().unwrap();
        losing.join().unwrap();
        assert_eq!(metrics.strays(), usize::from(!answered), "the answer is neither taken nor counted");
    });
}

/// A caller goes away while the answer of another call comes: nothing stays in the table.
pub fn a_call_that_is_dropped_is_forgotten() {
    check(MANY, || {
        let pending = Pending::new(Metrics::default());
        let (call, mut other) = (pending.enter(), pending.enter());
        let (answers, correlation) = (pending.clone(), other.correlation);
        let answering = thread::spawn(move || answers.answer(Some(correlation), Bytes::new()));
        let dropping = thread::spawn(move || drop(call));
        assert!(block_on(other.answer()).is_some());
        answering.join().unwrap();
        dropping.join().unwrap();
        let table = format!("{pending:?}");
        assert!(table.contains("{}"), "it is in the table still: {table}");
    });
}
