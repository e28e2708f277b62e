//! The section `logging` of a configuration, in the shape of Python's `dictConfig`.
//!
//! The keys and classes are those of <https://docs.python.org/3/library/logging.config.html>.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, de::IgnoredAny};

use super::{
    file::{Every, Turn},
    format::Format,
    level::Level,
    plan::Target,
    syslog::{Address, FACILITIES},
};

/// The formatter that writes JSON objects, one a line.
const JSON: &str = "commissaire.JsonFormatter";
const FORMATTERS: [&str; 2] = ["logging.Formatter", JSON];
const HANDLERS: [(&str, &[&str]); 6] = [
    ("logging.StreamHandler", &["stream"]),
    ("logging.FileHandler", &["filename", "mode", "encoding", "delay"]),
    (
        "logging.handlers.RotatingFileHandler",
        &["filename", "mode", "encoding", "delay", "maxBytes", "backupCount"],
    ),
    (
        "logging.handlers.TimedRotatingFileHandler",
        &["filename", "encoding", "delay", "when", "interval", "backupCount", "utc"],
    ),
    ("logging.handlers.SysLogHandler", &["address", "facility", "socktype"]),
    ("logging.NullHandler", &[]),
];

/// The section `logging`, as it stands.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LoggingSection {
    pub(super) version: Option<i64>,
    pub(super) incremental: bool,
    /// Nothing logs before the configuration is read, so either is true.
    #[serde(rename = "disable_existing_loggers")]
    _disable_existing_loggers: bool,
    pub(super) formatters: BTreeMap<String, FormatterSection>,
    pub(super) filters: BTreeMap<String, IgnoredAny>,
    pub(super) handlers: BTreeMap<String, HandlerSection>,
    pub(super) loggers: BTreeMap<String, LoggerSection>,
    pub(super) root: Option<LoggerSection>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct FormatterSection {
    class: Option<String>,
    #[serde(rename = "()")]
    factory: Option<String>,
    format: Option<String>,
    datefmt: Option<String>,
    style: Option<String>,
    /// Ours is always validated.
    #[serde(rename = "validate")]
    _validate: Option<bool>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HandlerSection {
    class: String,
    #[serde(default)]
    pub(super) level: Option<Level>,
    #[serde(default)]
    pub(super) formatter: Option<String>,
    #[serde(default)]
    pub(super) filters: Vec<String>,
    #[serde(default)]
    stream: Option<String>,
    #[serde(default)]
    filename: Option<PathBuf>,
    #[serde(default)]
    mode: Option<String>,
    #[serde(default)]
    encoding: Option<String>,
    /// A file that is opened later is one whose failure is not told at the start: ours is opened at once.
    #[serde(default)]
    delay: Option<bool>,
    #[serde(default, rename = "maxBytes")]
    max_bytes: Option<u64>,
    #[serde(default, rename = "backupCount")]
    backup_count: Option<usize>,
    #[serde(default)]
    when: Option<String>,
    #[serde(default)]
    interval: Option<i64>,
    #[serde(default)]
    utc: Option<bool>,
    #[serde(default)]
    address: Option<SyslogAddress>,
    #[serde(default)]
    facility: Option<Facility>,
    #[serde(default)]
    socktype: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged, expecting = "must be [HOST, PORT] or the path of a socket")]
enum SyslogAddress {
    Socket(String),
    Host(String, u16),
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged, expecting = "must be the name or the number of a facility")]
enum Facility {
    Name(String),
    Number(u8),
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct LoggerSection {
    pub(super) level: Option<Level>,
    pub(super) propagate: Option<bool>,
    pub(super) handlers: Option<Vec<String>>,
    pub(super) filters: Vec<String>,
}

/// What is wrong with a member.
type Wrong = (&'static str, String);

impl FormatterSection {
    pub(super) fn format(&self) -> Result<Format, Wrong> {
        let (member, class) = match (&self.class, &self.factory) {
            (_, Some(factory)) => ("()", factory.as_str()),
            (Some(class), None) => ("class", class.as_str()),
            (None, None) => ("class", FORMATTERS[0]),
        };
        if class == JSON {
            let odd = [("format", self.format.is_some()), ("datefmt", self.datefmt.is_some())];
            return match odd.into_iter().find(|(_, set)| *set) {
                Some((member, _)) => Err((member, format!("is not taken by {JSON}"))),
                None => Ok(Format::Json),
            };
        }
        if class != FORMATTERS[0] {
            return Err((
                member,
                format!("is {class:?}, which is not supported: there are {}", FORMATTERS.join(", ")),
            ));
        }
        if self.style.as_deref().is_some_and(|style| style != "%") {
            return Err(("style", "must be \"%\"".into()));
        }
        if let Some(datefmt) = &self.datefmt {
            Format::check_time(datefmt).map_err(|why| ("datefmt", why))?;
        }
        let text = self.format.as_deref().unwrap_or("%(message)s");
        Format::parse(text, self.datefmt.clone()).map_err(|why| ("format", why))
    }
}

impl HandlerSection {
    pub(super) fn target(&self) -> Result<Target, Wrong> {
        let Some((class, takes)) = HANDLERS.iter().find(|(class, _)| *class == self.class) else {
            let known: Vec<&str> = HANDLERS.iter().map(|(class, _)| *class).collect();
            return Err((
                "class",
                format!("is {:?}, which is not supported: there are {}", self.class, known.join(", ")),
            ));
        };
        let set = [
            ("stream", self.stream.is_some()),
            ("filename", self.filename.is_some()),
            ("mode", self.mode.is_some()),
            ("encoding", self.encoding.is_some()),
            ("delay", self.delay.is_some()),
            ("maxBytes", self.max_bytes.is_some()),
            ("backupCount", self.backup_count.is_some()),
            ("when", self.when.is_some()),
            ("interval", self.interval.is_some()),
            ("utc", self.utc.is_some()),
            ("address", self.address.is_some()),
            ("facility", self.facility.is_some()),
            ("socktype", self.socktype.is_some()),
        ];
        if let Some((member, _)) = set.into_iter().find(|(member, set)| *set && !takes.contains(member)) {
            return Err((member, format!("is not taken by {class}")));
        }
        let turn = match *class {
            "logging.StreamHandler" => return self.stream(),
            "logging.handlers.SysLogHandler" => return self.syslog(),
            "logging.NullHandler" => return Ok(Target::Nowhere),
            "logging.handlers.RotatingFileHandler" => {
                Turn::Size { most: self.max_bytes.unwrap_or(0), keep: self.backup_count.unwrap_or(0) }
            }
            "logging.handlers.TimedRotatingFileHandler" => self.in_time()?,
            _ => Turn::Never,
        };
        let Some(path) = self.filename.clone() else {
            return Err(("filename", format!("is not set: {class} needs one")));
        };
        if self
            .encoding
            .as_deref()
            .is_some_and(|name| !["utf-8", "utf8", "ascii"].contains(&&*name.to_lowercase()))
        {
            return Err(("encoding", "must be utf-8".into()));
        }
        let empty = match self.mode.as_deref() {
            None | Some("a") => false,
            // Python does the same: a file that is emptied at each start need not be turned over.
            Some("w") => !matches!(turn, Turn::Size { most: 1.., .. }),
            Some(_) => return Err(("mode", "must be \"a\" or \"w\"".into())),
        };
        Ok(Target::File { path, empty, turn })
    }

    fn stream(&self) -> Result<Target, Wrong> {
        match self.stream.as_deref() {
            None | Some("ext://sys.stderr") => Ok(Target::Stderr),
            Some("ext://sys.stdout") => Ok(Target::Stdout),
            Some(_) => Err(("stream", "must be ext://sys.stderr or ext://sys.stdout".into())),
        }
    }

    fn in_time(&self) -> Result<Turn, Wrong> {
        let interval = self.interval.unwrap_or(1);
        if !(1..=1_000_000).contains(&interval) {
            return Err(("interval", "must be from 1 to 1000000".into()));
        }
        let when = self.when.as_deref().unwrap_or("h");
        let every = Every::parse(when, interval)
            .ok_or_else(|| ("when", "must be S, M, H, D, midnight, or W0 (Monday) to W6".into()))?;
        let (keep, utc) = (self.backup_count.unwrap_or(0), self.utc.unwrap_or(false));
        Ok(Turn::Time { every, keep, utc, next: jiff::Timestamp::MAX })
    }

    fn syslog(&self) -> Result<Target, Wrong> {
        let stream = match self.socktype.as_deref() {
            None | Some("ext://socket.SOCK_DGRAM") => false,
            Some("ext://socket.SOCK_STREAM") => true,
            Some(_) => {
                return Err((
                    "socktype",
                    "must be ext://socket.SOCK_DGRAM or ext://socket.SOCK_STREAM".into(),
                ));
            }
        };
        let address = match &self.address {
            None => Address::Host { host: "localhost".into(), port: 514, stream },
            Some(SyslogAddress::Host(host, port)) => {
                Address::Host { host: host.clone(), port: *port, stream }
            }
            Some(SyslogAddress::Socket(path)) => Address::Socket(path.clone()),
        };
        let names = || FACILITIES.iter().map(|(name, _)| *name);
        let facility = match &self.facility {
            None => 1,
            Some(Facility::Number(number @ 0..=23)) => *number,
            Some(Facility::Number(_)) => return Err(("facility", "must be from 0 to 23".into())),
            Some(Facility::Name(wanted)) => {
                let known = FACILITIES.iter().find(|(name, _)| name == wanted);
                let unknown =
                    || ("facility", format!("must be one of {}", names().collect::<Vec<_>>().join(", ")));
                known.map(|(_, number)| *number).ok_or_else(unknown)?
            }
        };
        Ok(Target::Syslog { address, facility })
    }
}
