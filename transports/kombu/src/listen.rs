//! Listening: each subscription reads its lists when the server says that something was written there.

use std::{
    mem,
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use commissaire::{Address, Feed, Inbox, Key, MAX_MESSAGE, Place, Source, header};
use redis::{Cmd, Pipeline};
use tokio::time::{sleep, timeout};

use crate::{
    bus::Core,
    held::{Held, Verdict},
    letter::{self, Letter},
    link::DEAF,
    replies::Owed,
    script::Script,
    tap::Tap,
    value::{bytes, int, items, two},
    wire::{Fault, Wire, no_error},
};

/// The most messages of one read.
const MOST: usize = 256;
/// How often lists are looked at of which nothing was heard.
const LOOK: Duration = Duration::from_secs(1);
/// After a fault, how long to wait before the next try.
const REST: Duration = Duration::from_millis(50);

/// Reads for `tap` until its subscription closes, then makes it known that it reads no more.
pub(crate) async fn listen(core: Arc<Core>, tap: Arc<Tap>) {
    let Some(feed) = tap.feed() else { return };
    let mut places: Vec<Place> = Vec::new();
    while !feed.is_closed() {
        if places.is_empty() {
            match feed.place().await {
                Some(place) => places.push(place),
                None => break,
            }
        }
        while places.len() < MOST
            && let Some(place) = feed.try_place()
        {
            places.push(place);
        }
        if feed.is_closed() {
            break;
        }
        let asked = places.len();
        let read = match core.main.up().await {
            Some(wire) => read(&core, &tap, &feed, &wire, &mut places).await,
            None => break,
        };
        match read {
            Ok(read) if read >= asked => continue,
            Ok(_) => {}
            Err(fault) => {
                tracing::debug!(queue = tap.queue, ?fault, "reading was put off");
                sleep(REST).await;
                continue;
            }
        }
        tokio::select! {
            () = tap.news.notified() => {}
            () = feed.closed() => break,
            () = sleep(LOOK) => tap.less_urgent.store(true, Ordering::Release),
        }
    }
    leave(&core, &tap, &feed, places).await;
    drop(feed);
    tap.end();
    core.ears.remove(&tap);
}

/// Makes it known that nobody reads here any more; calls that were accepted until then and that nobody else takes come out.
async fn leave(core: &Arc<Core>, tap: &Arc<Tap>, feed: &Arc<Feed>, mut places: Vec<Place>) {
    let Some(wire) = core.main.now() else { return };
    let Some(leaving) = tap.leaving(&core.names, wire.digests(), &core.id) else { return };
    let left = wire.ask(&leaving, Duration::from_secs(2)).await;
    if matches!(tap.source, Source::Service(_)) && left.is_ok_and(|others| int(&others) == Some(0)) {
        while let Some(place) = feed.try_place() {
            places.push(place);
        }
        let last = read(core, tap, feed, &wire, &mut places);
        let _ = timeout(Duration::from_secs(2), last).await;
    }
}

/// Reads as much as there are `places` for; how much that was.
async fn read(
    core: &Arc<Core>,
    tap: &Arc<Tap>,
    feed: &Arc<Feed>,
    wire: &Wire,
    places: &mut Vec<Place>,
) -> Result<usize, Fault> {
    if places.is_empty() {
        return Ok(0);
    }
    match &tap.source {
        Source::Inbox(inbox) => replies(core, tap, *inbox, feed, wire, places).await,
        _ if tap.is_kept() => take(core, tap, feed, wire, places).await,
        _ => pop(core, tap, feed, wire, places).await,
    }
}

/// What needs no settling: taken out, and that is all.
async fn pop(
    core: &Arc<Core>,
    tap: &Arc<Tap>,
    feed: &Arc<Feed>,
    wire: &Wire,
    places: &mut Vec<Place>,
) -> Result<usize, Fault> {
    // It takes from one list only.
    let others = tap.less_urgent.swap(false, Ordering::AcqRel);
    let mut command = redis::cmd("LMPOP");
    command.arg(tap.lists.len()).arg(&tap.lists).arg("RIGHT").arg("COUNT").arg(places.len());
    let answer = wire.ask(&command, DEAF).await?;
    let Some((_, messages)) = two(answer) else { return Ok(0) };
    let messages: Vec<Bytes> = items(messages).into_iter().filter_map(bytes).map(Bytes::from).collect();
    let found = messages.len();
    for raw in messages {
        match letter::read(&raw, &tap.source) {
            Ok(letter) => hand(core, tap, feed, letter, places),
            Err(error) => {
                tracing::warn!(queue = tap.queue, %error, "a message cannot be read and is dropped");
            }
        }
    }
    if found > 0 && others {
        tap.stir();
    }
    Ok(found)
}

/// Delivers what was popped, if it is of use here.
fn hand(core: &Arc<Core>, tap: &Arc<Tap>, feed: &Arc<Feed>, letter: Letter, places: &mut Vec<Place>) {
    let Letter { mut message, asks, until, ours, .. } = letter;
    if let Some(until) = until {
        let now = core.main.now().and_then(|wire| wire.clock()).unwrap_or(i64::MAX);
        if until <= now {
            tracing::debug!(queue = tap.queue, "a call came too late and is dropped");
            return;
        }
        message = message.with_ttl(Duration::from_millis(until.abs_diff(now)));
    }
    match &tap.source {
        // What a Kombu program sends to a key is a call if it asks for a reply; under `jobs` a job else.
        Source::Service(service) if !ours => {
            if asks.is_none() && service.as_str().starts_with("jobs.") {
                return;
            }
            if let Some((list, correlation)) = asks {
                if !letter::may_reply_to(&list) {
                    tracing::warn!(
                        queue = tap.queue,
                        "a call wants its reply where it must not go and is dropped"
                    );
                    return;
                }
                let inbox = core.replies.owe(Owed { list, correlation });
                let Ok(asking) = message.with(header::REPLY, inbox.to_string()) else { return };
                message = asking;
            }
        }
        Source::Topic(_) if !ours && asks.is_some() => return,
        _ => {}
    }
    if let Some(place) = places.pop() {
        feed.deliver_unsettled(place, message);
    }
}

/// What is in hand until it is settled: noted at the server in the same step that takes it out of its queue.
async fn take(
    core: &Arc<Core>,
    tap: &Arc<Tap>,
    feed: &Arc<Feed>,
    wire: &Wire,
    places: &mut Vec<Place>,
) -> Result<usize, Fault> {
    // While an answer is on its way, nobody takes what it says for something that was forgotten.
    let _taking = core.taking.read().await;
    let tag = core.next_tag();
    let command = taking(core, tap, wire, &tag, places.len());
    let answer = match wire.ask(&command, DEAF).await {
        Err(fault @ (Fault::Lost | Fault::Late)) => {
            core.look_back();
            return Err(fault);
        }
        answer => answer?,
    };
    let mut answer = items(answer).into_iter();
    let poisoned = answer.next().as_ref().and_then(int).unwrap_or(0);
    if poisoned > 0 {
        tracing::warn!(
            queue = tap.queue,
            count = poisoned,
            "what is no message of Kombu became dead letters"
        );
    }
    let mut taken = answer.next().map(items).unwrap_or_default().into_iter();
    let mut number = 0;
    while let (Some(list), Some(raw)) = (taken.next(), taken.next().and_then(bytes)) {
        number += 1;
        let list = int(&list).and_then(|list| usize::try_from(list - 1).ok()).unwrap_or(0);
        let list = tap.lists.get(list).unwrap_or(&tap.lists[0]).clone();
        let held = Held::new(core.clone(), tap.clone(), format!("{tag}.{number}"), list, raw.into());
        offer(tap, feed, held, places);
    }
    Ok(number + usize::try_from(poisoned).unwrap_or(0))
}

fn taking(core: &Core, tap: &Tap, wire: &Wire, tag: &str, most: usize) -> Cmd {
    let names = &core.names;
    let [unacked, index] = names.unacked();
    let origin = tap.origin();
    let (dead, to) = match &origin {
        Some(origin) => (names.dead(origin), origin_address(origin)),
        None => (String::new(), None),
    };
    // What is among the dead letters already and cannot be read is lost.
    let wrapping = origin.as_ref().zip(to).filter(|_| !matches!(tap.source, Source::DeadLetters(_)));
    let mut keys = vec![unacked, index, names.own("hand", &core.id), dead, names.own("dead", "")];
    keys.extend(tap.lists.iter().cloned());
    let mut command = Script::Take.over(wire.digests(), &keys);
    command.arg(most).arg(tag).arg(note_end(&tap.queue)).arg(&tap.queue);
    match wrapping {
        Some((origin, to)) => {
            let (before, behind) = letter::wrapping(origin, &to);
            command.arg(before).arg(behind).arg(origin.to_string())
        }
        None => command.arg("").arg("").arg(""),
    };
    command.arg(MAX_MESSAGE - 512);
    command
}

/// The end of what stands in `unacked` behind a message from `queue`: that it goes back there, and nowhere else.
pub(crate) fn note_end(queue: &str) -> String {
    format!(r#","",{}]"#, serde_json::Value::from(queue))
}

/// The address of a message of which nothing but its place is known.
pub(crate) fn origin_address(origin: &commissaire::Origin) -> Option<Address> {
    Some(match origin {
        commissaire::Origin::Queue(key) => Address::Queue(key.clone()),
        commissaire::Origin::Durable(name) => Address::Topic(Key::new(name.as_str()).ok()?),
    })
}

/// Delivers a message that was taken, or buries it, or passes it over.
fn offer(tap: &Arc<Tap>, feed: &Arc<Feed>, held: Held, places: &mut Vec<Place>) {
    match letter::read(held.raw(), &tap.source) {
        Ok(letter) if !letter.ours && letter.asks.is_some() => {
            // A call: its answer comes from the service of the same key, if there is one.
            tracing::debug!(queue = tap.queue, "a call is no job and no event");
            held.finish(Verdict::Ack);
        }
        Ok(letter) => match places.pop() {
            Some(place) => feed.deliver(place, letter.message, letter.redelivered, Box::new(held)),
            None => drop(held),
        },
        Err(error) => {
            tracing::warn!(queue = tap.queue, %error, "a message cannot be read: it becomes a dead letter");
            let origin = tap.origin();
            let message = origin
                .and_then(|origin| letter::unreadable(held.raw(), &origin, origin_address(&origin)?).ok());
            match message {
                Some(message) => held.finish(Verdict::Dead(message)),
                None => held.finish(Verdict::Ack),
            }
        }
    }
}

/// The replies that have come, in as many lists as calls were made.
async fn replies(
    core: &Arc<Core>,
    tap: &Arc<Tap>,
    inbox: Inbox,
    feed: &Arc<Feed>,
    wire: &Wire,
    places: &mut Vec<Place>,
) -> Result<usize, Fault> {
    let heard = mem::take(&mut *tap.replies.lock().unwrap_or_else(PoisonError::into_inner));
    let mut names: Vec<String> = heard.into_iter().collect();
    let later = names.split_off(names.len().min(places.len()));
    // One list has one reply, but for that of replies which name no call.
    let each = if names.len() == 1 { places.len() } else { 1 };
    let mut pipeline = Pipeline::new();
    for name in &names {
        pipeline.cmd("RPOP").arg(core.names.list(name)).arg(each);
    }
    let answers = wire.ask_all(&pipeline, DEAF).await;
    let mut again: Vec<String> = later;
    let answers = match answers {
        Ok(answers) => answers,
        Err(fault) => {
            again.extend(names);
            remember(tap, again);
            return Err(fault);
        }
    };
    let (mut found, mut bound) = (0, Vec::new());
    for (name, answer) in names.into_iter().zip(answers) {
        let list = core.names.list(&name);
        let (_, correlation) = core.names.reply_of(&list, &inbox).unwrap_or((&name, None));
        let got: Vec<Vec<u8>> =
            no_error(answer).map(items).unwrap_or_default().into_iter().filter_map(bytes).collect();
        let full = got.len() >= each;
        for raw in got {
            found += 1;
            core.replies.came(&name);
            match letter::read(&raw, &tap.source) {
                Ok(letter) => {
                    if !letter.ours {
                        bound.push(name.clone());
                    }
                    let known = letter.message.headers().get(header::CORRELATION).is_some();
                    let message = match correlation.filter(|_| !known) {
                        Some(correlation) => letter.message.with(header::CORRELATION, correlation),
                        None => Ok(letter.message),
                    };
                    if let (Ok(message), Some(place)) = (message, places.pop()) {
                        feed.deliver_unsettled(place, message);
                    }
                }
                Err(error) => tracing::warn!(%error, "a reply cannot be read and is dropped"),
            }
        }
        if full && correlation.is_none() {
            again.push(name);
        }
    }
    remember(tap, again);
    forget(core, wire, &bound);
    Ok(found)
}

/// Keeps the names of lists where more may be.
fn remember(tap: &Tap, names: Vec<String>) {
    if !names.is_empty() {
        tap.replies.lock().unwrap_or_else(PoisonError::into_inner).extend(names);
        tap.news.notify_one();
    }
}

/// Removes what a Kombu program declared to answer: an exchange of its own for each reply.
fn forget(core: &Arc<Core>, wire: &Wire, names: &[String]) {
    if names.is_empty() {
        return;
    }
    let mut command = redis::cmd("DEL");
    for name in names {
        command.arg(&core.names.bindings(name));
    }
    let wire = wire.clone();
    core.tasks.spawn(async move { wire.ask(&command, DEAF).await.map(drop) });
}
