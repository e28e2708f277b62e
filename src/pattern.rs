//! Patterns: what a subscription wants to hear.

use std::{fmt, str::FromStr, sync::Arc};

use crate::{
    address::{Key, check_token, check_words},
    error::{Error, Result},
};

/// A pattern over keys: each word is a token, `*` (exactly one word) or `#` (zero or more words). The same rules on all
/// transports, `#` in the middle included.
///
/// ```
/// use commissaire::{Key, Pattern};
/// let all: Pattern = "notify.storage.#".parse()?;
/// assert!(all.matches(&Key::new("notify.storage")?));
/// assert!(all.matches(&Key::new("notify.storage.Host.created")?));
/// let deleted: Pattern = "notify.storage.*.deleted".parse()?;
/// assert!(!deleted.matches(&Key::new("notify.storage.Host.created")?));
/// # Ok::<(), commissaire::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pattern(Arc<str>);

impl Pattern {
    /// Checks `text` against the grammar.
    pub fn new(text: impl AsRef<str>) -> Result<Self> {
        let text = text.as_ref();
        check_words(text, |word| if word == "*" || word == "#" { Ok(()) } else { check_token(word, text) })?;
        Ok(Self(text.into()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The words, first to last.
    pub fn words(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('.')
    }

    /// Whether `key` is covered. Takes time proportional to words of pattern × words of key, whatever the pattern.
    pub fn matches(&self, key: &Key) -> bool {
        let mut pattern = self.0.split('.');
        let mut words = key.as_str().split('.');
        // After a `#`: where to take up the pattern again, and the words it has not swallowed yet.
        let mut retry = None;
        loop {
            let words_here = words.clone();
            match (pattern.next(), words.next()) {
                (Some("#"), _) => {
                    retry = Some((pattern.clone(), words_here.clone()));
                    words = words_here;
                }
                (None, None) => return true,
                (Some("*"), Some(_)) => {}
                (Some(want), Some(word)) if want == word => {}
                _ => match &mut retry {
                    None => return false,
                    Some((after, swallowed)) => {
                        if swallowed.next().is_none() {
                            return false;
                        }
                        pattern = after.clone();
                        words = swallowed.clone();
                    }
                },
            }
        }
    }
}

impl From<Key> for Pattern {
    fn from(key: Key) -> Self {
        Self(key.as_str().into())
    }
}

impl FromStr for Pattern {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        Self::new(text)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}
