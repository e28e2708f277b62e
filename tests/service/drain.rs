//! How a service ends.

use std::{sync::Arc, time::Duration};

use commissaire::{Client, Context, Drained, ErrorKind, Service};
use tokio::sync::Semaphore;

use super::{Act, Named, Work, memory};

#[tokio::test(start_paused = true)]
async fn what_was_begun_is_finished_and_nothing_new_is_taken() {
    let bus = memory().await;
    let begun = Arc::new(Semaphore::new(0));
    let running = Service::new("calc", begun.clone())
        .method(Act, async |begun: Arc<Semaphore>, named: Named, _: Context| {
            begun.add_permits(1);
            tokio::time::sleep(Duration::from_secs(2)).await;
            Ok(named.name)
        })
        .start(bus.clone())
        .await
        .unwrap();
    let client = Client::new(bus);
    let call = tokio::spawn({
        let client = client.clone();
        async move { client.call(Act, &Named { name: "begun".into() }).await }
    });
    begun.acquire().await.unwrap().forget();
    let drained = tokio::spawn(running.drain(Duration::from_secs(5)));
    tokio::time::sleep(Duration::from_millis(10)).await;
    let refused = client.call(Act, &Named { name: "new".into() }).await.unwrap_err();
    assert_eq!(refused.kind(), &ErrorKind::NoResponders);
    assert_eq!(call.await.unwrap().unwrap(), "begun");
    assert_eq!(drained.await.unwrap(), Drained { cut_off: 0 });
}

#[tokio::test(start_paused = true)]
async fn the_grace_time_is_kept_and_jobs_that_were_cut_off_come_again() {
    let bus = memory().await;
    let begun = Arc::new(Semaphore::new(0));
    let service = || {
        Service::new("worker", begun.clone()).job(
            Work,
            async |begun: Arc<Semaphore>, _: Named, context: Context| {
                assert_eq!(context.attempt, 1, "a run that was cut off is no failed run");
                begun.add_permits(1);
                tokio::time::sleep(Duration::from_secs(60)).await;
                Ok(())
            },
        )
    };
    let running = service().start(bus.clone()).await.unwrap();
    Client::new(bus.clone()).enqueue(Work, &Named { name: "long".into() }).await.unwrap();
    begun.acquire().await.unwrap().forget();
    let started = tokio::time::Instant::now();
    let drained = running.drain(Duration::from_secs(3)).await;
    assert!(drained.cut_off > 0);
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    let _again = service().start(bus).await.unwrap();
    begun.acquire().await.unwrap().forget();
}
