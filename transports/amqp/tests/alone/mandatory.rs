//! Who is told what about a message that nobody wants.

use futures_util::{StreamExt, stream};

use super::*;

/// Clients are known to blame one message for another that came back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_calls_at_once_each_is_told_right_whether_somebody_answers() -> Outcome {
    const CALLS: usize = 50_000;
    let (server, exchange) = (shared().await?, exchange());
    let (here, there) = (connect(&server.uri(), &exchange).await?, connect(&server.uri(), &exchange).await?);
    let mut service = here.subscribe(Source::Service(key("here")), 500).await?;
    let taking = tokio::spawn(async move {
        let mut taken = 0;
        while let Some(call) = service.next_delivery().await {
            call.ack().await.unwrap();
            taken += 1;
        }
        taken
    });
    let wrong = stream::iter(0..CALLS)
        .map(|number| {
            let there = there.clone();
            tokio::spawn(async move {
                let nobody = number % 5 == 0;
                let to = Address::Service(key(if nobody { "nowhere.m" } else { "here.m" }));
                let call = Message::new(to, number.to_string()).unwrap().with_ttl(Duration::from_secs(60));
                match there.publish(call).await {
                    Ok(()) => nobody,
                    Err(error) => {
                        assert_eq!(*error.kind(), ErrorKind::NoResponders, "{error}");
                        assert!(!error.may_have_executed());
                        !nobody
                    }
                }
            })
        })
        .buffer_unordered(64)
        .filter(|wrong| std::future::ready(!matches!(wrong, Ok(false))))
        .count()
        .await;
    assert_eq!(wrong, 0, "of {CALLS} calls so many were told wrong");
    // All that were taken arrive: the service goes only then.
    until("all calls have arrived", LIMIT, async || {
        let survey = there.survey().await.unwrap();
        survey.declared.iter().all(|one| one.waiting == Some(0))
    })
    .await?;
    tokio::time::sleep(Duration::from_millis(300)).await;
    here.close().await?;
    assert_eq!(taking.await?, CALLS / 5 * 4);
    there.close().await?;
    Ok(())
}

#[tokio::test]
async fn jobs_to_a_queue_that_an_operator_deleted_make_it_again() -> Outcome {
    let (server, exchange) = (shared().await?, exchange());
    let bus = connect(&server.uri(), &exchange).await?;
    bus.publish(job("gone with its queue")).await?;
    server.rabbitmqctl(&["delete_queue", &format!("{exchange}.1.q.jobs.test")]).await?;
    bus.publish(job("kept")).await?;
    let mut queue = bus.subscribe(jobs(), 1).await?;
    assert_eq!(body(&next(&mut queue).await), "kept");
    bus.close().await?;
    Ok(())
}
