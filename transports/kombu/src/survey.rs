//! What the server tells of an exchange; changes nothing.

use std::{collections::BTreeMap, time::Duration};

use commissaire::{Declared, Key, Origin, Survey, Token, What};
use redis::{Pipeline, Value};

use crate::{
    bus::Core,
    link::DEAF,
    script::Script,
    value::{int, items, millis, pairs, text},
    wire::{Fault, Wire, no_error},
};

/// From how many messages on a queue that only a dead instance can have left is told of.
const STALE: i64 = 1;

/// All but the name of the broker and what its settings lack.
pub(crate) async fn survey(core: &Core, wire: &Wire) -> Result<Survey, Fault> {
    let names = &core.names;
    let mut survey = Survey::default();
    let bindings = core.bindings(wire).await?;
    let mut pipeline = Pipeline::new();
    pipeline.cmd("HGETALL").arg(names.own("subs", ""));
    pipeline.cmd("HGETALL").arg(names.own("seen", ""));
    pipeline.cmd("SMEMBERS").arg(names.own("dead", ""));
    pipeline.cmd("TIME");
    let mut answers = wire.ask_all(&pipeline, DEAF).await?.into_iter();
    let mut next = || no_error(answers.next().unwrap_or(Value::Nil));
    let (subs, seen, dead) = (texts(next()?), texts(next()?), next()?);
    let now = millis(next()?).unwrap_or_default();
    let mut found: BTreeMap<String, (What, String, Vec<String>)> = BTreeMap::new();
    let mut foreign: Vec<&str> = Vec::new();
    for (queue, bound_to) in bindings.queues() {
        match names.what(queue, bound_to) {
            Some(what) => {
                found.insert(what.to_string(), (what, queue.to_owned(), names.lists(queue)));
            }
            None if names.hears(queue) => {}
            None => foreign.push(queue),
        }
    }
    for name in subs.keys().filter_map(|name| Token::new(name).ok()) {
        let queue = names.durable(&name);
        let what = What::Durable(name);
        found.insert(what.to_string(), (what, queue.clone(), names.lists(&queue)));
    }
    for origin in items(dead).into_iter().filter_map(text).filter_map(|text| origin(&text)) {
        let (what, list) = (What::dead(&origin), names.dead(&origin));
        found.insert(what.to_string(), (what, names.without_prefix(&list).to_owned(), vec![list]));
    }
    let mut pipeline = Pipeline::new();
    for (_, queue, lists) in found.values() {
        let mut keys = vec![names.own("z", queue), names.own("readers", queue), names.own("processes", "")];
        keys.extend(lists.iter().cloned());
        let mut command = Script::Survey.over(wire.digests(), &keys);
        command.arg(queue).arg(names.own("live", "")).arg(names.own("hand", ""));
        pipeline.add_command(command);
    }
    for ((what, ..), answer) in found.into_values().zip(wire.ask_all(&pipeline, DEAF).await?) {
        let numbers: Vec<u64> =
            items(no_error(answer)?).iter().filter_map(int).filter_map(|n| n.try_into().ok()).collect();
        let [waiting, held, resting, consumers] = numbers[..] else { continue };
        let mut declared = Declared::new(what);
        let letters = declared.what.origin().is_some();
        if letters && waiting + held == 0 {
            continue;
        }
        declared.waiting = Some(waiting);
        if !matches!(declared.what, What::Service(_)) {
            (declared.in_hand, declared.resting) = (Some(held), Some(resting));
        }
        declared.consumers = (!letters).then_some(consumers);
        if let What::Durable(name) = &declared.what {
            declared.patterns =
                subs.get(name.as_str()).map(|all| all.split(' ').map(str::to_owned).collect());
            if let Some((expiry, seen)) = seen.get(name.as_str()).and_then(|entry| entry.split_once(' ')) {
                declared.expires_after = expiry.parse().ok().map(Duration::from_millis);
                let since = seen.parse().ok().map(|seen: i64| now.saturating_sub(seen));
                let idle = since.and_then(|since| u64::try_from(since).ok()).map(Duration::from_millis);
                declared.idle = if consumers > 0 { Some(Duration::ZERO) } else { idle };
            }
        }
        survey.declared.push(declared);
    }
    stale(core, wire, &foreign, &mut survey).await?;
    Ok(survey)
}

/// Tells of queues that were named for one instance of a Kombu program and that fill.
async fn stale(core: &Core, wire: &Wire, foreign: &[&str], survey: &mut Survey) -> Result<(), Fault> {
    let mut queues: Vec<&str> =
        foreign.iter().copied().filter(|queue| queue.starts_with("amq.gen-")).collect();
    queues.sort_unstable();
    queues.dedup();
    let mut pipeline = Pipeline::new();
    for queue in &queues {
        pipeline.cmd("LLEN").arg(core.names.list(queue));
    }
    let lengths = wire.ask_all(&pipeline, DEAF).await?;
    for (queue, length) in queues.iter().zip(lengths) {
        if let Some(waiting) = int(&length).filter(|waiting| *waiting >= STALE) {
            let [table, _] = core.names.bindings(core.names.exchange());
            survey.faults.push(format!(
                "queue {queue:?} of a Kombu program holds {waiting} messages: if its instance is gone, SREM its lines from {table} and {table}'s permanent copy, and DEL the queue"
            ));
        }
    }
    Ok(())
}

fn texts(answer: Value) -> BTreeMap<String, String> {
    pairs(answer).into_iter().filter_map(|(name, value)| Some((text(name)?, text(value)?))).collect()
}

/// As [`Origin`] writes itself.
fn origin(text: &str) -> Option<Origin> {
    match text.split_once(' ')? {
        ("queue", key) => Key::new(key).ok().map(Origin::Queue),
        ("durable", name) => Token::new(name).ok().map(Origin::Durable),
        _ => None,
    }
}
