//! Messages: an address, headers and a body.

use std::{borrow::Cow, fmt, time::Duration};

use bytes::Bytes;
use uuid::Uuid;

use crate::{
    address::{Address, Inbox, Origin},
    error::{Error, ErrorKind, Result},
};

/// The most bytes of a message to send, headers and body together: what a NATS server carries as shipped, less what the
/// bus may add on the way (failures and reasons).
pub const MAX_MESSAGE: usize = MAX_RECEIVED - 2048;
/// The most bytes of a message as received, headers and body together.
pub const MAX_RECEIVED: usize = 1 << 20;
/// The most headers of a message.
pub const MAX_HEADERS: usize = 64;
/// What the bus may add to them on the way: failures and reasons.
pub(crate) const RESERVED_HEADERS: usize = 8;
/// The most bytes of a header's name.
pub const MAX_HEADER_NAME: usize = 64;
/// The most bytes of a header's value.
pub const MAX_HEADER_VALUE: usize = 4096;

/// The names of the headers that the framework sets and reads. Transports carry them and look at none but
/// [`TTL`](header::TTL).
pub mod header {
    /// Version of the envelope: `1`.
    pub const VERSION: &str = "bus-v";
    /// The message's own id, a UUID of version 7. A message sent again keeps its id.
    pub const ID: &str = "bus-id";
    /// The inbox that waits for the reply.
    pub const REPLY: &str = "bus-reply";
    /// What joins a reply, or a cancellation, to its call: 128 random bits.
    pub const CORRELATION: &str = "bus-corr";
    /// How long the message is of use, in milliseconds from when it was sent. A transport that held a call for a while
    /// shortens it by that while, so that a deadline shrinks on its way.
    pub const TTL: &str = "bus-ttl-ms";
    /// How many runs of a handler have failed on this message.
    pub const FAILED: &str = "bus-failed";
    /// When and why the first run failed.
    pub const FIRST_FAILURE: &str = "bus-first-failure";
    /// When and why the last run failed.
    pub const LAST_FAILURE: &str = "bus-last-failure";
    /// Why a message became a dead letter: `attempts`, `crashes`, `rejected`.
    pub const DEAD: &str = "bus-dead";
    /// The queue or the durable subscription that a dead letter comes from.
    pub const ORIGIN: &str = "bus-origin";
    /// How often a dead letter was brought back.
    pub const REDRIVEN: &str = "bus-redriven";
    /// Who sends, by the name of its key.
    pub const ACTOR: &str = "bus-actor";
    /// The signature of who sends.
    pub const SIGNATURE: &str = "bus-signature";
    /// Set to `1` by a transport on what came from a program that is not of this framework: it may send members that no
    /// contract has, and these are ignored.
    pub const FOREIGN: &str = "bus-foreign";
    /// W3C trace context, version 00.
    pub const TRACEPARENT: &str = "traceparent";
}

/// The identity of a message, kept when it is sent again.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageId(pub Uuid);

/// What travels. Always within the bus's limits: a message that breaks them cannot be made.
///
/// ```
/// use commissaire::{Address, Key, Message};
/// let message = Message::new(Address::Topic(Key::new("notify.host.seen")?), r#"{"address":"10.0.0.7"}"#)?
///     .with("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")?;
/// assert_eq!(message.headers().get("bus-v"), Some("1"));
/// # Ok::<(), commissaire::Error>(())
/// ```
#[derive(Clone)]
pub struct Message {
    address: Address,
    headers: Headers,
    body: Bytes,
}

/// Names and values beside the body, in the order in which they were set; a name stands once.
///
/// A name is `[a-z0-9-]{1,64}`; a value is at most 4,096 bytes of visible ASCII and spaces, so that every broker can
/// carry it as it is. Names that begin with `bus-` belong to the framework.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers(Vec<(Cow<'static, str>, String)>);

impl MessageId {
    /// A new id, later ones sorting after earlier ones.
    pub fn new() -> Self {
        Self(Uuid::now_v7())
    }
}

impl Default for MessageId {
    fn default() -> Self {
        Self::new()
    }
}

impl Message {
    /// A message with a new id.
    pub fn new(address: Address, body: impl Into<Bytes>) -> Result<Self> {
        Self::with_id(MessageId::new(), address, body)
    }

    /// A message with a given id: who sends the same thing again must give the same id, so that it can be recognised.
    pub fn with_id(id: MessageId, address: Address, body: impl Into<Bytes>) -> Result<Self> {
        let mut headers = Headers(Vec::with_capacity(6));
        headers.put(header::VERSION, "1".into());
        headers.put(header::ID, id.to_string());
        let message = Self { address, headers, body: body.into() };
        message.check_size(MAX_MESSAGE)?;
        Ok(message)
    }

    /// A message as it was received. Fails when it is over the limits or its version is not known.
    pub fn from_parts(address: Address, headers: Headers, body: Bytes) -> Result<Self> {
        match headers.get(header::VERSION) {
            Some("1") => {}
            other => {
                return Err(Error::malformed(format!(
                    "message to {address} has envelope version {other:?}: this program reads \"1\""
                )));
            }
        }
        let message = Self { address, headers, body };
        message.check_size(MAX_RECEIVED)?;
        Ok(message)
    }

    /// Adds or replaces a header.
    pub fn with(mut self, name: impl Into<Cow<'static, str>>, value: impl Into<String>) -> Result<Self> {
        self.headers.set(name, value)?;
        self.check_size(MAX_MESSAGE)?;
        Ok(self)
    }

    /// The same message to another address.
    #[must_use]
    pub fn to(mut self, address: Address) -> Self {
        self.address = address;
        self
    }

    /// Sets how long the message is of use from now; shorter than a millisecond counts as one.
    #[must_use]
    pub fn with_ttl(mut self, ttl: Duration) -> Self {
        let millis = u64::try_from(ttl.as_micros().div_ceil(1000)).unwrap_or(u64::MAX).max(1);
        self.headers.put(header::TTL, millis.to_string());
        self
    }

    /// Notes where a dead letter comes from. For transports: they settle [`DeadLetter`](crate::Settlement::DeadLetter).
    #[must_use]
    pub fn with_origin(mut self, origin: &Origin) -> Self {
        self.headers.put(header::ORIGIN, origin.to_string());
        self
    }

    /// Where it goes.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Its headers.
    pub fn headers(&self) -> &Headers {
        &self.headers
    }

    /// Its headers, to change them. For the framework and transports; [`with`](Self::with) checks sizes.
    pub(crate) fn headers_mut(&mut self) -> &mut Headers {
        &mut self.headers
    }

    /// Its body.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// Its id, if the sender gave it a readable one.
    pub fn id(&self) -> Option<MessageId> {
        self.headers.get(header::ID).and_then(|text| Uuid::try_parse(text).ok()).map(MessageId)
    }

    /// How long it was of use when it was sent.
    pub fn ttl(&self) -> Option<Duration> {
        self.headers.get(header::TTL).and_then(|text| text.parse().ok()).map(Duration::from_millis)
    }

    /// The inbox that waits for a reply. An address that is not a reply address counts as none.
    pub fn reply_to(&self) -> Option<Inbox> {
        self.headers.get(header::REPLY).and_then(|text| text.parse().ok())
    }

    /// How many runs of a handler have failed on it.
    pub fn failed(&self) -> u32 {
        self.headers.get(header::FAILED).and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    /// How often it was a dead letter and was brought back.
    pub fn redriven(&self) -> u32 {
        self.headers.get(header::REDRIVEN).and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    /// How many bytes it has, headers and body together.
    pub fn size(&self) -> usize {
        self.body.len() + self.headers.size()
    }

    fn check_size(&self, most: usize) -> Result<()> {
        let size = self.size();
        if size <= most {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::TooLarge,
            format!("message to {} has {size} bytes, headers included: {most} is the most", self.address),
        ))
    }
}

impl Headers {
    /// The value of `name`.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Sets `name` to `value`.
    pub fn set(&mut self, name: impl Into<Cow<'static, str>>, value: impl Into<String>) -> Result<()> {
        self.insert(name.into(), value.into(), MAX_HEADERS)
    }

    /// Sets `name` to `value` where there are at most `most` headers.
    pub(crate) fn insert(&mut self, name: Cow<'static, str>, value: String, most: usize) -> Result<()> {
        if name.is_empty()
            || name.len() > MAX_HEADER_NAME
            || !name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
        {
            return Err(Error::invalid(format!(
                "header {name:?}: a name is 1 to {MAX_HEADER_NAME} of [a-z0-9-]"
            )));
        }
        if value.len() > MAX_HEADER_VALUE || !value.bytes().all(|b| matches!(b, b' '..=b'~')) {
            return Err(Error::invalid(format!(
                "value of header {name:?}: at most {MAX_HEADER_VALUE} bytes of visible ASCII"
            )));
        }
        if self.0.len() >= most && self.get(&name).is_none() {
            return Err(Error::invalid(format!("header {name:?}: {MAX_HEADERS} headers are the most")));
        }
        self.put(name, value);
        Ok(())
    }

    /// Takes `name` away and returns what it was.
    pub fn remove(&mut self, name: &str) -> Option<String> {
        let at = self.0.iter().position(|(known, _)| known == name)?;
        Some(self.0.remove(at).1)
    }

    /// All names and values, in the order in which they were set.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, value.as_str()))
    }

    /// Sets what is known to be in the grammar.
    pub(crate) fn put(&mut self, name: impl Into<Cow<'static, str>>, value: String) {
        let name = name.into();
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name, value)),
        }
    }

    fn size(&self) -> usize {
        self.0.iter().map(|(name, value)| name.len() + value.len() + 4).sum()
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// Shows where it goes and how large it is, never what it says: a body may hold a secret.
impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Message to {} ({} bytes) {:?}", self.address, self.body.len(), self.headers)
    }
}
