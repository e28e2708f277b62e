//! A listener that leaves while others are told.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listeners_that_leave_let_no_event_come_twice_to_others() -> Outcome {
    const ROUNDS: usize = 12;
    const EVENTS: usize = 20;
    let (server, patterns) = (shared().await?, || patterns(&["t.#", "*.x", "t.x"]));
    let uri = server.uri();
    // Several at a time, so that the broker is busy when a queue goes.
    let all = (0..12).map(|_| {
        let uri = uri.clone();
        async move {
            let exchange = exchange();
            let (here, there) = (connect(&uri, &exchange).await?, connect(&uri, &exchange).await?);
            let mut kept = there.subscribe(Source::Durable(Token::new("d")?, patterns()), 64).await?;
            for _ in 0..ROUNDS {
                let listener = here.subscribe(Source::Topic(patterns()), 4).await?;
                drop(listener);
                for _ in 0..EVENTS {
                    there.publish(event("told")).await?;
                }
                for _ in 0..EVENTS {
                    next(&mut kept).await.ack().await?;
                }
            }
            here.publish(event("end")).await?;
            assert_eq!(body(&next(&mut kept).await), "end", "an event came twice");
            here.close().await?;
            there.close().await?;
            Outcome::Ok(())
        }
    });
    futures_util::future::try_join_all(all).await?;
    Ok(())
}
