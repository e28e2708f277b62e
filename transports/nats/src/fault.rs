//! Why something did not get through, before it is known what that means for who asked.

use commissaire::{Error, ErrorKind};

/// How a step on the server fails.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Fault {
    /// The server could not be reached in time; nothing was sent.
    NotSent,
    /// Sent, and no answer in time.
    Late,
    /// Sent, and then the connection broke.
    Lost,
    /// Nobody listens there.
    Nobody,
    /// The server does not allow it.
    Forbidden(String),
    /// JetStream answered with an error.
    Refused { code: u32, text: String },
    /// The stream that it goes to could not be made, for this reason.
    Unmade(ErrorKind, String),
    /// The answer cannot be read.
    Odd(String),
    /// The bus has closed.
    Closed,
}

/// The stream or the consumer holds as much as it may.
const FULL: &[u32] = &[10047, 10023, 10028, 10052];
/// Something could not be stored: full, or a trouble of the server's own, which only the text tells.
const NOT_STORED: u32 = 10077;
/// The stream's files could not be made, as on a disk that is full.
const NO_FILES: u32 = 10049;
/// There is no such stream, consumer or message.
const ABSENT: &[u32] = &[10014, 10059, 10037];

impl Fault {
    /// Whether the server's own answer says that something is absent.
    pub(crate) fn is_absent(&self) -> bool {
        matches!(self, Self::Refused { code, .. } if ABSENT.contains(code))
    }

    /// Whether the same may succeed on the next connection.
    pub(crate) fn passes(&self) -> bool {
        // 10008: the JetStream of a server that has just started is not there yet.
        matches!(self, Self::Lost | Self::Refused { code: 10008 | NOT_STORED, .. }) && !self.is_full()
    }

    pub(crate) fn is_full(&self) -> bool {
        match self {
            Self::Refused { code: NOT_STORED, text } => text.starts_with("maximum "),
            Self::Refused { code, .. } => FULL.contains(code),
            _ => false,
        }
    }

    /// The error for who asked; `what` says what was tried, on what.
    pub(crate) fn into_error(self, what: &str) -> Error {
        match self {
            Self::NotSent => Error::unavailable(format!(
                "{what}: the NATS server could not be reached in time: nothing was sent"
            )),
            Self::Late => Error::new(
                ErrorKind::Timeout,
                format!("{what}: sent, but the NATS server or the other side did not answer in time"),
            )
            .maybe_executed(),
            Self::Lost => Error::unavailable(format!("{what}: the connection to NATS broke in the middle"))
                .maybe_executed(),
            Self::Nobody => Error::unavailable(format!(
                "{what}: JetStream does not answer, or what is meant is gone from the server"
            )),
            Self::Forbidden(text) => Error::new(
                ErrorKind::Forbidden,
                format!("{what}: the NATS server does not allow it ({text}): see the user's permissions"),
            ),
            fault @ Self::Refused { .. } if fault.is_full() => {
                let Self::Refused { code, text } = fault else { return Error::malformed(what) };
                Error::new(
                    ErrorKind::Full,
                    format!(
                        "{what}: it is full ({text}, {code}): start its consumers, or remove what nobody reads"
                    ),
                )
            }
            Self::Refused { code, text } => {
                let kind = if ABSENT.contains(&code) || matches!(code, 10008 | NOT_STORED | NO_FILES) {
                    ErrorKind::Unavailable
                } else {
                    ErrorKind::Topology
                };
                Error::new(kind, format!("{what}: JetStream refused it: {text} ({code})"))
            }
            Self::Unmade(kind, text) => Error::new(kind, format!("{what}: {text}: nothing was stored")),
            Self::Odd(text) => {
                Error::malformed(format!("{what}: the server's answer cannot be read: {text}"))
            }
            Self::Closed => Error::new(ErrorKind::Closed, format!("{what}: the bus is closed")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_is_full_is_no_stream_that_differs() {
        let refused = Fault::Refused { code: NO_FILES, text: "error creating store for stream".to_owned() };
        assert!(refused.into_error("making a stream").is_temporary());
    }

    #[test]
    fn full_is_told_from_broken() {
        let refused = |text: &str| Fault::Refused { code: NOT_STORED, text: text.to_owned() };
        for text in
            ["maximum messages exceeded", "maximum messages per subject exceeded", "maximum bytes exceeded"]
        {
            assert!(refused(text).is_full() && !refused(text).passes(), "{text}");
        }
        let broken = refused("error opening msg block file");
        assert!(!broken.is_full() && broken.passes());
        assert_eq!(*broken.into_error("publishing").kind(), ErrorKind::Unavailable);
    }
}
