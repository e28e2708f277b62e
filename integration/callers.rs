//! Callers and a service that answers them, with a history of what each call came to.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use commissaire::{
    Bus, Client, Context, RpcError, Running, Service,
    testkit::{History, Outcome, Seen, within},
};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use crate::PATIENCE;

/// How long a call waits for its answer.
const LIMIT: Duration = Duration::from_secs(2);
/// How long a caller rests between two calls.
const REST: Duration = Duration::from_millis(20);

/// A number to be said again.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Number {
    n: u64,
}

commissaire::method! {
    /// Says a number again.
    pub(crate) Say = "echo.say": Number => u64
}

/// Where the service notes what it carries out.
struct Notes(Arc<History>);

/// Calls under way. Dropped, they end at once.
pub(crate) struct Callers {
    over: Arc<AtomicBool>,
    calling: JoinSet<()>,
    service: Running,
}

impl Callers {
    /// Begins to call from `asking` to a service on `answering`, `count` calls at one time.
    pub(crate) async fn start(
        count: u32,
        asking: &Arc<dyn Bus>,
        answering: &Arc<dyn Bus>,
        history: &Arc<History>,
    ) -> Outcome<Self> {
        let service =
            Service::new("echo", Notes(history.clone())).method(Say, say).start(answering.clone()).await?;
        let (over, next) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let client = Client::new(asking.clone()).with_timeout(LIMIT);
        let mut calling = JoinSet::new();
        for _ in 0..count {
            calling.spawn(call(client.clone(), next.clone(), over.clone(), history.clone()));
        }
        Ok(Self { over, calling, service })
    }

    /// Lets the last calls end.
    pub(crate) async fn stop(self) -> Outcome {
        self.over.store(true, Ordering::Release);
        within("the last calls", PATIENCE, self.calling.join_all()).await?;
        self.service.drain(LIMIT).await;
        Ok(())
    }
}

async fn say(notes: Arc<Notes>, number: Number, _: Context) -> Result<u64, RpcError> {
    notes.0.note(Seen::Executed { n: number.n, by: 0 });
    Ok(number.n)
}

async fn call(client: Client, next: Arc<AtomicU64>, over: Arc<AtomicBool>, history: Arc<History>) {
    while !over.load(Ordering::Acquire) {
        let n = next.fetch_add(1, Ordering::Relaxed);
        history.note(Seen::Call { n, limit: LIMIT.as_micros() as u64 });
        history.note(match client.call(Say, &Number { n }).await {
            Ok(said) if said == n => Seen::Answered { n },
            Ok(_) => Seen::Foreign { by: 0 },
            Err(error) => Seen::Failed { n, maybe: error.may_have_executed() },
        });
        tokio::time::sleep(REST).await;
    }
}
