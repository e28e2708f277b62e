//! `commissaire listen`: prints what is announced.

use std::{collections::BTreeMap, time::Duration};

use clap::Args;
use commissaire::{
    Delivery, Error, ErrorKind, Pattern, Received, Source, Token,
    app::{Exit, Failure, until_told},
};
use serde::Serialize;
use serde_json::{
    Value, json,
    value::{RawValue, to_raw_value},
};
use tokio::time::{Instant, sleep_until};

use crate::{
    Failed,
    connection::Connection,
    input,
    output::{complain, print},
};

/// How many events are in hand at one time.
const PREFETCH: u16 = 256;

/// Print events, one JSON object a line: key, body, headers, attempt
#[derive(Debug, Args)]
#[command(after_help = "\
Where events may be missing a line {\"gap\": REASON} stands; with --durable NAME the bus keeps what is announced while
nobody listens under that name, and an event is done with when its line is written.

Example: commissaire listen 'notify.storage.#' --count 10 --timeout 1m")]
pub(crate) struct Listen {
    /// What to listen for: * is one word, # is zero or more
    pattern: String,
    /// End after so many events
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// End after so long; with --count that is exit code 4
    #[arg(long, value_name = "DURATION", value_parser = input::duration)]
    timeout: Option<Duration>,
    /// Listen under this name; the bus keeps what is missed
    #[arg(long, value_name = "NAME")]
    durable: Option<String>,
    #[command(flatten)]
    connection: Connection,
}

impl Listen {
    pub(crate) async fn run(self) -> Result<(), Failed> {
        let patterns = vec![Pattern::new(&self.pattern)?];
        let source = match &self.durable {
            Some(name) => Source::Durable(Token::new(name)?, patterns),
            None => Source::Topic(patterns),
        };
        let bus = self.connection.open().await?;
        let mut events = bus.subscribe(source, PREFETCH).await?;
        let (mut left, never) = (self.count.unwrap_or(u64::MAX), Failure::default());
        let told = until_told(&never)?;
        tokio::pin!(told);
        complain("listening");
        let until = self.timeout.map(|timeout| Instant::now() + timeout);
        while left > 0 {
            let received = tokio::select! {
                received = events.next() => received,
                _ = &mut told => break,
                () = sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => {
                    bus.close().await?;
                    return match self.count {
                        Some(count) => {
                            complain(&format!("commissaire: the time ran out after {} of {count} events", count - left));
                            Err(Failed::Said(Exit::Timeout))
                        }
                        None => Ok(()),
                    };
                }
            };
            match received {
                Some(Received::Delivery(delivery)) => {
                    print(&line(&delivery)?)?;
                    delivery.ack().await?;
                    left -= 1;
                }
                Some(Received::Gap(gap)) => print(&json!({ "gap": gap.reason }).to_string())?,
                None => return Err(Error::new(ErrorKind::Unavailable, "the bus was closed").into()),
            }
        }
        drop(events);
        Ok(bus.close().await?)
    }
}

/// One line of output.
#[derive(Serialize)]
struct Line<'a> {
    key: String,
    body: Box<RawValue>,
    headers: BTreeMap<&'a str, &'a str>,
    attempt: u32,
}

fn line(delivery: &Delivery) -> Result<String, Failed> {
    let message = delivery.message();
    let line = Line {
        key: message.address().name(),
        body: body(message.body())?,
        headers: message.headers().iter().collect(),
        attempt: delivery.attempt(),
    };
    Ok(to_raw_value(&line).map_err(unwritable)?.get().to_owned())
}

/// A body that is JSON stands as it is, but in one line; else as a string, or as an array of bytes where it is no text.
fn body(bytes: &[u8]) -> Result<Box<RawValue>, Failed> {
    let written = match std::str::from_utf8(bytes) {
        Ok(text) => match serde_json::from_str::<&RawValue>(text) {
            Ok(raw) if !raw.get().contains(['\n', '\r']) => Ok(raw.to_owned()),
            Ok(raw) => serde_json::from_str::<Value>(raw.get()).and_then(|value| to_raw_value(&value)),
            Err(_) => to_raw_value(text),
        },
        Err(_) => to_raw_value(bytes),
    };
    Ok(written.map_err(unwritable)?)
}

fn unwritable(error: serde_json::Error) -> Error {
    Error::malformed("an event cannot be written as JSON").because(error)
}
