//! Whom a service knows, and what it lets them ask for.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
};

use super::PublicKey;
use crate::{
    address::{Key, Token},
    error::{Error, Result},
    pattern::Pattern,
};

/// Rules: which actors there are, by their public keys, and which may send calls and jobs to which routing keys.
///
/// A rule is a [`Pattern`] and a list of names; `*` among them stands for every actor that is known. `#` may only be the
/// last word of a rule's pattern. **The most specific rule decides alone**: reading from the left, a rule with a word is
/// more specific than one with `*`, and that than one with `#`. So `"storage.delete": ["admin"]` takes `delete` out of
/// `"storage.*": ["*"]`, and an empty list closes what it names. What no rule covers is refused; no rules at all let
/// every known actor ask for everything.
#[derive(Clone, PartialEq, Eq)]
pub struct Access {
    actors: HashMap<Token, Vec<PublicKey>>,
    /// The most specific first.
    rules: Vec<(Pattern, Who)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Who {
    Known,
    Named(Vec<Token>),
}

impl Access {
    /// `actors` with their keys, of which each is good; `rules` as written. A rule that names an actor who is not there
    /// is an error.
    pub fn new(
        actors: HashMap<Token, Vec<PublicKey>>,
        rules: Option<&BTreeMap<String, Vec<String>>>,
    ) -> Result<Self> {
        let Some(rules) = rules else {
            return Ok(Self { actors, rules: vec![(Pattern::new("#")?, Who::Known)] });
        };
        let rules = rules.iter().map(|(pattern, names)| rule(pattern, names, &actors));
        let mut rules = rules.collect::<Result<Vec<_>>>()?;
        rules.sort_by_cached_key(|(pattern, _)| breadth(pattern));
        Ok(Self { actors, rules })
    }

    /// Whether `actor` may send calls and jobs to `key`.
    pub fn allows(&self, key: &Key, actor: &Token) -> bool {
        match self.rules.iter().find(|(pattern, _)| pattern.matches(key)) {
            Some((_, Who::Known)) => self.actors.contains_key(actor),
            Some((_, Who::Named(names))) => names.contains(actor),
            None => false,
        }
    }

    /// The names of those who are known.
    pub(super) fn actors(&self) -> impl Iterator<Item = &Token> {
        self.actors.keys()
    }

    pub(super) fn keys(&self, actor: &Token) -> Option<&[PublicKey]> {
        self.actors.get(actor).map(Vec::as_slice)
    }
}

fn rule(pattern: &str, names: &[String], known: &HashMap<Token, Vec<PublicKey>>) -> Result<(Pattern, Who)> {
    let wrong = |what: String| Error::config(format!("access.allow {pattern:?}: {what}"));
    let parsed = Pattern::new(pattern).map_err(|e| wrong(e.to_string()))?;
    if parsed.words().rev().skip(1).any(|word| word == "#") {
        return Err(wrong("'#' may only be the last word".into()));
    }
    if names.iter().any(|name| name == "*") {
        return Ok((parsed, Who::Known));
    }
    let known = |name: &String| {
        let token = Token::new(name).map_err(|e| wrong(e.to_string()))?;
        match known.contains_key(&token) {
            true => Ok(token),
            false => Err(wrong(format!("there is no actor {name:?}: add its public key to access.actors"))),
        }
    };
    Ok((parsed, Who::Named(names.iter().map(known).collect::<Result<_>>()?)))
}

/// Sorts the most specific first; two patterns that cover one key never have the same.
fn breadth(pattern: &Pattern) -> Vec<u8> {
    let word = |word| match word {
        "*" => 1,
        "#" => 3,
        _ => 0,
    };
    // The end is narrower than `#`, which also stands for no word.
    pattern.words().map(word).chain([2]).collect()
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access").field("actors", &self.actors.keys()).field("rules", &self.rules).finish()
    }
}
