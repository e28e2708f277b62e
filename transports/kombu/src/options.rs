//! What a `bus_uri` of these schemes may say.

use std::{str::FromStr, time::Duration};

use commissaire::{BusUri, Error, Result};
use commissaire_redis_link::address::{Address, Way};

const COMMON: &[&str] = &["durability", "global_keyprefix", "visibility_timeout", "sep", "priority_steps"];
const TLS: &[&str] = &["ca_file", "cert_file", "key_file"];
const SOCKET: &[&str] = &["db", "user", "password_file"];

/// What a `bus_uri` says beyond where the server is: the transport options of the Kombu programs there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Before every key.
    pub(crate) prefix: String,
    /// Between the parts of a binding, and before the priority in the name of a list.
    pub(crate) sep: String,
    /// The priorities that have a list of their own, ascending; the first is 0.
    pub(crate) steps: Vec<u8>,
    /// After how long Kombu programs take a message back from a consumer that has not acknowledged it.
    pub(crate) visibility: Duration,
}

impl Default for Layout {
    fn default() -> Self {
        Self {
            prefix: String::new(),
            sep: "\x06\x16".to_owned(),
            steps: vec![0, 3, 6, 9],
            visibility: Duration::from_secs(3600),
        }
    }
}

/// Reads `uri`; every part of it is used or refused.
pub(crate) fn read(uri: &BusUri) -> Result<(Address, Layout)> {
    let (way, more) = match uri.scheme() {
        "kombu+redis+socket" => (Way::Socket, SOCKET),
        "kombu+rediss" => (Way::Tls, TLS),
        _ => (Way::Tcp, &[][..]),
    };
    let options = uri.options(&[COMMON, more].concat())?;
    let mut layout = Layout::default();
    if let Some(prefix) = options.get("global_keyprefix") {
        layout.prefix.clone_from(prefix);
    }
    if let Some(sep) = options.get("sep") {
        // What stands in a name or in an expression could be taken for it.
        let taken = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.*#$^()[]+\\/~ ".contains(&byte);
        if sep.is_empty() || sep.bytes().any(taken) {
            return Err(Error::config(
                "bus_uri's sep may hold no letters, digits or blanks, and none of _-.*#$^()[]+\\/~",
            ));
        }
        layout.sep.clone_from(sep);
    }
    if let Some(steps) = options.get("priority_steps") {
        let wrong = || {
            Error::config(format!(
                "bus_uri has priority_steps={steps:?}: write numbers from 0 to 9, ascending, the first 0: 0,3,6,9"
            ))
        };
        layout.steps = steps.split(',').map(u8::from_str).collect::<Result<_, _>>().map_err(|_| wrong())?;
        let sorted = layout.steps.is_sorted_by(|one, next| one < next);
        if layout.steps.first() != Some(&0) || !sorted || layout.steps.last() > Some(&9) {
            return Err(wrong());
        }
    }
    if let Some(timeout) = options.get("visibility_timeout") {
        let seconds = timeout.parse().ok().filter(|seconds| (1..=1 << 31).contains(seconds));
        layout.visibility = seconds.map(Duration::from_secs).ok_or_else(|| {
            Error::config(format!(
                "bus_uri has visibility_timeout={timeout:?}: write whole seconds, at least 1"
            ))
        })?;
    }
    Ok((Address::read(uri, way, &options)?, layout))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(query: &str) -> Result<Layout> {
        read(&format!("kombu+redis://h?{query}").parse()?).map(|(_, layout)| layout)
    }

    #[test]
    fn options_are_those_of_kombu() {
        assert_eq!(layout("").unwrap(), Layout::default());
        let read = layout("global_keyprefix=a:&sep=%7C&priority_steps=0,5&visibility_timeout=60").unwrap();
        let visibility = Duration::from_secs(60);
        assert_eq!(read, Layout { prefix: "a:".into(), sep: "|".into(), steps: vec![0, 5], visibility });
    }

    #[test]
    fn options_that_cannot_be_used_are_refused() {
        for query in [
            "sep=",
            "sep=a",
            "sep=.",
            "priority_steps=",
            "priority_steps=3,6",
            "priority_steps=0,6,3",
            "priority_steps=0,10",
            "visibility_timeout=0",
            "visibility_timeout=1h",
            "prefix=x",
        ] {
            assert!(layout(query).is_err(), "{query}");
        }
    }
}
