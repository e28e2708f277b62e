//! What the command line holds: durations and JSON.

use std::{
    io::{IsTerminal, Read, Write},
    time::Duration,
};

use commissaire::{Error, ErrorKind, RpcError, app::Exit, jsonrpc::check};
use serde_json::value::RawValue;

use crate::{Failed, output::complain};

/// The longest that a command waits.
const LONGEST: Duration = Duration::from_secs(365 * 86_400);

/// Reads `10s`, `250ms`, `1m30s`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let parsed: jiff::SignedDuration =
        text.parse().map_err(|_| "write it as 10s, 250ms or 1m30s".to_owned())?;
    let duration = Duration::try_from(parsed).map_err(|_| "must not be negative".to_owned())?;
    if duration > LONGEST { Err("must be at most a year".to_owned()) } else { Ok(duration) }
}

/// The text itself, or what standard input holds for `-`. Bounded by what the bus carries.
pub(crate) fn text(argument: &str) -> Result<String, Failed> {
    if argument != "-" {
        return Ok(argument.to_owned());
    }
    let mut text = String::new();
    std::io::stdin()
        .take(commissaire::MAX_RECEIVED as u64 + 1)
        .read_to_string(&mut text)
        .map_err(|e| Error::invalid("cannot read standard input").because(e))?;
    if text.len() > commissaire::MAX_RECEIVED {
        let what = format!(
            "standard input holds more than the {} bytes that the bus carries",
            commissaire::MAX_RECEIVED
        );
        return Err(Error::new(ErrorKind::TooLarge, what).into());
    }
    Ok(text)
}

/// Reads parameters; what is not JSON is said as the JSON-RPC error that it is.
pub(crate) fn params(argument: &str) -> Result<Box<RawValue>, Failed> {
    let text = text(argument)?;
    if let Err(error) = check(text.as_bytes()) {
        if error.code == RpcError::PARSE {
            return Err(say(&error));
        }
        return Err(Error::invalid(error.message).into());
    }
    if !text.trim_start().starts_with(['{', '[']) {
        return Err(Error::invalid("params must be a JSON object or array").into());
    }
    RawValue::from_string(text.trim().to_owned())
        .map_err(|_| say(&RpcError::new(RpcError::PARSE, "parse error: not JSON")))
}

/// Puts the error on standard error, as JSON.
pub(crate) fn say(error: &RpcError) -> Failed {
    match serde_json::to_string(error) {
        Ok(json) => complain(&json),
        Err(_) => complain(&format!("commissaire: {error}")),
    }
    Failed::Said(Exit::Failed)
}

/// Reads `50/s` as the time between two.
pub(crate) fn rate(text: &str) -> Result<Duration, String> {
    let number = text.strip_suffix("/s").unwrap_or(text).parse::<u32>().ok().filter(|number| *number > 0);
    number.map(|number| Duration::from_secs(1) / number).ok_or_else(|| "write it as 50/s".to_owned())
}

/// Asks on the terminal whether to do `what`; where there is none, nobody can be asked.
pub(crate) fn confirm(what: &str) -> Result<(), Failed> {
    if !std::io::stdin().is_terminal() {
        return Err(Error::invalid(format!("to {what} say --yes: there is no terminal to ask on")).into());
    }
    let _ = write!(std::io::stderr(), "{what}? [y/N] ");
    let mut answer = String::new();
    std::io::stdin()
        .read_line(&mut answer)
        .map_err(|e| Error::invalid("cannot read the answer").because(e))?;
    if matches!(answer.trim(), "y" | "Y" | "yes") {
        return Ok(());
    }
    complain("nothing was done");
    Err(Failed::Said(Exit::Nothing))
}
