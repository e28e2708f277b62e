//! The names of keys and channels. One hash tag holds all of an exchange; the number is the version of the layout.

use commissaire::{Inbox, Key, Origin, Pattern, Token, What};

const LAYOUT: u32 = 1;

/// The names of one exchange. A name is made of tokens and dots, so `:` keeps them apart.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    prefix: String,
}

impl Keys {
    pub(crate) fn new(exchange: &Token) -> Self {
        Self { prefix: format!("bus:{{{exchange}}}:{LAYOUT}:") }
    }

    /// List of calls waiting for a service.
    pub(crate) fn calls(&self, service: &Key) -> String {
        format!("{}rpc:{service}", self.prefix)
    }

    /// String that lives while some instance of a service is running and not stopped.
    pub(crate) fn live(&self, service: &Key) -> String {
        format!("{}live:{service}", self.prefix)
    }

    /// Channel that each instance of a service listens to; its number of listeners is the presence.
    pub(crate) fn here(&self, service: &Key) -> String {
        format!("{}here:{service}", self.prefix)
    }

    /// Channel of control messages to a service.
    pub(crate) fn control(&self, service: &Key) -> String {
        format!("{}ctl:{service}", self.prefix)
    }

    /// Channel of replies to an inbox.
    pub(crate) fn inbox(&self, inbox: &Inbox) -> String {
        format!("{}rep:{inbox}", self.prefix)
    }

    /// List of replies to an inbox that nobody listened to.
    pub(crate) fn missed(&self, inbox: &Inbox) -> String {
        format!("{}rep:{inbox}:l", self.prefix)
    }

    /// Channel of an event.
    pub(crate) fn event(&self, key: &Key) -> String {
        format!("{}evt:{key}", self.prefix)
    }

    /// The key of the event that `channel` carries.
    pub(crate) fn event_of<'a>(&self, channel: &'a str) -> Option<&'a str> {
        channel.strip_prefix(self.prefix.as_str())?.strip_prefix("evt:")
    }

    /// The smallest glob over channels that holds all that `pattern` covers. A `*` of Redis crosses dots, so it may hold
    /// more.
    pub(crate) fn glob(&self, pattern: &Pattern) -> String {
        let mut glob = format!("{}evt:", self.prefix);
        let mut open = false;
        for (at, word) in pattern.words().enumerate() {
            if word == "#" {
                // `a.#` covers `a` too: the dot before belongs to what may be absent.
                if !glob.ends_with('*') {
                    glob.push('*');
                }
                open = true;
                continue;
            }
            if at > 0 && !open {
                glob.push('.');
            }
            // Behind a `*` that stands for `#` nothing is known of the dot before this word.
            open = false;
            if word != "*" || !glob.ends_with('*') {
                glob.push_str(word);
            }
        }
        glob
    }

    /// The glob over all events.
    pub(crate) fn all_events(&self) -> String {
        format!("{}evt:*", self.prefix)
    }

    /// Stream of a work queue.
    pub(crate) fn queue(&self, key: &Key) -> String {
        format!("{}q:{key}", self.prefix)
    }

    /// Stream of a durable subscription.
    pub(crate) fn durable(&self, name: &str) -> String {
        format!("{}sub:{name}", self.prefix)
    }

    /// Stream of dead letters.
    pub(crate) fn dead(&self, origin: &Origin) -> String {
        match origin {
            Origin::Queue(key) => format!("{}:d", self.queue(key)),
            Origin::Durable(name) => format!("{}:d", self.durable(name.as_str())),
        }
    }

    /// Hash from durable subscription to its patterns.
    pub(crate) fn bindings(&self) -> String {
        format!("{}bind", self.prefix)
    }

    /// Number that changes whenever the bindings do.
    pub(crate) fn version(&self) -> String {
        format!("{}bind:v", self.prefix)
    }

    /// Hash from durable subscription to the ms after which it may be removed, and when it was last read.
    pub(crate) fn registry(&self) -> String {
        format!("{}bind:s", self.prefix)
    }

    /// The beginning of all names.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The glob over what a survey tells of, and little else.
    pub(crate) fn surveyed(&self) -> String {
        format!("{}[qsrl]*", self.prefix)
    }

    /// What `key` belongs to, if a survey tells of it.
    pub(crate) fn what(&self, key: &str) -> Option<What> {
        let (kind, rest) = key.strip_prefix(self.prefix.as_str())?.split_once(':')?;
        let (name, part) = rest.split_once(':').map_or((rest, ""), |(name, part)| (name, part));
        Some(match (kind, part) {
            ("rpc" | "live", "") => What::Service(Key::new(name).ok()?),
            ("q", "d") => What::DeadQueue(Key::new(name).ok()?),
            ("q", _) => What::Queue(Key::new(name).ok()?),
            ("sub", "d") => What::DeadDurable(Token::new(name).ok()?),
            ("sub", _) => What::Durable(Token::new(name).ok()?),
            _ => return None,
        })
    }

    /// Channel that a process listens to while it lives, before its id.
    pub(crate) fn alive(&self) -> String {
        format!("{}alive:", self.prefix)
    }

    /// Channel that names streams in which something was given back.
    pub(crate) fn back(&self) -> String {
        format!("{}back", self.prefix)
    }

    /// Private key with which a process wakes its own blocked reader.
    pub(crate) fn wake(&self, reader: &str, id: &str) -> String {
        format!("{}wake:{reader}:{id}", self.prefix)
    }
}

/// Whether Redis would let `text` through `glob`, which holds no other wildcard than `*`.
pub(crate) fn glob_matches(glob: &str, text: &str) -> bool {
    let mut parts = glob.split('*');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_glob_holds_all_that_its_pattern_covers() {
        let keys = Keys::new(&Token::new("x").unwrap());
        let words = ["a", "b", "a.a", "a.b", "b.a", "b.b", "a.b.a", "b.a.b", "a.a.b", "a.b.b.a", "b.b.b.b"];
        let parts = ["a", "b", "*", "#"];
        for n in 1..=4_usize {
            for code in 0..parts.len().pow(n as u32) {
                let text: Vec<&str> =
                    (0..n).map(|i| parts[code / parts.len().pow(i as u32) % parts.len()]).collect();
                let pattern = Pattern::new(text.join(".")).unwrap();
                let glob = keys.glob(&pattern);
                for word in words {
                    let key = Key::new(word).unwrap();
                    if pattern.matches(&key) {
                        assert!(glob_matches(&glob, &keys.event(&key)), "{pattern} as {glob} misses {word}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_key_tells_what_it_belongs_to() {
        let keys = Keys::new(&Token::new("x").unwrap());
        let key = Key::new("jobs.a").unwrap();
        let name = Token::new("a").unwrap();
        for (text, what) in [
            (keys.calls(&key), What::Service(key.clone())),
            (keys.live(&key), What::Service(key.clone())),
            (keys.queue(&key), What::Queue(key.clone())),
            (format!("{}:z", keys.queue(&key)), What::Queue(key.clone())),
            (keys.dead(&Origin::Queue(key.clone())), What::DeadQueue(key.clone())),
            (keys.durable("a"), What::Durable(name.clone())),
            (keys.dead(&Origin::Durable(name.clone())), What::DeadDurable(name)),
        ] {
            assert_eq!(keys.what(&text), Some(what), "{text}");
        }
        for text in [keys.bindings(), keys.missed(&Inbox::random()), keys.wake("x", "0"), "other".into()] {
            assert_eq!(keys.what(&text), None, "{text}");
        }
    }

    #[test]
    fn a_glob_without_wildcards_is_exact() {
        assert!(glob_matches("x:a.b", "x:a.b"));
        assert!(!glob_matches("x:a.b", "x:a.b.c"));
        assert!(glob_matches("x:a*", "x:a"));
        assert!(!glob_matches("a*a", "a"));
    }
}
