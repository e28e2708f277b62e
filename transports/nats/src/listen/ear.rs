//! One subscription on the connection: begun so that the server knows of it, ended so that nothing which it had sent
//! by then is lost.

use std::time::Duration;

use async_nats::{Message, Subscriber};
use commissaire::{Error, ErrorKind, Result};
use futures_util::{FutureExt, StreamExt};
use tokio::{task::unconstrained, time::Instant};

use crate::{fault::Fault, link::Link};

/// A limit of messages that the server cannot read, so that it ends the subscription at once, while the library, which
/// counts to it, hands us what is still on its way. (A plain unsubscribe makes the library forget that too: it would be
/// given to others only after its lease.)
const ENDLESS: u64 = 10_000_000_000;
/// How many messages are taken before everything else is looked at.
pub(super) const BURST: usize = 32;
/// How long ending may take.
pub(crate) const LEAVE: Duration = Duration::from_secs(3);

/// Subscribes, with others in `group` or alone.
pub(crate) async fn open(
    link: &Link,
    subject: &str,
    group: Option<&str>,
    deadline: Instant,
) -> Result<Subscriber> {
    let what = || format!("subscribing to {subject}");
    link.up(deadline).await.map_err(|fault| fault.into_error(&what()))?;
    let subscribed = match group {
        None => link.client().subscribe(subject.to_owned()).await,
        Some(group) => link.client().queue_subscribe(subject.to_owned(), group.to_owned()).await,
    };
    let subscriber =
        subscribed.map_err(|_| Error::new(ErrorKind::Closed, format!("{}: the bus is closed", what())))?;
    known(link, subject, deadline).await.map_err(|fault| fault.into_error(&what()))?;
    Ok(subscriber)
}

/// Waits until the server knows of all that was subscribed, and has allowed `subject`. Returns the generation of which that holds.
pub(crate) async fn known(link: &Link, subject: &str, deadline: Instant) -> Result<u64, Fault> {
    loop {
        match link.settled(deadline).await {
            Ok(_) if link.is_refused(subject) => {
                return Err(Fault::Forbidden(format!("subscribe to {subject}")));
            }
            Ok(generation) => return Ok(generation),
            // The connection was made again, and the subscription with it.
            Err(Fault::Lost) => {}
            Err(fault) => return Err(fault),
        }
    }
}

/// Unsubscribes, and returns what the server had sent by then; `between` is done once the server sends no more.
pub(crate) async fn shut(
    link: &Link,
    subscriber: &mut Subscriber,
    between: impl Future<Output = ()>,
) -> Vec<Message> {
    if subscriber.unsubscribe_after(ENDLESS).await.is_ok() {
        between.await;
        // Without a connection nothing more can come.
        let _ = link.echo(Instant::now() + LEAVE).await;
    }
    let mut left = Vec::new();
    while let Some(message) = here(subscriber) {
        left.push(message);
    }
    let _ = subscriber.unsubscribe().await;
    left
}

/// The next message, if it is here already: whatever this task has done without a pause, which would make the runtime
/// say that there is none.
pub(super) fn here(subscriber: &mut Subscriber) -> Option<Message> {
    unconstrained(subscriber.next()).now_or_never().flatten()
}
