//! How a record becomes a line.

use std::{fmt::Write, process, sync::LazyLock};

use jiff::{Timestamp, Zoned, fmt::strtime, tz::TimeZone};
use serde_json::json;

use super::record::Record;

/// When this program began to log.
pub(super) static BEGAN: LazyLock<Timestamp> = LazyLock::new(Timestamp::now);

/// What Python's `logging` shows of a time when nobody says how.
const ASCTIME: &str = "%Y-%m-%d %H:%M:%S";
/// What stands on standard error when nobody says how.
const USUAL: &str = "%(asctime)s %(levelname)-7s %(name)s: %(message)s";
const USUAL_TIME: &str = "%Y-%m-%dT%H:%M:%S%.3f%:z";

/// How a record becomes a line.
#[derive(Debug)]
pub(super) enum Format {
    /// A format string with `%(name)s` in it, and that of times.
    Text { pieces: Vec<Piece>, time: Option<String> },
    /// A JSON object.
    Json,
}

/// A part of a format string.
#[derive(Debug, PartialEq)]
pub(super) enum Piece {
    Text(String),
    Value { what: What, left: bool, zeros: bool, width: usize, precision: Option<usize>, kind: Kind },
}

/// What of a record is shown.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum What {
    Name,
    LevelName,
    LevelNo,
    Message,
    AscTime,
    Created,
    Msecs,
    RelativeCreated,
    Process,
    ProcessName,
    ThreadName,
    PathName,
    FileName,
    Module,
    LineNo,
}

/// As what it is shown.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Kind {
    Text,
    Whole,
    Real,
}

const KNOWN: [(&str, What); 15] = [
    ("name", What::Name),
    ("levelname", What::LevelName),
    ("levelno", What::LevelNo),
    ("message", What::Message),
    ("asctime", What::AscTime),
    ("created", What::Created),
    ("msecs", What::Msecs),
    ("relativeCreated", What::RelativeCreated),
    ("process", What::Process),
    ("processName", What::ProcessName),
    ("threadName", What::ThreadName),
    ("pathname", What::PathName),
    ("filename", What::FileName),
    ("module", What::Module),
    ("lineno", What::LineNo),
];

enum Shown<'r> {
    Text(&'r str),
    Owned(String),
    Whole(i64),
    Real(f64),
}

impl Format {
    /// What stands on standard error when nobody says how.
    pub(super) fn usual() -> Self {
        Self::parse(USUAL, Some(USUAL_TIME.to_owned())).unwrap_or(Self::Json)
    }

    /// The message alone: what a handler without a formatter writes.
    pub(super) fn message() -> Self {
        let piece = Piece::Value {
            what: What::Message,
            left: false,
            zeros: false,
            width: 0,
            precision: None,
            kind: Kind::Text,
        };
        Self::Text { pieces: vec![piece], time: None }
    }

    /// A format string in Python's `%` style, with times as `time` says in the style of `strftime`.
    pub(super) fn parse(text: &str, time: Option<String>) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find('%') {
            let (before, from) = rest.split_at(at);
            if !before.is_empty() {
                pieces.push(Piece::Text(before.to_owned()));
            }
            if let Some(after) = from.strip_prefix("%%") {
                pieces.push(Piece::Text("%".to_owned()));
                rest = after;
            } else {
                let (piece, after) = value(from)?;
                pieces.push(piece);
                rest = after;
            }
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.to_owned()));
        }
        Ok(Self::Text { pieces, time })
    }

    /// Whether times can be shown in this way.
    pub(super) fn check_time(format: &str) -> Result<(), String> {
        strtime::format(format, &Zoned::now())
            .map(drop)
            .map_err(|e| format!("cannot be used for a time: {e}"))
    }

    /// The line of `record`, without its end.
    pub(super) fn line(&self, record: &Record<'_>) -> String {
        let (pieces, time) = match self {
            Self::Json => return json_line(record),
            Self::Text { pieces, time } => (pieces, time),
        };
        let mut line = String::new();
        for piece in pieces {
            match piece {
                Piece::Text(text) => line.push_str(text),
                Piece::Value { what, left, zeros, width, precision, kind } => {
                    let text = shown(what.of(record, time.as_deref()), *kind, *precision);
                    let _ = match (left, zeros, text.strip_prefix('-')) {
                        (true, ..) => write!(line, "{text:<width$}"),
                        (_, true, None) => write!(line, "{text:0>width$}"),
                        (_, true, Some(digits)) => {
                            write!(line, "-{digits:0>width$}", width = width.saturating_sub(1))
                        }
                        _ => write!(line, "{text:>width$}"),
                    };
                }
            }
        }
        line
    }
}

/// Reads `%(name)-8s` at the begin of `from`; returns what follows as well.
fn value(from: &str) -> Result<(Piece, &str), String> {
    let odd =
        || format!("has {:?}, which is no %(name)s, and no %%", from.chars().take(12).collect::<String>());
    let (name, rest) = from.strip_prefix("%(").and_then(|rest| rest.split_once(')')).ok_or_else(odd)?;
    let Some((_, what)) = KNOWN.iter().find(|(known, _)| *known == name) else {
        let known: Vec<&str> = KNOWN.iter().map(|(name, _)| *name).collect();
        return Err(format!("has %({name}), which is not known: known are {}", known.join(", ")));
    };
    let flags = rest.trim_start_matches(['-', '0']);
    let (left, zeros) = {
        let flags = &rest[..rest.len() - flags.len()];
        (flags.contains('-'), flags.contains('0'))
    };
    let digits = |text: &str| text.chars().take_while(char::is_ascii_digit).count();
    let (width, rest) = flags.split_at(digits(flags));
    let (precision, rest) = match rest.strip_prefix('.') {
        Some(rest) => {
            let (precision, rest) = rest.split_at(digits(rest));
            (Some(number(precision)?), rest)
        }
        None => (None, rest),
    };
    let mut rest = rest.chars();
    let kind = match rest.next() {
        Some('s') => Kind::Text,
        Some('d' | 'i') => Kind::Whole,
        Some('f') => Kind::Real,
        _ => return Err(format!("has %({name}) without one of s, d and f at its end")),
    };
    if kind != Kind::Text && !what.is_number() {
        return Err(format!("has %({name}) as a number, which it is not: take %({name})s"));
    }
    let zeros = zeros && kind != Kind::Text && !left;
    Ok((Piece::Value { what: *what, left, zeros, width: number(width)?, precision, kind }, rest.as_str()))
}

/// A width or a precision; more than a line has is a slip of the finger.
fn number(digits: &str) -> Result<usize, String> {
    if digits.is_empty() {
        return Ok(0);
    }
    digits
        .parse()
        .ok()
        .filter(|number| *number <= 1000)
        .ok_or_else(|| format!("has the width {digits}, which is too much"))
}

impl What {
    fn is_number(self) -> bool {
        matches!(
            self,
            Self::LevelNo
                | Self::Created
                | Self::Msecs
                | Self::RelativeCreated
                | Self::Process
                | Self::LineNo
        )
    }

    fn of<'r>(self, record: &'r Record<'_>, time: Option<&str>) -> Shown<'r> {
        let file = record.file.rsplit('/').next().unwrap_or_default();
        let millis = |time: Timestamp| time.as_microsecond() as f64 / 1e3;
        match self {
            Self::Name => Shown::Text(record.name),
            Self::LevelName => Shown::Text(record.level.name()),
            Self::LevelNo => Shown::Whole(record.level.number().into()),
            Self::Message => Shown::Owned(record.text()),
            Self::AscTime => Shown::Owned(time_of(record.time, time)),
            Self::Created => Shown::Real(record.time.as_microsecond() as f64 / 1e6),
            Self::Msecs => Shown::Real(f64::from(record.time.subsec_millisecond())),
            Self::RelativeCreated => Shown::Real(millis(record.time) - millis(*BEGAN)),
            Self::Process => Shown::Whole(process::id().into()),
            Self::ProcessName => Shown::Text("MainProcess"),
            Self::ThreadName => Shown::Text(&record.thread),
            Self::PathName => Shown::Text(record.file),
            Self::FileName => Shown::Text(file),
            Self::Module => Shown::Text(file.strip_suffix(".rs").unwrap_or(file)),
            Self::LineNo => Shown::Whole(record.line.into()),
        }
    }
}

fn time_of(time: Timestamp, format: Option<&str>) -> String {
    let local = time.to_zoned(TimeZone::system());
    match format {
        Some(format) => strtime::format(format, &local).unwrap_or_default(),
        None => {
            let seconds = strtime::format(ASCTIME, &local).unwrap_or_default();
            format!("{seconds},{:03}", time.subsec_millisecond())
        }
    }
}

fn shown(value: Shown<'_>, kind: Kind, precision: Option<usize>) -> String {
    match (value, kind) {
        (Shown::Whole(number), Kind::Real) => format!("{:.*}", precision.unwrap_or(6), number as f64),
        (Shown::Whole(number), _) => number.to_string(),
        (Shown::Real(number), Kind::Real) => format!("{number:.*}", precision.unwrap_or(6)),
        (Shown::Real(number), Kind::Whole) => format!("{:.0}", number.trunc()),
        (Shown::Real(number), Kind::Text) => format!("{number:?}"),
        (Shown::Text(text), _) => cut(text, precision),
        (Shown::Owned(text), _) => cut(&text, precision),
    }
}

fn cut(text: &str, precision: Option<usize>) -> String {
    precision.map_or_else(|| text.to_owned(), |most| text.chars().take(most).collect())
}

fn json_line(record: &Record<'_>) -> String {
    let mut line = json!({
        "time": format!("{:.6}", record.time),
        "level": record.level.name().to_lowercase(),
        "logger": record.name,
        "message": record.message,
        "process": process::id(),
    });
    if !record.fields.is_empty() {
        line["fields"] =
            record.fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    }
    line.to_string()
}
