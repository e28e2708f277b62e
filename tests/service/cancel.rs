//! Calls whose callers have gone.

use std::{sync::Arc, time::Duration};

use commissaire::{Client, Context, RpcError, Service, testkit::until};
use tokio::sync::{Notify, Semaphore};

use super::{Act, Named, memory};

struct Watch {
    begun: Semaphore,
    dropped: Notify,
}

/// Tells when the handler's future is dropped.
struct Tell(Arc<Watch>);

impl Drop for Tell {
    fn drop(&mut self) {
        self.0.dropped.notify_one();
    }
}

async fn hang(watch: Arc<Watch>, _: Named, _: Context) -> Result<String, RpcError> {
    let _tell = Tell(watch.clone());
    watch.begun.add_permits(1);
    std::future::pending().await
}

async fn hanging(concurrency: u16) -> (Arc<Watch>, commissaire::Running, Client) {
    let bus = memory().await;
    let watch = Arc::new(Watch { begun: Semaphore::new(0), dropped: Notify::new() });
    let service = Service::new("calc", watch.clone()).method(Act, hang).concurrency(concurrency);
    let running = service.start(bus.clone()).await.unwrap();
    (watch, running, Client::new(bus))
}

#[tokio::test]
async fn a_call_that_is_dropped_cancels_its_handler() {
    let (watch, _running, client) = hanging(4).await;
    let call = tokio::spawn({
        let client = client.clone();
        async move { client.call(Act, &Named { name: "x".into() }).await }
    });
    watch.begun.acquire().await.unwrap().forget();
    call.abort();
    tokio::time::timeout(Duration::from_secs(5), watch.dropped.notified())
        .await
        .expect("the handler is dropped");
}

#[tokio::test]
async fn a_call_that_waits_its_turn_is_cancelled_before_it_begins() {
    let (watch, _running, client) = hanging(1).await;
    let call = |name: &str| {
        let (client, name) = (client.clone(), name.to_owned());
        tokio::spawn(async move { client.call(Act, &Named { name }).await })
    };
    let first = call("first");
    watch.begun.acquire().await.unwrap().forget();
    let second = call("second");
    // It has been published when its answer is awaited; nothing shows that from outside but time passing in its task.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    second.abort();
    let _ = second.await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    first.abort();
    watch.dropped.notified().await;
    // A third call gets the place that the second never took.
    let third = call("third");
    watch.begun.acquire().await.unwrap().forget();
    assert_eq!(watch.begun.available_permits(), 0, "the cancelled call began");
    third.abort();
}

#[tokio::test(start_paused = true)]
async fn a_handler_is_dropped_at_the_deadline_of_its_call() {
    let (watch, _running, client) = hanging(4).await;
    let client = client.with_timeout(Duration::from_secs(2));
    let error = client.call(Act, &Named { name: "x".into() }).await.unwrap_err();
    assert!(error.may_have_executed());
    watch.dropped.notified().await;
}

#[tokio::test]
async fn a_thousand_dropped_calls_free_every_place() {
    let (watch, _running, client) = hanging(8).await;
    for round in 0..250 {
        let calls: Vec<_> = (0..4)
            .map(|n| {
                let client = client.clone();
                tokio::spawn(async move { client.call(Act, &Named { name: format!("{round} {n}") }).await })
            })
            .collect();
        tokio::task::yield_now().await;
        for call in calls {
            call.abort();
        }
    }
    // All eight places can be taken again.
    let calls: Vec<_> = (0..8)
        .map(|n| {
            let client = client.clone();
            tokio::spawn(async move { client.call(Act, &Named { name: n.to_string() }).await })
        })
        .collect();
    let before = watch.begun.available_permits();
    until("eight calls begin", Duration::from_secs(5), async || {
        watch.begun.available_permits() >= before.max(8)
    })
    .await
    .unwrap_or_else(|failure| panic!("{failure}"));
    drop(calls);
}
