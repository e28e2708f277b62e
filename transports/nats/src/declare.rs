//! What must be on the server, and making sure that it is, with the settings that we want: a server drops fields that
//! it does not know without a word, so everything is read back.

use std::time::Duration;

use commissaire::{Error, ErrorKind, Origin, Result};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use crate::{fault::Fault, link::Link, names::wider};

/// For how long the server recognises an id.
pub(crate) const REPUBLISH: Duration = Duration::from_secs(600);
/// After how long without a word a delivery is given to another.
pub(crate) const LEASE: Duration = Duration::from_secs(30);
/// The most messages of a queue, of the retries or dead letters of one origin, and of all events that are kept.
const MOST_STORED: u64 = 1_000_000;
/// The most deliveries that one consumer has under way; what rests counts as such.
const MOST_IN_HAND: u64 = 100_000;
const MOST_RESTING: u64 = 1_000_000;
const MOST_PULLS: u64 = 10_000;
/// A stream of this name exists with other settings.
const DIFFERS: u32 = 10058;

/// The consumer of what is to be delivered now, and the one of what rests.
pub(crate) const WORK: &str = "w";
pub(crate) const REST: &str = "z";

/// A stream as it must be.
#[derive(Debug, Clone)]
pub(crate) struct Stream(Map<String, Value>);

/// A consumer as it must be.
#[derive(Debug, Clone)]
pub(crate) struct Consumer {
    pub(crate) stream: String,
    pub(crate) name: String,
    config: Map<String, Value>,
    /// Whether its filter may cover more than is wanted.
    grows: bool,
}

impl Stream {
    /// All events that a durable subscription wants and has not got.
    pub(crate) fn events(link: &Link) -> Self {
        let names = &link.names;
        Self::new(
            &names.event_stream(),
            &[names.all_events(), names.kept()],
            "interest",
            json!({"discard": "new", "max_msgs": MOST_STORED}),
        )
    }

    /// A queue with its resting retries, or the retries of a durable subscription.
    pub(crate) fn work(link: &Link, origin: &Origin) -> Self {
        let names = &link.names;
        let subjects = [names.work(origin), names.rest(origin)];
        Self::new(&names.work_stream(origin), &subjects, "workqueue", per_subject())
    }

    /// The dead letters of all origins.
    pub(crate) fn dead(link: &Link) -> Self {
        Self::new(&link.names.dead_stream(), &[link.names.all_dead()], "workqueue", per_subject())
    }

    /// The last record of each durable subscription.
    pub(crate) fn records(link: &Link) -> Self {
        let names = &link.names;
        let more = json!({"discard": "old", "max_msgs_per_subject": 1});
        Self::new(&names.record_stream(), &[names.all_records(), names.tick()], "limits", more)
    }

    fn new(name: &str, subjects: &[String], retention: &str, more: Value) -> Self {
        let mut config = Map::new();
        config.insert("name".into(), name.into());
        config.insert("subjects".into(), subjects.into());
        config.insert("retention".into(), retention.into());
        config.insert("storage".into(), "file".into());
        config.insert("duplicate_window".into(), nanos(REPUBLISH));
        if let Value::Object(more) = more {
            config.extend(more);
        }
        Self(config)
    }

    pub(crate) fn name(&self) -> &str {
        self.0.get("name").and_then(Value::as_str).unwrap_or_default()
    }

    /// What of `info` is not as it must be.
    pub(crate) fn differences(&self, info: &Value) -> Vec<String> {
        differences(&self.0, &info["config"])
    }

    /// Makes it if it is not there. Returns whether it was not there.
    pub(crate) async fn ensure(&self, link: &Link, deadline: Instant) -> Result<bool> {
        self.found(link, deadline).await.map(|(_, made)| made)
    }

    /// Makes it if it is not there. Returns when it was made, in the server's words: another time is another stream.
    pub(crate) async fn since(&self, link: &Link, deadline: Instant) -> Result<String> {
        let (info, _) = self.found(link, deadline).await?;
        Ok(info["created"].as_str().unwrap_or_default().to_owned())
    }

    /// What there is, and whether it was made for that: asked first, for the server says of each that it made it now.
    async fn found(&self, link: &Link, deadline: Instant) -> Result<(Value, bool)> {
        let what = format!("stream {}", self.name());
        let (info, made) = match self.info(link, deadline).await {
            Err(fault) if fault.is_absent() => {
                let asked = format!("STREAM.CREATE.{}", self.name());
                match link.api(&asked, &Value::Object(self.0.clone()), deadline).await {
                    // Somebody else made it meanwhile; another setting may differ than those that we need.
                    Err(Fault::Refused { code: DIFFERS, .. }) => (self.info(link, deadline).await, true),
                    Err(fault) => return Err(fault.into_error(&format!("making {what}"))),
                    made => (made, true),
                }
            }
            found => (found, false),
        };
        let info = info.map_err(|fault| fault.into_error(&format!("looking at {what}")))?;
        same(&what, &self.differences(&info))?;
        Ok((info, made))
    }

    async fn info(&self, link: &Link, deadline: Instant) -> Result<Value, Fault> {
        link.api(&format!("STREAM.INFO.{}", self.name()), &Value::Null, deadline).await
    }
}

impl Consumer {
    /// The jobs of a queue, or the retries of a durable subscription that are due.
    pub(crate) fn work(link: &Link, origin: &Origin) -> Self {
        Self::new(&link.names.work_stream(origin), WORK, &link.names.work(origin), "all", MOST_IN_HAND)
    }

    /// What rests.
    pub(crate) fn rest(link: &Link, origin: &Origin) -> Self {
        Self::new(&link.names.work_stream(origin), REST, &link.names.rest(origin), "all", MOST_RESTING)
    }

    /// The events of a durable subscription, from now on.
    pub(crate) fn durable(link: &Link, name: &str, filter: &str) -> Self {
        Self { grows: true, ..Self::new(&link.names.event_stream(), name, filter, "new", MOST_IN_HAND) }
    }

    /// Beside them: what is never taken.
    pub(crate) fn kept(link: &Link, name: &str) -> Self {
        Self::new(&link.names.event_stream(), name, &link.names.kept(), "all", MOST_IN_HAND)
    }

    /// The dead letters of one origin.
    pub(crate) fn dead(link: &Link, origin: &Origin) -> Self {
        let names = &link.names;
        Self::new(
            &names.dead_stream(),
            &names.dead_consumer(origin),
            &names.dead(origin),
            "all",
            MOST_IN_HAND,
        )
    }

    fn new(stream: &str, name: &str, filter: &str, from: &str, most: u64) -> Self {
        let config = json!({
            "durable_name": name,
            "filter_subject": filter,
            "deliver_policy": from,
            "ack_policy": "explicit",
            "replay_policy": "instant",
            "ack_wait": nanos(LEASE),
            "max_deliver": -1,
            "max_ack_pending": most,
            "max_waiting": MOST_PULLS,
        });
        let Value::Object(config) = config else { return Self::new(stream, name, filter, from, most) };
        Self { stream: stream.to_owned(), name: name.to_owned(), config, grows: false }
    }

    /// The subject of what it is for.
    pub(crate) fn filter(&self) -> &str {
        self.config.get("filter_subject").and_then(Value::as_str).unwrap_or_default()
    }

    /// What of `info` is not as it must be.
    pub(crate) fn differences(&self, info: &Value) -> Vec<String> {
        differences(&self.grown(info), &info["config"])
    }

    /// How it must be where it is as `info` says. A filter never gets narrower: what was stored for the wider one would
    /// stay for ever, for nobody would acknowledge it.
    fn grown(&self, info: &Value) -> Map<String, Value> {
        const FILTER: &str = "filter_subject";
        let mut config = self.config.clone();
        let found = info["config"][FILTER].as_str();
        if self.grows
            && let (Some(found), Some(wanted)) = (found, config.get(FILTER).and_then(Value::as_str))
        {
            let both = wider(found, wanted);
            config.insert(FILTER.to_owned(), both.into());
        }
        config
    }

    /// Looks at it.
    pub(crate) async fn info(&self, link: &Link, deadline: Instant) -> Result<Value, Fault> {
        link.api(&format!("CONSUMER.INFO.{}.{}", self.stream, self.name), &Value::Null, deadline).await
    }

    /// Makes it if it is not there; the filter of a durable subscription is changed, nothing else. Returns whether it
    /// was not there, and how it is.
    pub(crate) async fn ensure(&self, link: &Link, deadline: Instant) -> Result<(bool, Value)> {
        let what = format!("consumer {} of stream {}", self.name, self.stream);
        let (config, made) = match self.info(link, deadline).await {
            Ok(info) => {
                let differ = self.differences(&info);
                let only_filter = differ.iter().all(|text| text.starts_with("filter_subject "));
                if differ.is_empty() || !(self.grows && only_filter) {
                    return same(&what, &differ).map(|()| (false, info));
                }
                (self.grown(&info), false)
            }
            Err(fault) if fault.is_absent() => (self.config.clone(), true),
            Err(fault) => return Err(fault.into_error(&format!("looking at {what}"))),
        };
        let asked = format!("CONSUMER.DURABLE.CREATE.{}.{}", self.stream, self.name);
        let body = json!({"stream_name": self.stream, "config": config});
        let info = link.api(&asked, &body, deadline).await;
        let info = info.map_err(|fault| fault.into_error(&format!("making {what}")))?;
        same(&what, &self.differences(&info)).map(|()| (made, info))
    }
}

fn per_subject() -> Value {
    json!({"discard": "new", "discard_new_per_subject": true, "max_msgs_per_subject": MOST_STORED})
}

/// A span as the server writes it.
pub(crate) fn nanos(span: Duration) -> Value {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX).into()
}

fn differences(wanted: &Map<String, Value>, found: &Value) -> Vec<String> {
    let differs = |(field, wanted): (&String, &Value)| {
        let found = found.get(field).unwrap_or(&Value::Null);
        let absent = if found.is_null() { "nothing".to_owned() } else { found.to_string() };
        (found != wanted).then(|| format!("{field} is {absent} and must be {wanted}"))
    };
    wanted.iter().filter_map(differs).collect()
}

fn same(what: &str, differences: &[String]) -> Result<()> {
    if differences.is_empty() {
        return Ok(());
    }
    let text = differences.join(", ");
    Err(Error::new(
        ErrorKind::Topology,
        format!("{what} on the NATS server differs: {text}: set it so, or remove it when it is empty"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_that_the_server_drops_is_named() {
        let Value::Object(wanted) = json!({"name": "a", "discard_new_per_subject": true}) else { panic!() };
        let found = json!({"name": "a", "max_msgs": -1});
        assert_eq!(differences(&wanted, &found), ["discard_new_per_subject is nothing and must be true"]);
        let error = same("stream a", &differences(&wanted, &found)).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Topology);
    }
}
