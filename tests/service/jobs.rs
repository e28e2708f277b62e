//! Jobs: done at least once, tried again, buried.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use commissaire::{
    Address, Backoff, Bus, Client, Context, Message, Origin, RetryPolicy, RpcError, Service, Source, header,
};
use tokio::time::Instant;

use super::{Named, Work, key, memory};

fn quick() -> RetryPolicy {
    let backoff = Backoff { first: Duration::from_millis(100), most: Duration::from_secs(1) };
    RetryPolicy { max_attempts: 5, backoff, ..RetryPolicy::default() }
}

async fn dead(bus: &Arc<dyn Bus>) -> commissaire::Delivery {
    let source = Source::DeadLetters(Origin::Queue(key("jobs.work")));
    let mut graves = bus.subscribe(source, 1).await.unwrap();
    graves.next_delivery().await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_job_that_fails_is_tried_again_until_it_is_done() {
    let bus = memory().await;
    let runs = Arc::new(Mutex::new(Vec::new()));
    let (done, mut finished) = tokio::sync::mpsc::channel(1);
    let state = Arc::new((runs.clone(), done));
    let _running = Service::new("worker", state)
        .job(Work, async |state: Arc<(Arc<Mutex<Vec<_>>>, _)>, _: Named, context: Context| {
            state.0.lock().unwrap().push((context.attempt, Instant::now()));
            if context.attempt < 4 {
                return Err(RpcError::new(RpcError::UNAVAILABLE, "not yet"));
            }
            let done: &tokio::sync::mpsc::Sender<()> = &state.1;
            done.send(()).await.unwrap();
            Ok(())
        })
        .retry(quick())
        .start(bus.clone())
        .await
        .unwrap();
    Client::new(bus).enqueue(Work, &Named { name: "x".into() }).await.unwrap();
    finished.recv().await.unwrap();
    let runs = runs.lock().unwrap();
    assert_eq!(runs.iter().map(|(attempt, _)| *attempt).collect::<Vec<_>>(), [1, 2, 3, 4]);
    for (at, pair) in runs.windows(2).enumerate() {
        let (rest, longest) = (pair[1].1 - pair[0].1, Duration::from_millis(100 << at));
        assert!(rest >= longest / 2 && rest <= longest + Duration::from_millis(10), "rest {at}: {rest:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_that_always_fails_runs_exactly_so_often_and_is_buried() {
    let bus = memory().await;
    let runs = Arc::new(AtomicU32::new(0));
    let _running = Service::new("worker", runs.clone())
        .job(Work, async |runs: Arc<AtomicU32>, _: Named, _: Context| {
            runs.fetch_add(1, Ordering::Relaxed);
            Err(RpcError::new(RpcError::UNAVAILABLE, "never"))
        })
        .retry(quick())
        .start(bus.clone())
        .await
        .unwrap();
    let id = Client::new(bus.clone()).enqueue(Work, &Named { name: "x".into() }).await.unwrap();
    let dead = dead(&bus).await;
    let message = dead.message();
    assert_eq!(runs.load(Ordering::Relaxed), 5);
    assert_eq!(message.id(), Some(id));
    assert_eq!(message.headers().get(header::DEAD), Some("attempts"));
    assert_eq!(message.headers().get(header::ORIGIN), Some("queue jobs.work"));
    assert_eq!(message.headers().get(header::FAILED), Some("5"));
    for name in [header::FIRST_FAILURE, header::LAST_FAILURE] {
        assert!(message.headers().get(name).is_some_and(|text| text.contains("never")), "{message:?}");
    }
    assert_eq!(&message.body()[..], br#"{"jsonrpc":"2.0","method":"work","params":{"name":"x"}}"#);
}

#[tokio::test]
async fn what_is_no_job_is_buried_at_once() {
    let bus = memory().await;
    let _running = Service::new("worker", ())
        .job(Work, async |_, _: Named, _: Context| panic!("poison reached the handler"))
        .start(bus.clone())
        .await
        .unwrap();
    for body in [
        "poison",
        r#"{"jsonrpc":"2.0","method":"other","params":{"name":"x"}}"#,
        r#"{"jsonrpc":"2.0","method":"work","params":{"name":5}}"#,
        r#"{"jsonrpc":"2.0","method":"work"}"#,
        r#"[{"jsonrpc":"2.0","method":"work","params":{"name":"x"}}]"#,
    ] {
        bus.publish(Message::new(Address::Queue(key("jobs.work")), body).unwrap()).await.unwrap();
        let dead = dead(&bus).await;
        assert_eq!(dead.message().headers().get(header::DEAD), Some("rejected"), "{body}");
        assert_eq!(&dead.message().body()[..], body.as_bytes());
        dead.ack().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_whose_handler_panics_is_tried_again() {
    let bus = memory().await;
    let (done, mut finished) = tokio::sync::mpsc::channel(1);
    let _running = Service::new("worker", done)
        .job(Work, async |done: Arc<tokio::sync::mpsc::Sender<u32>>, _: Named, context: Context| {
            assert!(context.attempt > 2, "not yet");
            done.send(context.attempt).await.unwrap();
            Ok(())
        })
        .start(bus.clone())
        .await
        .unwrap();
    Client::new(bus).enqueue(Work, &Named { name: "x".into() }).await.unwrap();
    assert_eq!(finished.recv().await, Some(3));
}
