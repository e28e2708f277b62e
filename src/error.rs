//! Errors between this program and its broker.
//!
//! An [`Error`] answers three questions that callers act on: what [kind](Error::kind) it is, whether trying again can
//! help ([`is_temporary`](Error::is_temporary)), and whether the other side may have carried the request out
//! ([`may_have_executed`](Error::may_have_executed)). "Not sent" and "unknown" are never mixed up.
//! What a callee says to its caller is an [`RpcError`]; it travels inside [`ErrorKind::Remote`].

use std::{fmt, time::Duration};

use crate::jsonrpc::RpcError;

/// The result of everything that touches the bus.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why something could not be done on the bus. Small to pass around: one pointer.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    what: String,
    unknown: bool,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// The sorts of [`Error`], the same on every transport.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// No running instance serves the address. Nothing was sent.
    NoResponders,
    /// The deadline passed first.
    Timeout,
    /// The broker could not be reached, or the connection broke in the middle.
    Unavailable,
    /// The service has more calls waiting than it takes. Nothing was executed.
    Busy,
    /// A queue or durable subscription holds as much as it may. Nothing was stored.
    Full,
    /// Larger than the bus carries ([`MAX_MESSAGE`](crate::message::MAX_MESSAGE)). Nothing was sent.
    TooLarge,
    /// A key, pattern, name or header that breaks the grammar. Nothing was sent.
    Invalid,
    /// The broker does not give the durability that was asked for.
    NotDurable,
    /// The broker refused the credentials or the operation.
    Forbidden,
    /// What the broker has declared differs from what is needed.
    Topology,
    /// A configuration that cannot be used, `bus_uri` among it.
    Config,
    /// The bus or the program is closing; nothing new is taken.
    Closed,
    /// Data that cannot be read as what it should be.
    Malformed,
    /// The callee answered with an error of its own.
    Remote(RpcError),
}

impl ErrorKind {
    /// The stable name of the kind, for logs, metrics and JSON output.
    pub fn name(&self) -> &'static str {
        match self {
            Self::NoResponders => "no_responders",
            Self::Timeout => "timeout",
            Self::Unavailable => "unavailable",
            Self::Busy => "busy",
            Self::Full => "full",
            Self::TooLarge => "too_large",
            Self::Invalid => "invalid",
            Self::NotDurable => "not_durable",
            Self::Forbidden => "forbidden",
            Self::Topology => "topology",
            Self::Config => "config",
            Self::Closed => "closed",
            Self::Malformed => "malformed",
            Self::Remote(_) => "remote",
        }
    }

    /// The kind of this [name](Self::name); `Remote` has a body and cannot be made from a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "no_responders" => Self::NoResponders,
            "timeout" => Self::Timeout,
            "unavailable" => Self::Unavailable,
            "busy" => Self::Busy,
            "full" => Self::Full,
            "too_large" => Self::TooLarge,
            "invalid" => Self::Invalid,
            "not_durable" => Self::NotDurable,
            "forbidden" => Self::Forbidden,
            "topology" => Self::Topology,
            "config" => Self::Config,
            "closed" => Self::Closed,
            "malformed" => Self::Malformed,
            _ => return None,
        })
    }
}

impl Error {
    /// An error of `kind`; `what` says in lower case what was tried, on what, and what to do next. Never a secret.
    pub fn new(kind: ErrorKind, what: impl Into<String>) -> Self {
        Self(Box::new(Inner { kind, what: what.into(), unknown: false, source: None }))
    }

    /// Marks that the request may have been carried out in spite of this error.
    #[must_use]
    pub fn maybe_executed(mut self) -> Self {
        self.0.unknown = true;
        self
    }

    /// Keeps `source` as the cause. Its text is appended by [`chain`](Self::chain), so it must hold no secret.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// No instance serves `address`.
    pub fn no_responders(address: impl fmt::Display) -> Self {
        Self::new(
            ErrorKind::NoResponders,
            format!(
                "no running service answers {address:?}: start one, or check bus_uri and bus_exchange",
                address = address.to_string()
            ),
        )
    }

    /// `what` did not end within `limit`.
    pub fn timeout(what: impl fmt::Display, limit: Duration) -> Self {
        Self::new(ErrorKind::Timeout, format!("{what} did not end within {limit:?}"))
    }

    /// A name or a value that breaks the grammar.
    pub fn invalid(what: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, what)
    }

    /// A configuration that cannot be used.
    pub fn config(what: impl Into<String>) -> Self {
        Self::new(ErrorKind::Config, what)
    }

    /// The broker cannot be reached now.
    pub fn unavailable(what: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unavailable, what)
    }

    /// Data that cannot be read.
    pub fn malformed(what: impl Into<String>) -> Self {
        Self::new(ErrorKind::Malformed, what)
    }

    /// What sort of error this is.
    pub fn kind(&self) -> &ErrorKind {
        &self.0.kind
    }

    /// Whether the same request may succeed later without anybody changing it.
    pub fn is_temporary(&self) -> bool {
        matches!(
            self.0.kind,
            ErrorKind::NoResponders
                | ErrorKind::Timeout
                | ErrorKind::Unavailable
                | ErrorKind::Busy
                | ErrorKind::Full
        )
    }

    /// Whether the other side may have carried the request out. `false` is a promise: it was not.
    ///
    /// An answer of the callee ([`ErrorKind::Remote`]) is its own word and counts as executed, unless it says busy.
    pub fn may_have_executed(&self) -> bool {
        match &self.0.kind {
            ErrorKind::Remote(error) => error.code != RpcError::BUSY,
            _ => self.0.unknown,
        }
    }

    /// What the callee answered, if this is its answer.
    pub fn remote(&self) -> Option<&RpcError> {
        match &self.0.kind {
            ErrorKind::Remote(error) => Some(error),
            _ => None,
        }
    }

    /// This error and its causes in one line.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut next = std::error::Error::source(self);
        while let Some(cause) = next {
            let cause_text = cause.to_string();
            if !text.ends_with(&cause_text) {
                text.push_str(": ");
                text.push_str(&cause_text);
            }
            next = cause.source();
        }
        text
    }
}

impl From<RpcError> for Error {
    fn from(error: RpcError) -> Self {
        let what = error.to_string();
        Self::new(ErrorKind::Remote(error), what)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.what)?;
        if self.0.unknown {
            f.write_str(" (maybe executed)")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.kind.name(), self.chain())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}
