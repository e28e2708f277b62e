//! Whether the server is fit: version, mode, durability, and who else uses it.

use std::collections::HashMap;

use commissaire::{Durability, Error, ErrorKind, Result, Survey};
use redis::Value;

use crate::{
    link::DEAF,
    value::{pairs, text},
    wire::{Wire, no_error},
};

const OLDEST: u32 = 7;
/// Keys that the reference leaves in its database, for its default exchange.
const REFERENCE: [&str; 2] = ["_kombu.binding.commissaire", "_kombu.binding.reply.celery.pidbox"];

/// Settings that decide what stored messages survive.
#[derive(Debug, Default, PartialEq, Eq)]
struct Settings {
    appendonly: Option<String>,
    appendfsync: Option<String>,
    policy: Option<String>,
}

/// Refuses an unfit server by name; returns what its stored messages survive, and its version.
pub async fn check(wire: &Wire, place: &str, demand: Durability) -> Result<(Durability, String)> {
    let server = info(wire, place, "server").await?;
    let version = server.get("redis_version").map(String::as_str).unwrap_or("unknown");
    let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
    if major.is_none_or(|major| major < OLDEST) {
        return Err(Error::new(
            ErrorKind::Topology,
            format!("{place} is version {version}: the bus needs redis {OLDEST}.0 or later"),
        ));
    }
    if server.get("redis_mode").is_some_and(|mode| mode == "cluster")
        || info(wire, place, "cluster").await?.get("cluster_enabled").is_some_and(|on| on == "1")
    {
        return Err(Error::new(
            ErrorKind::Topology,
            format!("{place} runs in cluster mode (cluster_enabled:1): the bus needs a server of its own"),
        ));
    }
    if server.get("redis_mode").is_some_and(|mode| mode == "sentinel") {
        return Err(Error::new(
            ErrorKind::Topology,
            format!("{place} is a sentinel: name the server that it watches"),
        ));
    }
    let version = version.to_owned();
    Ok((durability(wire, place, demand).await?, version))
}

/// Tells in `survey` which settings take durability away, or cannot be read.
pub async fn survey(wire: &Wire, place: &str, survey: &mut Survey) {
    match settings(wire, place).await {
        Ok(settings) => {
            let faults = settings.differ().into_iter();
            survey
                .faults
                .extend(faults.map(|differs| format!("{differs}: messages may be lost when redis dies")));
            survey.unknown.extend(settings.unread());
        }
        Err(error) => survey.unknown.push(error.to_string()),
    }
}

async fn durability(wire: &Wire, place: &str, demand: Durability) -> Result<Durability> {
    let settings = settings(wire, place).await?;
    let lacks = settings.lacks();
    if lacks.is_empty() {
        // `always` syncs the disk before it answers.
        return Ok(Durability::Power);
    }
    let lacks = lacks.join(", ");
    if demand != Durability::None {
        let asked = if demand == Durability::Kill { "strict" } else { "strict-power" };
        return Err(Error::new(
            ErrorKind::NotDurable,
            format!(
                "{place} does not give durability={asked}: {lacks}: change the server's settings, or write durability=relaxed"
            ),
        ));
    }
    tracing::warn!(place, %lacks, "queues and durable subscriptions may lose messages when redis dies");
    Ok(Durability::None)
}

async fn settings(wire: &Wire, place: &str) -> Result<Settings> {
    let mut command = redis::cmd("CONFIG");
    command.arg("GET").arg("appendonly").arg("appendfsync").arg("maxmemory-policy");
    match wire.ask(&command, DEAF).await {
        Ok(answer) => {
            let mut found: HashMap<String, String> = pairs(answer)
                .into_iter()
                .filter_map(|(name, value)| Some((text(name)?, text(value)?)))
                .collect();
            Ok(Settings {
                appendonly: found.remove("appendonly"),
                appendfsync: found.remove("appendfsync"),
                policy: found.remove("maxmemory-policy"),
            })
        }
        Err(fault) if fault.is("NOPERM") || fault.is("ERR") => {
            // INFO does not tell appendfsync; what is not known does not count as given.
            let persistence = info(wire, place, "persistence").await?;
            let mut memory = info(wire, place, "memory").await?;
            let on = persistence.get("aof_enabled").map(|on| if on == "1" { "yes" } else { "no" });
            Ok(Settings {
                appendonly: on.map(str::to_owned),
                appendfsync: None,
                policy: memory.remove("maxmemory_policy"),
            })
        }
        Err(fault) => Err(fault.into_error(&format!("reading the settings of {place}"))),
    }
}

impl Settings {
    /// What is not as it must be, or not known to be, setting by setting.
    fn lacks(&self) -> Vec<String> {
        self.differ().into_iter().chain(self.unread()).collect()
    }

    fn differ(&self) -> Vec<String> {
        let differs = |(name, found, want): (_, &Option<String>, _)| {
            found
                .as_ref()
                .filter(|found| *found != want)
                .map(|found| format!("{name} is {found}, not {want}"))
        };
        self.wanted().into_iter().filter_map(differs).collect()
    }

    fn unread(&self) -> Vec<String> {
        let unread = self.wanted().into_iter().filter(|(_, found, _)| found.is_none());
        unread
            .map(|(name, _, want)| format!("{name} cannot be read (allow CONFIG GET), {want} is needed"))
            .collect()
    }

    fn wanted(&self) -> [(&'static str, &Option<String>, &'static str); 3] {
        [
            ("appendonly", &self.appendonly, "yes"),
            ("appendfsync", &self.appendfsync, "always"),
            ("maxmemory-policy", &self.policy, "noeviction"),
        ]
    }
}

/// Says when the reference's keys are there: its programs do not see this bus.
pub async fn warn_of_reference(wire: &Wire, place: &str, exchange: &str) {
    let mut command = redis::cmd("EXISTS");
    command.arg(&REFERENCE).arg(format!("_kombu.binding.{exchange}"));
    if let Ok(Value::Int(1..)) = wire.ask(&command, DEAF).await {
        tracing::warn!(
            place,
            "the reference's programs use this database (_kombu.binding keys): they do not see this bus; kombu+redis:// speaks with them"
        );
    }
}

/// One section of INFO. A user who may not ask is told so.
async fn info(wire: &Wire, place: &str, section: &str) -> Result<HashMap<String, String>> {
    let mut command = redis::cmd("INFO");
    command.arg(section);
    let answer = wire
        .ask(&command, DEAF)
        .await
        .and_then(no_error)
        .map_err(|fault| fault.into_error(&format!("asking {place} for INFO {section}")))?;
    let lines = text(answer).unwrap_or_default();
    Ok(lines
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_setting_that_is_not_as_it_must_be_is_named() {
        let settings =
            Settings { appendonly: Some("yes".into()), appendfsync: Some("everysec".into()), policy: None };
        let lacks = settings.lacks().join(", ");
        assert!(lacks.contains("appendfsync is everysec, not always"), "{lacks}");
        assert!(lacks.contains("maxmemory-policy cannot be read"), "{lacks}");
        assert!(!lacks.contains("appendonly"), "{lacks}");
    }
}
