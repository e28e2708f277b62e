//! What is told at one time.

use std::{fmt::Write, thread};

use jiff::Timestamp;
use serde_json::Value;
use tracing::{
    Event,
    field::{Field, Visit},
};

use super::level::Level;

/// One event, as formatters take it.
#[derive(Debug)]
pub(super) struct Record<'e> {
    pub(super) time: Timestamp,
    pub(super) level: Level,
    /// The name of its logger.
    pub(super) name: &'e str,
    pub(super) message: String,
    /// In the order in which they stand in the source.
    pub(super) fields: Vec<(&'static str, Value)>,
    pub(super) file: &'e str,
    pub(super) line: u32,
    pub(super) thread: String,
}

impl<'e> Record<'e> {
    pub(super) fn new(event: &Event<'e>, name: &'e str) -> Self {
        let metadata = event.metadata();
        let mut told = Told::default();
        event.record(&mut told);
        Self {
            time: Timestamp::now(),
            level: (*metadata.level()).into(),
            name,
            message: told.message,
            fields: told.fields,
            file: metadata.file().unwrap_or_default(),
            line: metadata.line().unwrap_or_default(),
            thread: thread::current().name().unwrap_or_default().to_owned(),
        }
    }

    /// The message and the fields, in one line.
    pub(super) fn text(&self) -> String {
        let mut text = self.message.clone();
        for (name, value) in &self.fields {
            let space = if text.is_empty() { "" } else { " " };
            let _ = match value {
                Value::String(value) if plain(value) => write!(text, "{space}{name}={value}"),
                value => write!(text, "{space}{name}={value}"),
            };
        }
        one_line(text)
    }
}

/// Whether `value` can be told from what stands around it.
fn plain(value: &str) -> bool {
    !value.is_empty() && !value.contains(['"', ' ', '=']) && !value.contains(char::is_control)
}

/// `text`, with what would end the line or move the cursor written as JSON writes it: nobody else's text begins a line.
fn one_line(text: String) -> String {
    let odd = |c: char| c.is_control() && c != '\t';
    if !text.contains(odd) {
        return text;
    }
    text.chars().fold(String::new(), |mut line, c| {
        match c {
            '\n' => line.push_str("\\n"),
            '\r' => line.push_str("\\r"),
            c if odd(c) => drop(write!(line, "\\u{:04x}", u32::from(c))),
            c => line.push(c),
        }
        line
    })
}

#[derive(Default)]
struct Told {
    message: String,
    fields: Vec<(&'static str, Value)>,
}

impl Told {
    fn tell(&mut self, field: &Field, value: impl Into<Value>) {
        self.fields.push((field.name().trim_start_matches("r#"), value.into()));
    }
}

impl Visit for Told {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        } else {
            self.tell(field, format!("{value:?}"));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            value.clone_into(&mut self.message);
        } else {
            self.tell(field, value);
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.tell(field, value.to_string());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.tell(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.tell(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.tell(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.tell(field, value);
    }
}
