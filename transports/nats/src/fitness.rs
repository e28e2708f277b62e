//! Whether a server is fit: found out when connecting, not assumed.

use commissaire::{Durability, Error, ErrorKind, Result};
use serde_json::Value;
use tokio::time::Instant;

use crate::{fault::Fault, link::Link};

/// The oldest version that has what is needed.
const OLDEST: (u64, u64) = (2, 9);
/// Messages of the bus fit into this, with what is added on the way.
const LEAST_PAYLOAD: usize = commissaire::MAX_RECEIVED;

/// Refuses a server that is not fit, by name of what is missing; else says what stored messages survive.
pub(crate) async fn check(
    link: &Link,
    place: &str,
    demand: Durability,
    deadline: Instant,
) -> Result<Durability> {
    let info = link.client().server_info();
    let missing = |what: String| Err(Error::config(format!("{place}: {what}")));
    if version(&info.version).is_none_or(|found| found < OLDEST) {
        let (major, minor) = OLDEST;
        let found = info.version.escape_default();
        return missing(format!("nats-server {found} is too old: {major}.{minor} or later is needed"));
    }
    if !info.headers {
        return missing("the server has headers switched off (no_header_support): allow them".to_owned());
    }
    if info.max_payload < LEAST_PAYLOAD {
        return missing(format!(
            "max_payload is {} and must be {LEAST_PAYLOAD} at least: set it so in the server's configuration",
            info.max_payload
        ));
    }
    match link.api("INFO", &Value::Null, deadline).await {
        Ok(_) => {}
        // 10039 and 10076: not enabled for the account, not enabled at all.
        Err(Fault::Nobody | Fault::Refused { code: 10039 | 10076 | 503, .. }) => {
            return missing(
                "JetStream is not enabled: add `jetstream {}` to the server's configuration".to_owned(),
            );
        }
        Err(fault) => return Err(fault.into_error(&format!("asking {place} about JetStream"))),
    }
    match demand {
        Durability::Power => Err(Error::new(
            ErrorKind::NotDurable,
            format!(
                "{place} does not promise to keep messages through a loss of power: JetStream writes to disk every \
                 sync_interval (60 s in 2.9, 2 min later), and a client cannot read that setting: write durability=strict"
            ),
        )),
        Durability::None | Durability::Kill => Ok(Durability::Kill),
    }
}

/// Major and minor of a version.
pub(crate) fn version(text: &str) -> Option<(u64, u64)> {
    let mut parts = text.trim_start_matches('v').split(['.', '-']);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared() {
        assert_eq!(version("2.9.10"), Some((2, 9)));
        assert_eq!(version("2.12.0-preview.1"), Some((2, 12)));
        assert!(version("2.10.1") > Some(OLDEST));
        assert_eq!(version(""), None);
    }
}
