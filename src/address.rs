//! Keys and addresses: where a message goes, and how it is shared out there.
//!
//! Grammar, the same on all transports: a token is `[A-Za-z0-9_-]{1,64}`; a key is 1 to 16 tokens joined by dots, at
//! most 200 bytes. A [`Key`] cannot hold a wildcard, a space or a control character, so nothing that a user typed can
//! widen a subscription or name another broker object. Host addresses and cluster names do not fit the grammar on
//! purpose: identities belong in the body.

use std::{fmt, str::FromStr, sync::Arc};

use crate::error::{Error, Result};

/// The most bytes of a key or a pattern.
pub const MAX_KEY: usize = 200;
/// The most tokens of a key or a pattern.
pub const MAX_TOKENS: usize = 16;
/// The most bytes of a token.
pub const MAX_TOKEN: usize = 64;

/// One word of a key: `[A-Za-z0-9_-]{1,64}`. Also the form of names that users choose, such as `bus_exchange` or the
/// name of a durable subscription.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token(Arc<str>);

/// An exact routing key, `storage.get`: tokens joined by dots, never a wildcard. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(Arc<str>);

/// Where the answers to one client's calls go: 128 random bits, shown as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Inbox(u128);

/// Where a message goes. The address decides how the message is shared out:
///
/// | address | who gets it | kept by the broker |
/// |---|---|---|
/// | `Service` | one of the instances running now; else [`NoResponders`](crate::ErrorKind::NoResponders) | no |
/// | `Queue` | one consumer, now or later, until it acknowledges | yes |
/// | `Topic` | each ephemeral subscription now, each durable one now or later | for durable ones |
/// | `Control` | every instance of a service running now | no |
/// | `Inbox` | the client that made it | no |
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// A call, by its whole routing key; [`Key::service`] says which service answers.
    Service(Key),
    /// A work queue, by its whole key. Whoever enqueues declares it.
    Queue(Key),
    /// An event, by its whole key.
    Topic(Key),
    /// All instances of the service that answers to this address, for example to cancel a call.
    Control(Key),
    /// The client that waits for a reply.
    Inbox(Inbox),
}

/// Where a dead letter came from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Origin {
    /// The work queue of this key.
    Queue(Key),
    /// The durable subscription of this name.
    Durable(Token),
}

impl Token {
    /// Checks `text` against the grammar.
    pub fn new(text: impl AsRef<str>) -> Result<Self> {
        let text = text.as_ref();
        check_token(text, text)?;
        Ok(Self(text.into()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Key {
    /// Checks `text` against the grammar.
    ///
    /// ```
    /// use commissaire::Key;
    /// assert_eq!(Key::new("storage.get")?.last(), "get");
    /// assert!(Key::new("notify.*").is_err());
    /// # Ok::<(), commissaire::Error>(())
    /// ```
    pub fn new(text: impl AsRef<str>) -> Result<Self> {
        let text = text.as_ref();
        check_words(text, |token| check_token(token, text))?;
        Ok(Self(text.into()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The words, first to last.
    pub fn tokens(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('.')
    }

    /// The last word: the method of a call.
    pub fn last(&self) -> &str {
        self.0.rsplit('.').next().unwrap_or(&self.0)
    }

    /// The key without its last word, if it has more than one.
    pub fn parent(&self) -> Option<Self> {
        self.0.rsplit_once('.').map(|(parent, _)| Self(parent.into()))
    }

    /// The address of the service that answers calls to this key: the key without its last word (`storage.get` is
    /// answered by `storage`), except that each `jobs.…` key is an address of its own, so that the services behind
    /// them never share one. A key of one word has no service.
    pub fn service(&self) -> Result<Self> {
        if self.0.starts_with("jobs.") {
            return Ok(self.clone());
        }
        self.parent().ok_or_else(|| {
            Error::invalid(format!("key {:?} names no method: a call goes to SERVICE.METHOD", &*self.0))
        })
    }

    /// This key with one more word.
    pub fn join(&self, token: &Token) -> Result<Self> {
        Self::new(format!("{}.{}", self.0, token.0))
    }
}

impl Inbox {
    /// A new inbox that nobody can guess.
    pub fn random() -> Self {
        Self(rand::random())
    }
}

impl Address {
    /// The word for this sort of address in logs and frames.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Service(_) => "service",
            Self::Queue(_) => "queue",
            Self::Topic(_) => "topic",
            Self::Control(_) => "control",
            Self::Inbox(_) => "inbox",
        }
    }

    /// The routing key; an inbox has none.
    pub fn key(&self) -> Option<&Key> {
        match self {
            Self::Service(key) | Self::Queue(key) | Self::Topic(key) | Self::Control(key) => Some(key),
            Self::Inbox(_) => None,
        }
    }

    /// The address of this [kind](Self::kind) and name, as [`name`](Self::name) writes it.
    pub fn parse(kind: &str, name: &str) -> Result<Self> {
        Ok(match kind {
            "service" => Self::Service(Key::new(name)?),
            "queue" => Self::Queue(Key::new(name)?),
            "topic" => Self::Topic(Key::new(name)?),
            "control" => Self::Control(Key::new(name)?),
            "inbox" => Self::Inbox(name.parse()?),
            _ => return Err(Error::malformed(format!("unknown kind of address {kind:?}"))),
        })
    }

    /// The routing key or the inbox as text.
    pub fn name(&self) -> String {
        match self {
            Self::Inbox(inbox) => inbox.to_string(),
            Self::Service(key) | Self::Queue(key) | Self::Topic(key) | Self::Control(key) => key.to_string(),
        }
    }
}

/// Splits at dots and checks number and size; `check` sees each word.
pub(crate) fn check_words(text: &str, mut check: impl FnMut(&str) -> Result<()>) -> Result<()> {
    if text.len() > MAX_KEY {
        return Err(Error::invalid(format!("key of {} bytes: {MAX_KEY} is the most", text.len())));
    }
    let mut count = 0;
    for word in text.split('.') {
        count += 1;
        check(word)?;
    }
    if count > MAX_TOKENS {
        return Err(Error::invalid(format!("key {text:?} has {count} words: {MAX_TOKENS} is the most")));
    }
    Ok(())
}

/// Checks one word; `whole` is what the error shows.
pub(crate) fn check_token(token: &str, whole: &str) -> Result<()> {
    if token.is_empty() {
        return Err(Error::invalid(format!("key {} has an empty word", shown(whole))));
    }
    if token.len() > MAX_TOKEN {
        return Err(Error::invalid(format!(
            "a word of key {} is longer than {MAX_TOKEN} bytes",
            shown(whole)
        )));
    }
    match token.chars().find(|c| !c.is_ascii_alphanumeric() && *c != '_' && *c != '-') {
        None => Ok(()),
        Some(wildcard @ ('*' | '#' | '>')) => Err(Error::invalid(format!(
            "key {} holds the wildcard {wildcard:?}: only a subscription takes patterns",
            shown(whole)
        ))),
        Some(other) => Err(Error::invalid(format!(
            "key {} holds {other:?}: a word is letters, digits, '_' and '-'",
            shown(whole)
        ))),
    }
}

/// `text` quoted and escaped, cut to a size that suits a log line.
fn shown(text: &str) -> String {
    let cut: String = text.chars().take(MAX_TOKEN).collect();
    if cut.len() < text.len() { format!("{cut:?}…") } else { format!("{cut:?}") }
}

impl FromStr for Key {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        Self::new(text)
    }
}

impl FromStr for Token {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        Self::new(text)
    }
}

impl<'de> serde::Deserialize<'de> for Token {
    fn deserialize<D: serde::Deserializer<'de>>(parser: D) -> Result<Self, D::Error> {
        Self::new(String::deserialize(parser)?).map_err(serde::de::Error::custom)
    }
}

impl<'de> serde::Deserialize<'de> for Key {
    fn deserialize<D: serde::Deserializer<'de>>(parser: D) -> Result<Self, D::Error> {
        Self::new(String::deserialize(parser)?).map_err(serde::de::Error::custom)
    }
}

impl serde::Serialize for Key {
    fn serialize<S: serde::Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(&self.0)
    }
}

impl serde::Serialize for Token {
    fn serialize<S: serde::Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(&self.0)
    }
}

impl FromStr for Inbox {
    type Err = Error;
    /// Exactly 32 lower-case hexadecimal digits: a reply address that could name anything else is refused.
    fn from_str(text: &str) -> Result<Self> {
        let digits = text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let parsed = if digits { u128::from_str_radix(text, 16).ok() } else { None };
        parsed.map(Self).ok_or_else(|| Error::malformed("a reply address must be 32 hexadecimal digits"))
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind(), self.name())
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Queue(key) => write!(f, "queue {key}"),
            Self::Durable(name) => write!(f, "durable {name}"),
        }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
