//! Calls by contract.

use std::{sync::Arc, time::Duration};

use commissaire::{Client, Context, ErrorKind, RpcError, Service};
use tokio::time::Instant;

use super::{Act, Add, Named, Sum, key, memory};

#[tokio::test]
async fn a_call_returns_what_the_handler_returns() {
    let bus = memory().await;
    let _running = Service::new("calc", 10_i64)
        .method(Add, async |base: Arc<i64>, sum: Sum, _: Context| Ok(*base + sum.x + sum.y))
        .start(bus.clone())
        .await
        .unwrap();
    assert_eq!(Client::new(bus).call(Add, &Sum { x: 1, y: 2 }).await.unwrap(), 13);
}

#[tokio::test]
async fn a_call_to_nobody_says_so_at_once() {
    let bus = memory().await;
    let started = Instant::now();
    let error = Client::new(bus).call(Add, &Sum { x: 1, y: 2 }).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::NoResponders);
    assert!(!error.may_have_executed());
    assert!(started.elapsed() < Duration::from_millis(250), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_deadline_ends_the_call_and_says_maybe_executed() {
    let bus = memory().await;
    let _running = Service::new("calc", ())
        .method(Act, async |_, _: Named, _: Context| std::future::pending::<Result<String, RpcError>>().await)
        .start(bus.clone())
        .await
        .unwrap();
    let client = Client::new(bus).with_timeout(Duration::from_millis(200));
    let started = Instant::now();
    let error = client.call(Act, &Named { name: "x".into() }).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Timeout);
    assert!(error.may_have_executed());
    let took = started.elapsed();
    assert!((200..=250).contains(&took.as_millis()), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_deadline_shrinks_over_hops() {
    let bus = memory().await;
    let seen = Arc::new(std::sync::Mutex::new(None));
    let inner = Service::new("calc", seen.clone())
        .method(Add, async |seen: Arc<std::sync::Mutex<Option<Duration>>>, sum: Sum, context: Context| {
            *seen.lock().unwrap() = context.deadline.map(|deadline| deadline - Instant::now());
            Ok(sum.x)
        })
        .start(bus.clone())
        .await
        .unwrap();
    commissaire::method! { Outer = "outer.act": Named => i64 }
    let outer = Service::new("outer", ())
        .method(Outer, async |_, _: Named, context: Context| {
            tokio::time::sleep(Duration::from_millis(300)).await;
            // Its own time limit is longer than what is left.
            let client = context.client.clone().with_timeout(Duration::from_secs(60));
            Ok(client.call(Add, &Sum { x: 1, y: 0 }).await?)
        })
        .start(bus.clone())
        .await
        .unwrap();
    let client = Client::new(bus).with_timeout(Duration::from_secs(1));
    client.call(Outer, &Named { name: "x".into() }).await.unwrap();
    let left = seen.lock().unwrap().expect("a deadline");
    assert!((600..=702).contains(&left.as_millis()), "{left:?}");
    drop((inner, outer));
}

#[tokio::test]
async fn an_error_of_a_callee_travels_through_a_caller_that_serves() {
    commissaire::method! { Outer = "outer.act": Named => String }
    let bus = memory().await;
    let _inner = Service::new("calc", ())
        .method(Act, async |_, _: Named, _: Context| {
            Err(RpcError::new(RpcError::STORAGE_LOOKUP, "no such record"))
        })
        .start(bus.clone())
        .await
        .unwrap();
    let _outer = Service::new("outer", ())
        .method(Outer, async |_, named: Named, context: Context| Ok(context.client.call(Act, &named).await?))
        .start(bus.clone())
        .await
        .unwrap();
    let error = Client::new(bus).call(Outer, &Named { name: "x".into() }).await.unwrap_err();
    assert_eq!(error.remote(), Some(&RpcError::new(RpcError::STORAGE_LOOKUP, "no such record")));
}

#[tokio::test]
async fn a_missing_callee_is_unavailable_to_the_callers_caller_without_inner_names() {
    commissaire::method! { Outer = "outer.act": Named => String }
    let bus = memory().await;
    let _outer = Service::new("outer", ())
        .method(Outer, async |_, named: Named, context: Context| Ok(context.client.call(Act, &named).await?))
        .start(bus.clone())
        .await
        .unwrap();
    let error = Client::new(bus).call(Outer, &Named { name: "x".into() }).await.unwrap_err();
    let remote = error.remote().expect("an answer");
    assert_eq!(remote.code, RpcError::UNAVAILABLE);
    assert_eq!(remote.data.as_ref().unwrap()["kind"], "no_responders");
    assert!(!remote.message.contains("calc"), "{remote}");
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_a_named_error() {
    let bus = memory().await;
    let _running = Service::new("calc", ())
        .method(Act, async |_, _: Named, _: Context| Ok("x".repeat(commissaire::MAX_MESSAGE)))
        .start(bus.clone())
        .await
        .unwrap();
    let error = Client::new(bus).call(Act, &Named { name: "x".into() }).await.unwrap_err();
    assert_eq!(error.remote().map(|remote| remote.code), Some(RpcError::TOO_LARGE), "{error}");
}

#[tokio::test]
async fn what_every_service_would_refuse_is_refused_before_the_wire() {
    let bus = memory().await;
    let client = Client::new(bus);
    let raw = |json: String| Some(serde_json::value::RawValue::from_string(json).unwrap());
    // Nobody answers: had it reached the wire, it would be another kind.
    for json in [
        format!("[{}]", "1".repeat(2 << 20)),
        format!("{}{}", "[".repeat(100), "]".repeat(100)),
        r#"{"a":1,"a":2}"#.into(),
        "5".into(),
    ] {
        let error = client.call_raw(key("calc.add"), raw(json)).await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Invalid | ErrorKind::TooLarge), "{error:?}");
        assert!(!error.may_have_executed());
    }
    let error = client.call_raw(key("lonely"), None).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Invalid);
}

#[tokio::test]
async fn a_million_bytes_pass() {
    let bus = memory().await;
    let _running = Service::new("calc", ())
        .method(Act, async |_, named: Named, _: Context| Ok(named.name))
        .start(bus.clone())
        .await
        .unwrap();
    let name = "n".repeat(1_000_000);
    assert_eq!(Client::new(bus).call(Act, &Named { name: name.clone() }).await.unwrap(), name);
}

#[tokio::test]
async fn busy_of_a_callee_never_says_that_its_caller_did_nothing() {
    commissaire::method! { Outer = "outer.act": Named => String }
    let bus = memory().await;
    let _inner = Service::new("calc", ())
        .method(Act, async |_, _: Named, _: Context| Err(RpcError::new(RpcError::BUSY, "not now")))
        .start(bus.clone())
        .await
        .unwrap();
    let _outer = Service::new("outer", ())
        .method(Outer, async |_, named: Named, context: Context| Ok(context.client.call(Act, &named).await?))
        .start(bus.clone())
        .await
        .unwrap();
    let client = Client::new(bus);
    let named = Named { name: "x".into() };
    // The callee's own word: it did nothing.
    assert!(!client.call(Act, &named).await.unwrap_err().may_have_executed());
    let error = client.call(Outer, &named).await.unwrap_err();
    assert_eq!(error.remote().map(|remote| remote.code), Some(RpcError::UNAVAILABLE));
    assert!(error.may_have_executed());
}
