//! The broker is killed and stopped under load, again and again: nothing that was acknowledged is lost.

use std::time::Duration;

use commissaire_integration::{Blow, Kind, Outcome, Plan, Site, alone, ensure, long, seed, times};

async fn strike(kind: Kind, blow: Blow) -> Outcome {
    let _alone = alone().await;
    let (messages, blows) = long("messages and blows", (10_000, 3), (100_000, 10));
    let times = times()?;
    let plan = Plan {
        messages: messages * times as u64,
        publishers: 64,
        rest: Duration::ZERO,
        workers: 8,
        callers: 0,
        ..Plan::of(seed()?, vec![blow; blows * times])
    };
    let report = plan.run(&mut Site::alone(kind).await?).await?;
    println!("{}", serde_json::to_string(&report).unwrap_or_default());
    ensure!(report.well(), "{report:?}");
    Ok(())
}

/// Makes the two tests for a kind of broker.
macro_rules! struck {
    ($($bus:ident: $kind:ident),+) => {$(
        mod $bus {
            use super::{Blow, Kind, Outcome, strike};

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn killed_under_load() -> Outcome {
                strike(Kind::$kind, Blow::Kill).await
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn stopped_under_load() -> Outcome {
                strike(Kind::$kind, Blow::Stop(5)).await
            }
        }
    )+};
}

struck!(redis: Redis, nats: Nats, amqp: Amqp);
