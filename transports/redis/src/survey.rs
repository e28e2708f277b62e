//! What the server tells of an exchange. Finds its objects by their names, reads them, and changes nothing.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use commissaire::{Declared, Survey, What};
use redis::{Pipeline, Value};
use tokio::time::Instant;

use crate::{
    bus::Core,
    durable,
    link::DEAF,
    listen::entry::Stream,
    publish::MOST_STORED,
    script::Script,
    value::{int, items, pairs, text, two},
    wire::{Fault, Wire, no_error},
};

/// The most objects that a survey tells of, and how long it looks for them.
const MOST: usize = 5_000;
const LOOK: Duration = Duration::from_secs(4);
/// The most scripts of one pipeline.
const BATCH: usize = 100;
/// A consumer from which the server has not heard for so long does not read.
const DEAF_MS: u64 = 30_000;

type Found = BTreeMap<String, What>;

/// All but the name of the broker and what its settings lack.
pub(crate) async fn survey(core: &Core, wire: &Wire) -> Result<Survey, Fault> {
    let mut survey = Survey::default();
    let mut found = look(core, wire, &mut survey.unknown).await?;
    let bindings = wire.ask(redis::cmd("HGETALL").arg(core.keys.bindings()), DEAF).await?;
    let bindings: HashMap<String, String> = pairs(bindings)
        .into_iter()
        .filter_map(|(name, patterns)| Some((text(name)?, text(patterns)?)))
        .collect();
    for name in bindings.keys().filter_map(|name| commissaire::Token::new(name).ok()) {
        let what = What::Durable(name);
        found.insert(what.to_string(), what);
    }
    let (registry, now) = durable::registry(core, wire).await?;
    for (mut declared, living) in told(core, wire, found).await? {
        if let What::Durable(name) = &declared.what {
            let name = name.as_str();
            match bindings.get(name) {
                Some(patterns) => declared.patterns = Some(patterns.split(' ').map(str::to_owned).collect()),
                None => survey.faults.push(format!(
                    "{} has a stream and gets no events: read it again under its name, or remove it",
                    declared.what
                )),
            }
            let entry = registry.get(name);
            declared.expires_after = entry.and_then(|entry| entry.expiry).map(Duration::from_millis);
            let seen = entry.map(|entry| u64::try_from(now.saturating_sub(entry.seen)).unwrap_or(0));
            declared.idle = if living { Some(Duration::ZERO) } else { seen.map(Duration::from_millis) };
        }
        survey.faults.extend(faults(&declared));
        survey.declared.push(declared);
    }
    Ok(survey)
}

/// Looks for the keys of the exchange, without stopping anybody for long.
async fn look(core: &Core, wire: &Wire, unknown: &mut Vec<String>) -> Result<Found, Fault> {
    let (mut found, mut cursor) = (Found::new(), "0".to_owned());
    let start = Instant::now();
    loop {
        let mut scan = redis::cmd("SCAN");
        scan.arg(&cursor).arg("MATCH").arg(core.keys.surveyed()).arg("COUNT").arg(1_000);
        let answer = match wire.ask(&scan, DEAF).await {
            Err(fault) if fault.is("NOPERM") => {
                unknown.push("queues and services: allow SCAN to this user".to_owned());
                break;
            }
            answer => answer?,
        };
        let Some((next, keys)) = two(answer) else { return Err(Fault::Lost) };
        for what in items(keys).into_iter().filter_map(text).filter_map(|key| core.keys.what(&key)) {
            found.insert(what.to_string(), what);
        }
        cursor = text(next).unwrap_or_default();
        if cursor == "0" {
            break;
        }
        if start.elapsed() > LOOK || found.len() > MOST {
            unknown.push(format!(
                "the rest: this database has too many keys to look at all of them in {LOOK:?}, or the bus more than \
                 {MOST} objects"
            ));
            break;
        }
    }
    Ok(found)
}

/// What is found with what is in it, and whether somebody lives who reads it.
async fn told(core: &Core, wire: &Wire, found: Found) -> Result<Vec<(Declared, bool)>, Fault> {
    let whats: Vec<What> = found.into_values().collect();
    let mut told = Vec::with_capacity(whats.len());
    for batch in whats.chunks(BATCH) {
        let mut pipeline = Pipeline::new();
        for what in batch {
            ask(core, wire, what, &mut pipeline);
        }
        let mut answers = wire.ask_all(&pipeline, DEAF).await?;
        if answers.iter().any(|answer| no_error(answer.clone()).is_err_and(|fault| fault.is("NOSCRIPT"))) {
            wire.load(DEAF).await?;
            answers = wire.ask_all(&pipeline, DEAF).await?;
        }
        let mut answers = answers.into_iter();
        for what in batch {
            let mut declared = Declared::new(what.clone());
            let living = match what {
                What::Service(_) => {
                    let three = [answers.next(), answers.next(), answers.next()];
                    service(&mut declared, three);
                    false
                }
                _ => stream(&mut declared, answers.next()),
            };
            told.push((declared, living));
        }
    }
    Ok(told)
}

fn ask(core: &Core, wire: &Wire, what: &What, pipeline: &mut Pipeline) {
    let keys = &core.keys;
    let key = match what {
        What::Service(service) => {
            pipeline.cmd("LLEN").arg(keys.calls(service));
            pipeline.cmd("EXISTS").arg(keys.live(service));
            pipeline.cmd("PUBSUB").arg("NUMSUB").arg(keys.here(service));
            return;
        }
        What::Queue(key) => keys.queue(key),
        What::Durable(name) => keys.durable(name.as_str()),
        What::DeadQueue(key) => format!("{}:d", keys.queue(key)),
        What::DeadDurable(name) => format!("{}:d", keys.durable(name.as_str())),
    };
    let mut command = Script::Survey.over(wire.digests(), &[&key, &format!("{key}:z")]);
    command.arg(Stream::GROUP).arg(keys.alive()).arg(DEAF_MS);
    pipeline.add_command(command);
}

fn service(declared: &mut Declared, [waiting, live, here]: [Option<Value>; 3]) {
    let number = |value: Option<Value>| u64::try_from(int(&no_error(value?).ok()?)?).ok();
    declared.waiting = number(waiting);
    let here = here.and_then(|here| number(pairs(here).pop().map(|(_, number)| number)));
    declared.consumers = here;
    declared.deaf = match (number(live), here) {
        // None of them has said for 5 s that it takes calls.
        (Some(0), Some(here)) => Some(here),
        (Some(_), Some(0 | 1)) => Some(0),
        _ => None,
    };
}

/// Whether somebody lives who reads it. A stream that cannot be read leaves all unknown.
fn stream(declared: &mut Declared, answer: Option<Value>) -> bool {
    let Some(Ok(answer)) = answer.map(no_error) else { return false };
    let numbers: Vec<i64> = items(answer).iter().filter_map(int).collect();
    let [length, held, resting, oldest, consumers, deaf, living] = numbers[..] else { return false };
    let count = |number: i64| u64::try_from(number).ok();
    declared.waiting = count((length - held).max(0));
    declared.in_hand = count(held);
    declared.resting = count(resting);
    declared.oldest = count(oldest).map(Duration::from_millis);
    declared.consumers = count(consumers);
    declared.deaf = count(deaf);
    living > 0
}

fn faults(declared: &Declared) -> Vec<String> {
    let what = &declared.what;
    let mut faults = Vec::new();
    if let Some(deaf @ 1..) = declared.deaf {
        faults.push(format!(
            "{what}: {deaf} of its consumers do not read: what they hold comes again to others; start them anew"
        ));
    }
    if declared.waiting.unwrap_or(0) + declared.in_hand.unwrap_or(0) >= MOST_STORED as u64 {
        faults.push(format!("{what} is full: consume from it, or remove it"));
    }
    faults
}
