//! Why something could not be done at the broker.

use commissaire::{Error, ErrorKind};
use lapin::ErrorKind as Said;

/// Why an answer is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The connection or the channel was gone before anything was sent.
    NotSent,
    /// The broker takes no messages for the time being; nothing was sent.
    Blocked {
        /// Its reason, `low on memory`.
        why: String,
    },
    /// It went before the answer came.
    Lost,
    /// The answer did not come in time.
    Late,
    /// The broker refused, and closed the channel.
    Refused {
        /// Its code, 404.
        code: u16,
        /// Its words: names of queues and arguments, never a secret.
        text: String,
    },
}

impl Fault {
    /// What lapin says.
    pub(super) fn of(error: &lapin::Error) -> Self {
        match error.kind() {
            Said::ProtocolError(refused) => {
                Self::Refused { code: refused.kind().get_id(), text: refused.get_message().to_string() }
            }
            Said::InvalidChannelState(..) | Said::InvalidConnectionState(_) => Self::NotSent,
            Said::ChannelsLimitReached => Self::Refused {
                code: 504,
                text: "all channels of the connection are in use (channel_max)".to_owned(),
            },
            _ => Self::Lost,
        }
    }

    /// Whether the broker refused because something is not there.
    pub(crate) fn is_missing(&self) -> bool {
        matches!(self, Self::Refused { code: 404, .. })
    }

    /// Whether a queue is known to the broker, and none of its nodes has it.
    pub(crate) fn is_out_of_reach(&self) -> bool {
        matches!(self, Self::Refused { code: 404, text } if text.contains("down or inaccessible"))
    }

    /// Whether trying again on a new channel or connection may help without anybody changing anything.
    pub(crate) fn passes(&self) -> bool {
        match self {
            Self::NotSent | Self::Blocked { .. } | Self::Lost | Self::Late => true,
            Self::Refused { code, .. } => ![402, 403, 406, 530].contains(code),
        }
    }

    /// As an error of `what`, which says what was tried.
    pub(crate) fn into_error(self, what: &str) -> Error {
        match self {
            Self::NotSent => Error::unavailable(format!("{what}: not connected to rabbitmq")),
            Self::Blocked { why } => {
                let why: String = why.chars().filter(|c| !c.is_control()).collect();
                Error::unavailable(format!(
                    "{what}: rabbitmq takes no messages for now ({why}): nothing was sent"
                ))
            }
            Self::Lost => {
                Error::unavailable(format!("{what}: the connection to rabbitmq broke")).maybe_executed()
            }
            Self::Late => Error::new(ErrorKind::Timeout, format!("{what}: rabbitmq did not answer in time"))
                .maybe_executed(),
            Self::Refused { code, text } => {
                let (kind, hint) = match code {
                    403 => (
                        ErrorKind::Forbidden,
                        ": give the user this permission, see the README of commissaire-amqp",
                    ),
                    405 => (ErrorKind::Unavailable, ": another connection holds it for itself"),
                    406 => (
                        ErrorKind::Topology,
                        ": it was declared otherwise, delete it or take another bus_exchange",
                    ),
                    530 => (ErrorKind::Config, ": check the virtual host of bus_uri"),
                    _ => (ErrorKind::Unavailable, ""),
                };
                let text: String = text.chars().filter(|c| !c.is_control()).collect();
                Error::new(kind, format!("{what}: rabbitmq refused it: {text}{hint}"))
            }
        }
    }
}
