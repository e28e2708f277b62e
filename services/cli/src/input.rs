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

/// Reads `10s`, `250ms`, `1m30s`, `1d 12h`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "write it as 10s, 250ms, 1m30s or 7d".to_owned();
    // Days are none of the library's units for spans that know no calendar.
    let (days, rest) = match text.split_once('d') {
        Some((days, rest)) => (days.trim().parse::<u32>().map_err(|_| wrong())?, rest.trim()),
        None => (0, text),
    };
    let rest = match (days, rest) {
        (1.., "") => Duration::ZERO,
        _ => {
            let parsed: jiff::SignedDuration = rest.parse().map_err(|_| wrong())?;
            Duration::try_from(parsed).map_err(|_| "must not be negative".to_owned())?
        }
    };
    let duration = Duration::from_secs(u64::from(days) * 86_400).saturating_add(rest);
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Duration;

    use super::{duration, rate};

    #[test]
    fn spans_of_time_are_read_up_to_days() {
        for (text, seconds) in
            [("10s", 10), ("1m30s", 90), ("1d", 86_400), ("1d 12h", 129_600), ("7d", 604_800)]
        {
            assert_eq!(duration(text).unwrap(), Duration::from_secs(seconds), "{text}");
        }
        for wrong in ["", "d", "0d", "-1d", "1dd", "-5s", "10", "400d", "1d -5s"] {
            duration(wrong).unwrap_err();
        }
    }

    #[test]
    fn a_rate_is_so_many_in_a_second() {
        assert_eq!(rate("50/s").unwrap(), Duration::from_millis(20));
        for wrong in ["0/s", "-1/s", "50/m", "/s", "fast"] {
            rate(wrong).unwrap_err();
        }
    }
}
