//! The scenarios, by what they are about. Each is an async function over a [`Stage`](super::Stage).

pub(crate) mod calling;
pub(crate) mod carrying;
pub(crate) mod durable;
pub(crate) mod fanout;
pub(crate) mod leaving;
pub(crate) mod ledger;
pub(crate) mod operating;
pub(crate) mod queues;
pub(crate) mod redriving;
pub(crate) mod replying;
pub(crate) mod settling;
pub(crate) mod stress;

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicUsize, Ordering},
};

use futures_util::future::try_join_all;
use tokio_util::sync::CancellationToken;

use super::{
    reader::Reader,
    target::body,
    wait::{Outcome, ensure},
};
use crate::{
    address::Address,
    message::{Message, header},
};

/// Checks that `got` is `sent`: address, headers in any order, body. `added` are headers that may have been added.
fn same(sent: &Message, got: &Message, added: &[&str]) -> Outcome {
    let at = sent.address();
    ensure!(got.address() == at, "what was sent to {at} came as one to {}", got.address());
    let headers = |message: &Message| -> BTreeMap<String, String> {
        let all = message.headers().iter().filter(|(name, _)| !added.contains(name) && *name != header::TTL);
        all.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    };
    let (mut want, mut have) = (headers(sent), headers(got));
    // What differs is enough to be shown.
    let all = want.clone();
    want.retain(|name, value| have.get(name) != Some(value));
    have.retain(|name, value| all.get(name) != Some(value));
    ensure!(
        want.is_empty() && have.is_empty(),
        "headers of a message to {at} were {want:?} and came as {have:?}"
    );
    // The time to live is what remains of it; a call that has none may be given one.
    let remains = match (at, sent.ttl(), got.ttl()) {
        (_, Some(sent), Some(left)) => left <= sent,
        (Address::Service(_), None, Some(_)) | (_, None, None) => true,
        _ => false,
    };
    ensure!(
        remains,
        "the time to live of a message to {at} was {:?} and came as {:?}",
        sent.ttl(),
        got.ttl()
    );
    ensure!(
        sent.body() == got.body(),
        "a body of {} bytes to {at} came as other {} bytes",
        sent.body().len(),
        got.body().len()
    );
    Ok(())
}

/// Checks that `got` has each of the texts `0` to `count - 1` once.
fn each_once(what: &str, count: usize, got: impl IntoIterator<Item = String>) -> Outcome {
    let mut times = vec![0_u32; count];
    for text in got {
        let number: usize = text.parse().unwrap_or(usize::MAX);
        match times.get_mut(number) {
            Some(times) => *times += 1,
            None => ensure!(false, "{what}: {text:?} came and was never sent"),
        }
    }
    let lost = times.iter().filter(|times| **times == 0).count();
    let again = times.iter().filter(|times| **times > 1).count();
    ensure!(lost + again == 0, "{what}: of {count}, {lost} never came and {again} came more than once");
    Ok(())
}

/// Reads with all of `readers` at once until `total` messages have been acknowledged; what each reader got.
async fn share_out(readers: &mut [Reader], total: usize) -> Outcome<Vec<Vec<String>>> {
    let (count, enough) = (AtomicUsize::new(0), CancellationToken::new());
    try_join_all(readers.iter_mut().map(async |reader| {
        let mut got = Vec::new();
        loop {
            let delivery = tokio::select! {
                biased;
                () = enough.cancelled() => return Ok(got),
                delivery = reader.next() => delivery?,
            };
            got.push(body(delivery.message()));
            delivery.ack().await?;
            if count.fetch_add(1, Ordering::Relaxed) + 1 >= total {
                enough.cancel();
            }
        }
    }))
    .await
}
