//! What the server tells of the exchange, for operators; and removing a durable subscription.

use std::{collections::BTreeMap, time::Duration};

use commissaire::{Declared, Origin, Survey, Token, What};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::{
    bus::Core,
    clock,
    declare::{Consumer, Stream},
    fault::Fault,
    registry,
};

/// The most streams that are looked through.
const MOST_STREAMS: u64 = 100_000;

/// How long a consumer whose record is gone is left to whoever removed that.
const LEFT_OVER: Duration = Duration::from_secs(1);

/// Everything that is declared in this exchange.
pub(crate) async fn survey(core: &Core, deadline: Instant) -> Result<Survey, Fault> {
    let link = &core.link;
    let version = link.client().server_info().version;
    let mut seen = Seen { broker: format!("nats-server {version} ({})", core.place), ..Seen::default() };
    let streams = streams(core, deadline).await?;
    let info = |name: &str| streams.get(name);
    for stream in [Stream::events(link), Stream::records(link)] {
        match info(stream.name()) {
            Some(info) => seen.differences(stream.name(), &stream.differences(info)),
            None => seen.faults.push(format!("stream {} is gone: it is made again by itself", stream.name())),
        }
    }
    let dead = Stream::dead(link);
    if let Some(info) = info(dead.name()) {
        seen.differences(dead.name(), &dead.differences(info));
        dead_letters(core, &mut seen, deadline).await?;
    }
    for info in streams.values() {
        let subject = info["config"]["subjects"][0].as_str().unwrap_or_default();
        match link.names.read_origin(subject, "") {
            Some(origin @ Origin::Queue(_)) => queue(core, &mut seen, &origin, info, deadline).await?,
            Some(Origin::Durable(_)) | None => {}
        }
    }
    for name in consumers(core, &link.names.event_stream(), deadline).await? {
        if let Ok(name) = Token::new(&name) {
            durable(core, &mut seen, &name, deadline).await?;
        }
    }
    seen.unknown.push(
        "sync_interval: whether stored messages survive a loss of power; no client can read it: look into the server's \
         configuration"
            .to_owned(),
    );
    seen.unknown.push(
        "which services are running: core NATS keeps no list of subscriptions that a client can read"
            .to_owned(),
    );
    let mut declared = seen.declared;
    declared.sort_by_key(|declared| declared.what.to_string());
    Ok(Survey { broker: seen.broker, declared, faults: seen.faults, unknown: seen.unknown })
}

/// Removes a durable subscription; of several who try, one does: whoever removes its record. That the consumer is
/// deleted does not tell: nats-server 2.9 says so to several who ask at the same time.
pub(crate) async fn remove(
    core: &Core,
    name: &Token,
    idle: Option<Duration>,
    deadline: Instant,
) -> Result<bool, Fault> {
    let link = &core.link;
    let consumer = Consumer::durable(link, name.as_str(), "");
    let mut waited = false;
    let removed = loop {
        let written = registry::read(core, name, deadline).await?;
        let info = match consumer.info(link, deadline).await {
            Ok(info) => Some(info),
            Err(fault) if fault.is_absent() => None,
            Err(fault) => return Err(fault),
        };
        match (written, info, idle) {
            // Without a record nobody knows since when; a reader writes one soon.
            (None, _, Some(_)) | (_, None, Some(_)) | (None, None, None) => return Ok(false),
            (Some(written), Some(info), Some(idle)) => {
                let mine = !is_read(&info)
                    && written.age >= idle
                    && registry::remove(core, written.seq, deadline).await?;
                if !mine {
                    return Ok(false);
                }
                break true;
            }
            (Some(written), _, None) => {
                if registry::remove(core, written.seq, deadline).await? {
                    break true;
                }
                // Its reader wrote it again, or another removed it.
            }
            // Another removes it, or one who did so did not get to the end.
            (None, Some(_), None) if waited => break false,
            (None, Some(_), None) => {
                waited = true;
                sleep(LEFT_OVER).await;
            }
        }
    };
    let was_there =
        gone(core, &format!("CONSUMER.DELETE.{}.{}", consumer.stream, consumer.name), deadline).await?;
    let retries = link.names.work_stream(&Origin::Durable(name.clone()));
    gone(core, &format!("STREAM.DELETE.{retries}"), deadline).await?;
    Ok(removed || was_there)
}

/// Deletes something. Returns whether it was there.
async fn gone(core: &Core, asked: &str, deadline: Instant) -> Result<bool, Fault> {
    match core.link.api(asked, &Value::Null, deadline).await {
        Ok(_) => Ok(true),
        Err(fault) if fault.is_absent() => Ok(false),
        Err(fault) => Err(fault),
    }
}

#[derive(Default)]
struct Seen {
    broker: String,
    declared: Vec<Declared>,
    faults: Vec<String>,
    unknown: Vec<String>,
}

impl Seen {
    fn differences(&mut self, what: &str, differences: &[String]) {
        for difference in differences {
            self.faults.push(format!("{what}: {difference}: set it so, or remove it when it is empty"));
        }
    }

    /// What is told of a consumer, if it is there; its settings are checked.
    async fn consumer(
        &mut self,
        core: &Core,
        consumer: &Consumer,
        deadline: Instant,
    ) -> Result<Option<Value>, Fault> {
        match consumer.info(&core.link, deadline).await {
            Ok(info) => {
                let what = format!("consumer {} of stream {}", consumer.name, consumer.stream);
                self.differences(&what, &consumer.differences(&info));
                Ok(Some(info))
            }
            Err(fault) if fault.is_absent() => Ok(None),
            Err(fault) => Err(fault),
        }
    }
}

/// Whether somebody waits for messages of this consumer now.
fn is_read(info: &Value) -> bool {
    info["num_waiting"].as_u64().unwrap_or(0) > 0
}

/// How many requests for messages wait, one or two a consumer; unknown where all may have their hands full.
fn readers(info: &Value) -> Option<u64> {
    let waiting = number(info, "num_waiting");
    (waiting > 0 || number(info, "num_ack_pending") == 0).then_some(waiting)
}

fn number(info: &Value, field: &str) -> u64 {
    info[field].as_u64().unwrap_or(0)
}

async fn queue(
    core: &Core,
    seen: &mut Seen,
    origin: &Origin,
    info: &Value,
    deadline: Instant,
) -> Result<(), Fault> {
    let Origin::Queue(key) = origin else { return Ok(()) };
    let link = &core.link;
    let stream = Stream::work(link, origin);
    seen.differences(stream.name(), &stream.differences(info));
    let mut declared = Declared::new(What::Queue(key.clone()));
    let counts = counts(core, stream.name(), deadline).await?;
    let stored = |subject: &str| counts.get(subject).copied().unwrap_or(0);
    declared.resting = Some(stored(&link.names.rest(origin)));
    let all = stored(&link.names.work(origin));
    match seen.consumer(core, &Consumer::work(link, origin), deadline).await? {
        Some(work) => {
            let in_hand = number(&work, "num_ack_pending");
            declared.in_hand = Some(in_hand);
            declared.waiting = Some(all.saturating_sub(in_hand));
            declared.consumers = readers(&work);
        }
        None => {
            declared.in_hand = Some(0);
            declared.waiting = Some(all);
        }
    }
    declared.oldest = oldest(core, &info["state"]);
    seen.declared.push(declared);
    Ok(())
}

async fn durable(core: &Core, seen: &mut Seen, name: &Token, deadline: Instant) -> Result<(), Fault> {
    let (link, origin) = (&core.link, Origin::Durable(name.clone()));
    let mut declared = Declared::new(What::Durable(name.clone()));
    let written = registry::read(core, name, deadline).await?;
    let patterns: Option<Vec<commissaire::Pattern>> = written.as_ref().and_then(|written| {
        written.record.patterns.iter().map(|text| commissaire::Pattern::new(text).ok()).collect()
    });
    let filter = patterns.map(|patterns| link.names.covering(&patterns)).unwrap_or_default();
    let consumer = Consumer::durable(link, name.as_str(), &filter);
    let Ok(info) = consumer.info(link, deadline).await else { return Ok(()) };
    if written.is_some() {
        let what = format!("consumer {} of stream {}", consumer.name, consumer.stream);
        seen.differences(&what, &consumer.differences(&info));
    }
    declared.consumers = readers(&info);
    let again = seen.consumer(core, &Consumer::work(link, &origin), deadline).await?;
    let again = |field| again.as_ref().map_or(0, |info| number(info, field));
    declared.waiting = Some(number(&info, "num_pending") + again("num_pending"));
    declared.in_hand = Some(number(&info, "num_ack_pending") + again("num_ack_pending"));
    let counts = counts(core, &link.names.work_stream(&origin), deadline).await?;
    declared.resting = Some(counts.get(&link.names.rest(&origin)).copied().unwrap_or(0));
    if number(&info, "num_pending") + number(&info, "num_ack_pending") > 0 {
        let from = number(&info["ack_floor"], "stream_seq") + 1;
        let body = json!({"next_by_subj": info["config"]["filter_subject"], "seq": from});
        let asked = format!("STREAM.MSG.GET.{}", consumer.stream);
        let first = link.api(&asked, &body, deadline).await.unwrap_or_default();
        let time = clock::time(&first["message"]["time"]);
        declared.oldest = time.map(|time| core.clock.now().saturating_sub(time));
    }
    match &written {
        Some(written) => {
            declared.patterns = Some(written.record.patterns.clone());
            let expiry = Duration::try_from_secs_f64(written.record.expires).ok();
            // A reader that has its hands full asks for nothing; it still says now and then that it reads.
            let full = number(&info, "num_ack_pending") > 0
                && expiry.is_some_and(|expiry| written.age < registry::beat(expiry) * 3 / 2);
            declared.idle = Some(if is_read(&info) || full { Duration::ZERO } else { written.age });
            declared.expires_after = expiry;
        }
        None if is_read(&info) => declared.idle = Some(Duration::ZERO),
        None => {}
    }
    seen.declared.push(declared);
    Ok(())
}

async fn dead_letters(core: &Core, seen: &mut Seen, deadline: Instant) -> Result<(), Fault> {
    let link = &core.link;
    let stream = link.names.dead_stream();
    for (subject, count) in counts(core, &stream, deadline).await? {
        let Some(origin) = link.names.read_origin(&subject, "d.") else { continue };
        let mut declared = Declared::new(What::dead(&origin));
        let consumer = seen.consumer(core, &Consumer::dead(link, &origin), deadline).await?;
        let in_hand = consumer.as_ref().map_or(0, |info| number(info, "num_ack_pending"));
        declared.in_hand = Some(in_hand);
        declared.waiting = Some(count.saturating_sub(in_hand));
        declared.resting = Some(0);
        let body = json!({"next_by_subj": subject, "seq": 1});
        if let Ok(first) = link.api(&format!("STREAM.MSG.GET.{stream}"), &body, deadline).await {
            let time = clock::time(&first["message"]["time"]);
            declared.oldest = time.map(|time| core.clock.now().saturating_sub(time));
        }
        seen.declared.push(declared);
    }
    Ok(())
}

/// How long the first message of a stream has been there.
fn oldest(core: &Core, state: &Value) -> Option<Duration> {
    let any = number(state, "messages") > 0;
    clock::time(&state["first_ts"]).filter(|_| any).map(|time| core.clock.now().saturating_sub(time))
}

/// How many messages each subject of a stream has.
async fn counts(core: &Core, stream: &str, deadline: Instant) -> Result<BTreeMap<String, u64>, Fault> {
    let body = json!({"subjects_filter": ">"});
    match core.link.api(&format!("STREAM.INFO.{stream}"), &body, deadline).await {
        Ok(info) => {
            let subjects = info["state"]["subjects"].as_object();
            let counts = subjects.into_iter().flatten();
            Ok(counts.map(|(subject, count)| (subject.clone(), count.as_u64().unwrap_or(0))).collect())
        }
        Err(fault) if fault.is_absent() => Ok(BTreeMap::new()),
        Err(fault) => Err(fault),
    }
}

/// The streams of this exchange, by name.
async fn streams(core: &Core, deadline: Instant) -> Result<BTreeMap<String, Value>, Fault> {
    let mut streams = BTreeMap::new();
    let mut offset = 0;
    loop {
        let answer = core.link.api("STREAM.LIST", &json!({"offset": offset}), deadline).await?;
        let page = answer["streams"].as_array().cloned().unwrap_or_default();
        let count = page.len() as u64;
        for info in page {
            let name = info["config"]["name"].as_str().unwrap_or_default().to_owned();
            if name.starts_with(&core.link.names.stream_prefix()) {
                streams.insert(name, info);
            }
        }
        offset += count;
        if count == 0 || offset >= number(&answer, "total") || offset >= MOST_STREAMS {
            return Ok(streams);
        }
    }
}

/// The names of a stream's consumers.
async fn consumers(core: &Core, stream: &str, deadline: Instant) -> Result<Vec<String>, Fault> {
    let mut names = Vec::new();
    loop {
        let body = json!({"offset": names.len()});
        let answer = match core.link.api(&format!("CONSUMER.NAMES.{stream}"), &body, deadline).await {
            Ok(answer) => answer,
            Err(fault) if fault.is_absent() => return Ok(names),
            Err(fault) => return Err(fault),
        };
        let page = answer["consumers"].as_array().cloned().unwrap_or_default();
        let before = names.len();
        names.extend(page.iter().filter_map(|name| name.as_str().map(str::to_owned)));
        if names.len() == before || names.len() as u64 >= number(&answer, "total") {
            return Ok(names);
        }
    }
}
