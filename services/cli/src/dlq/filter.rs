//! Which dead letters are meant.

use std::{convert::Infallible, str::FromStr};

use commissaire::DeadLetter;

/// Which dead letters are meant: `cause=WORD`, or a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Filter {
    /// It died of exactly this.
    Cause(String),
    /// Its id or the key that it was sent to is exactly this, or its last failure holds it.
    Text(String),
}

impl FromStr for Filter {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text.strip_prefix("cause=") {
            Some(cause) => Self::Cause(cause.to_owned()),
            None => Self::Text(text.to_owned()),
        })
    }
}

impl Filter {
    /// Whether `letter` is meant.
    pub(crate) fn takes(&self, letter: &DeadLetter) -> bool {
        match self {
            Self::Cause(cause) => letter.cause.as_ref() == Some(cause),
            Self::Text(text) => {
                letter.id.as_ref() == Some(text)
                    || letter.address.split_once(' ').is_some_and(|(_, key)| key == text)
                    || letter.last_failure.as_ref().is_some_and(|last| last.reason.contains(text))
            }
        }
    }
}
