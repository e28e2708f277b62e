//! Agreeing on keys with a host, if it is the one that is meant.

use std::sync::{Arc, Mutex, PoisonError};

use russh::{
    client::{self, Handle},
    keys::PublicKeyOrCertificate,
};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

use crate::{
    dial::{self, Stream},
    failure::{Failure, FailureKind},
    trust::Expected,
};

/// A connection is looked after this often when nothing comes, and given up after three looks without an answer.
const KEEPALIVE: Duration = Duration::from_secs(10);
/// After so long without a word a connection is given up, whatever it was about.
const SILENCE: Duration = Duration::from_secs(60);

/// Agrees on keys with the host, if it is the one that is meant. With its key, if that was not known.
pub(crate) async fn handshake(
    limit: Duration,
    stream: Box<dyn Stream>,
    address: &str,
    expected: Expected,
) -> Result<(Handle<Checker>, Option<String>), Failure> {
    let deadline = Instant::now() + limit;
    let stream = dial::banner(stream, address, limit).await?;
    let config = client::Config {
        preferred: expected.preferred(),
        keepalive_interval: Some(KEEPALIVE),
        keepalive_max: 3,
        // Also of one that never comes to authentication; answers to looks count.
        inactivity_timeout: Some(SILENCE),
        nodelay: true,
        ..client::Config::default()
    };
    let new_key = Arc::new(Mutex::new(None));
    let checker = Checker { expected, new_key: new_key.clone() };
    let handle = timeout_at(deadline, client::connect_stream(Arc::new(config), stream, checker)).await;
    let handle = handle.map_err(|_| {
        let text = format!("{address} did not agree on keys within {limit:?}");
        Failure::new(FailureKind::TimedOut, text)
    })?;
    let handle = handle.map_err(|refusal| match refusal {
        Refusal::Untrusted(failure) => failure,
        Refusal::Protocol(error) => broken(address, "while it agreed on keys", &error),
    })?;
    let new_key = new_key.lock().unwrap_or_else(PoisonError::into_inner).take();
    Ok((handle, new_key))
}

/// A connection that broke.
pub(crate) fn broken(address: &str, when: &str, error: &russh::Error) -> Failure {
    match error {
        russh::Error::NoCommonAlgo { kind, theirs, .. } => Failure::new(
            FailureKind::NoBanner,
            format!("{address} and we have no {kind:?} algorithm in common; it has {}", theirs.join(", ")),
        ),
        error => {
            Failure::new(FailureKind::Lost, format!("the connection to {address} broke {when} ({error})"))
        }
    }
}

/// Looks at the key that a host shows.
pub(crate) struct Checker {
    expected: Expected,
    new_key: Arc<Mutex<Option<String>>>,
}

#[derive(Debug)]
pub(crate) enum Refusal {
    Untrusted(Failure),
    Protocol(russh::Error),
}

impl From<russh::Error> for Refusal {
    fn from(error: russh::Error) -> Self {
        Self::Protocol(error)
    }
}

impl client::Handler for Checker {
    type Error = Refusal;

    async fn check_server_key(&mut self, key: &PublicKeyOrCertificate) -> Result<bool, Refusal> {
        let new_key = self.expected.check(key).map_err(Refusal::Untrusted)?;
        *self.new_key.lock().unwrap_or_else(PoisonError::into_inner) = new_key;
        Ok(true)
    }
}
