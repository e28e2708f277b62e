//! Layers, with no bus at all.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use commissaire::{
    Actor, Call, Error, ErrorKind, Handler, Layer, Metrics, Outcome, RpcError, Trace,
    layer::{Limit, Metered, Retry, Timeout, Traced},
};
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::key;

/// Fails so often, then answers after a while.
struct Flaky {
    calls: AtomicU32,
    failures: u32,
    error: fn() -> Error,
    takes: Duration,
}

#[async_trait]
impl Handler for Flaky {
    async fn call(&self, _: Call) -> Outcome {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(self.takes).await;
        if call < self.failures { Err((self.error)()) } else { Ok(RawValue::TRUE.to_owned()) }
    }
}

fn flaky(failures: u32, error: fn() -> Error, takes: Duration) -> Arc<Flaky> {
    Arc::new(Flaky { calls: AtomicU32::new(0), failures, error, takes })
}

fn call(idempotent: bool, within: Duration) -> Call {
    let deadline = Some(Instant::now() + within);
    let (key, actor, trace) = (key("calc.act"), Actor::default(), Trace::start());
    Call { key, params: None, deadline, idempotent, attempt: 1, actor, trace }
}

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn only_what_may_be_repeated_is_repeated() {
    let lost: fn() -> Error = || Error::unavailable("lost").maybe_executed();
    let unsent: fn() -> Error = || Error::unavailable("not sent");
    let busy: fn() -> Error = || RpcError::new(RpcError::BUSY, "busy").into();
    let nobody: fn() -> Error = || Error::no_responders("calc");
    let refused: fn() -> Error = || RpcError::new(RpcError::CONFLICT, "taken").into();
    for (error, idempotent, sent) in [
        (lost, true, 3),
        (lost, false, 1),
        (unsent, false, 3),
        (busy, false, 3),
        (nobody, true, 1),
        (refused, true, 1),
    ] {
        let inner = flaky(9, error, Duration::ZERO);
        let outcome = Retry::default().layer(inner.clone()).call(call(idempotent, MINUTE)).await;
        assert!(outcome.is_err());
        assert_eq!(inner.calls.load(Ordering::Relaxed), sent, "{:?}, idempotent: {idempotent}", error());
    }
    let inner = flaky(2, lost, Duration::ZERO);
    assert!(Retry::default().layer(inner).call(call(true, MINUTE)).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn repeating_ends_with_the_deadline() {
    let inner = flaky(9, || Error::unavailable("away"), Duration::from_millis(20));
    let layer = Retry { attempts: 1000, ..Retry::default() };
    let started = Instant::now();
    assert!(layer.layer(inner).call(call(true, Duration::from_millis(200))).await.is_err());
    assert!(started.elapsed() <= Duration::from_millis(220), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_timeout_ends_the_call() {
    let inner = flaky(0, || Error::unavailable("never"), MINUTE);
    let started = Instant::now();
    let error = Timeout(Duration::from_millis(100)).layer(inner).call(call(true, MINUTE)).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Timeout);
    assert!(error.may_have_executed());
    assert!(started.elapsed() < Duration::from_millis(150));
}

#[tokio::test(start_paused = true)]
async fn a_limit_lets_others_wait_their_turn_and_says_busy_at_the_deadline() {
    let inner = flaky(0, || Error::unavailable("never"), Duration::from_millis(100));
    let limited = Limit::new(2).layer(inner.clone());
    let started = Instant::now();
    let calls = (0..4).map(|_| limited.call(call(true, MINUTE)));
    assert!(futures_util::future::join_all(calls).await.iter().all(Result::is_ok));
    assert_eq!(started.elapsed().as_millis(), 200);
    let calls = (0..3).map(|_| limited.call(call(true, Duration::from_millis(50))));
    let outcomes = futures_util::future::join_all(calls).await;
    let busy: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).collect();
    assert_eq!(busy.len(), 1);
    assert_eq!(busy[0].kind(), &ErrorKind::Busy);
    assert!(!busy[0].may_have_executed());
    assert_eq!(inner.calls.load(Ordering::Relaxed), 6);
}

#[tokio::test]
async fn calls_are_counted_by_method_and_outcome() {
    let metrics = Metrics::default();
    let inner = flaky(1, || Error::unavailable("once"), Duration::ZERO);
    let counted = Traced.layer(Metered(metrics.clone()).layer(inner));
    let _ = counted.call(call(true, MINUTE)).await;
    let _ = counted.call(call(true, MINUTE)).await;
    let text = metrics.render();
    for line in [
        r#"commissaire_calls_total{method="calc.act",outcome="ok"} 1"#,
        r#"commissaire_calls_total{method="calc.act",outcome="unavailable"} 1"#,
        r#"commissaire_call_seconds_count{method="calc.act"} 2"#,
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}
