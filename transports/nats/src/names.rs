//! What things are called on the server. Subjects are `EXCHANGE.1.KIND.…`; names of streams and consumers, which hold
//! no dots, join their parts by `=` and write the dots of a key as `+`. Neither sign is in a token, so nothing that is
//! different is ever called the same.

use commissaire::{Inbox, Key, Origin, Pattern, Token};

/// The most bytes of a name that the server keeps as a folder.
const MOST_NAME: usize = 200;

/// The names of one exchange.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    exchange: String,
}

impl Names {
    pub(crate) fn new(exchange: &Token) -> Self {
        Self { exchange: exchange.to_string() }
    }

    /// The exchange's own name.
    pub(crate) fn exchange(&self) -> &str {
        &self.exchange
    }

    /// Calls to a service.
    pub(crate) fn service(&self, service: &Key) -> String {
        format!("{}.1.s.{service}", self.exchange)
    }

    /// Control messages to a service.
    pub(crate) fn control(&self, service: &Key) -> String {
        format!("{}.1.c.{service}", self.exchange)
    }

    /// An event. The last word lets a trailing `#` match nothing.
    pub(crate) fn event(&self, key: &Key) -> String {
        format!("{}.1.e.{key}._", self.exchange)
    }

    /// All events.
    pub(crate) fn all_events(&self) -> String {
        format!("{}.1.e.>", self.exchange)
    }

    /// A subject that a filter of events covers and that no event has.
    pub(crate) fn no_event(filter: &str) -> String {
        let word = |word| if word == "*" || word == ">" { "=" } else { word };
        filter.split('.').map(word).collect::<Vec<_>>().join(".")
    }

    /// Beside them in their stream: what nobody takes.
    pub(crate) fn kept(&self) -> String {
        format!("{}.1.k", self.exchange)
    }

    /// One subject that covers every event that one of `patterns` covers, and maybe more.
    pub(crate) fn covering(&self, patterns: &[Pattern]) -> String {
        let mut common: Option<Vec<String>> = None;
        for pattern in patterns {
            let mut words: Vec<String> = Vec::new();
            for word in pattern.words() {
                if word == "#" {
                    words.push(">".to_owned());
                    break;
                }
                words.push(word.to_owned());
            }
            if words.last().is_none_or(|word| word != ">") {
                words.push("_".to_owned());
            }
            common = Some(match common {
                None => words,
                Some(common) => joint(&common, &words),
            });
        }
        let mut words = common.unwrap_or_else(|| vec![">".to_owned()]);
        // Of all subjects so long this covers just that with the last word of a key. Always a wildcard: nats-server 2.9
        // finds nothing any more when the filter of a consumer becomes one that was none.
        if let Some(last) = words.last_mut().filter(|last| *last == "_") {
            *last = "*".to_owned();
        }
        format!("{}.1.e.{}", self.exchange, words.join("."))
    }

    /// Where the jobs of a queue are published, or the retries of a durable subscription when they are due.
    pub(crate) fn work(&self, origin: &Origin) -> String {
        format!("{}.1.{}", self.exchange, of(origin))
    }

    /// Where its retries rest.
    pub(crate) fn rest(&self, origin: &Origin) -> String {
        format!("{}.1.z.{}", self.exchange, of(origin))
    }

    /// Where its dead letters are.
    pub(crate) fn dead(&self, origin: &Origin) -> String {
        format!("{}.1.d.{}", self.exchange, of(origin))
    }

    /// The record of a durable subscription.
    pub(crate) fn record(&self, name: &Token) -> String {
        format!("{}.1.g.{name}", self.exchange)
    }

    /// All such records.
    pub(crate) fn all_records(&self) -> String {
        format!("{}.1.g.>", self.exchange)
    }

    /// Where those who read from a place, `STREAM.CONSUMER`, tell each other what they give back.
    pub(crate) fn returns(&self, place: &str) -> String {
        format!("{}.1.b.{place}", self.exchange)
    }

    /// What is stored to learn the server's time.
    pub(crate) fn tick(&self) -> String {
        format!("{}.1.t", self.exchange)
    }

    pub(crate) fn all_dead(&self) -> String {
        format!("{}.1.d.>", self.exchange)
    }

    /// The replies to an inbox, below the prefix of who made it.
    pub(crate) fn inbox(&self, prefix: &str, inbox: &Inbox) -> String {
        format!("{prefix}.{}.1.r.{inbox}", self.exchange)
    }

    /// What comes back to one connection; one more word tells to which request.
    pub(crate) fn back(&self, prefix: &str, id: &str) -> String {
        format!("{prefix}.{}.1.m.{id}", self.exchange)
    }

    /// Takes apart a subject that `back` gave and one more word: prefix, connection, word. Whoever sends us a subject
    /// to answer to can name none but such.
    pub(crate) fn read_back<'a>(&self, subject: &'a str) -> Option<Back<'a>> {
        let mut words = subject.split('.');
        let (prefix, exchange) = (words.next()?, words.next()?);
        let (version, kind, id, word) = (words.next()?, words.next()?, words.next()?, words.next()?);
        let hex = |text: &str| text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f' | b'-'));
        let well = is_prefix(prefix)
            && exchange == self.exchange
            && version == "1"
            && kind == "m"
            && id.len() == 32
            && hex(id)
            && (1..=40).contains(&word.len())
            && hex(word)
            && words.next().is_none();
        well.then_some(Back { prefix, word })
    }

    pub(crate) fn event_stream(&self) -> String {
        format!("{}=1=e", self.exchange)
    }

    pub(crate) fn dead_stream(&self) -> String {
        format!("{}=1=d", self.exchange)
    }

    pub(crate) fn record_stream(&self) -> String {
        format!("{}=1=g", self.exchange)
    }

    /// The stream of a queue, or of the retries of a durable subscription.
    pub(crate) fn work_stream(&self, origin: &Origin) -> String {
        format!("{}=1={}", self.exchange, short(origin))
    }

    /// What all names of streams of this exchange begin with.
    pub(crate) fn stream_prefix(&self) -> String {
        format!("{}=1=", self.exchange)
    }

    /// The consumer of an origin's dead letters.
    pub(crate) fn dead_consumer(&self, origin: &Origin) -> String {
        short(origin)
    }

    /// The origin that a subject of [`work`](Self::work) or [`dead`](Self::dead) names.
    pub(crate) fn read_origin(&self, subject: &str, kind: &str) -> Option<Origin> {
        let rest = subject.strip_prefix(&format!("{}.1.{kind}", self.exchange))?;
        match rest.split_once('.')? {
            ("q", key) => Key::new(key).ok().map(Origin::Queue),
            ("r", name) => Token::new(name).ok().map(Origin::Durable),
            _ => None,
        }
    }
}

/// What [`Names::read_back`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Back<'a> {
    pub(crate) prefix: &'a str,
    pub(crate) word: &'a str,
}

/// Whether `text` may stand before inboxes: `_INBOX`, or `_INBOX_` and a name.
pub(crate) fn is_prefix(text: &str) -> bool {
    match text.strip_prefix("_INBOX") {
        Some("") => true,
        Some(rest) => rest.strip_prefix('_').is_some_and(|name| Token::new(name).is_ok()),
        None => false,
    }
}

/// One filter of events that covers both.
pub(crate) fn wider(one: &str, two: &str) -> String {
    let words = |text: &str| text.split('.').map(str::to_owned).collect::<Vec<String>>();
    joint(&words(one), &words(two)).join(".")
}

fn of(origin: &Origin) -> String {
    match origin {
        Origin::Queue(key) => format!("q.{key}"),
        Origin::Durable(name) => format!("r.{name}"),
    }
}

/// An origin as a part of a name. One that is too long for a file is told by its hash; should two ever have the same,
/// reading the settings back shows it.
fn short(origin: &Origin) -> String {
    let (kind, name) = match origin {
        Origin::Queue(key) => ("q", key.as_str().replace('.', "+")),
        Origin::Durable(name) => ("r", name.to_string()),
    };
    if name.len() + 2 * 64 <= MOST_NAME + 64 {
        return format!("{kind}={name}");
    }
    // FNV-1a of 128 bits.
    let hash = name.bytes().fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d_u128, |hash, byte| {
        (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
    });
    format!("{kind}=~{hash:032x}")
}

/// A list of words that covers both.
fn joint(one: &[String], two: &[String]) -> Vec<String> {
    let mut words = Vec::new();
    for at in 0.. {
        match (one.get(at).map(String::as_str), two.get(at).map(String::as_str)) {
            (None, None) => return words,
            (Some(a), Some(b)) if a == b => words.push(a.to_owned()),
            // The last word of a key is never a wildcard, so that lengths stay told apart.
            (Some(a), Some(b)) if a != ">" && b != ">" && a != "_" && b != "_" => words.push("*".to_owned()),
            // `>` is at least one word, so the last word of the one that ends here is left to it.
            (None, _) | (_, None) => {
                words.pop();
                break;
            }
            _ => break,
        }
    }
    words.push(">".to_owned());
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        Names::new(&Token::new("x").unwrap())
    }

    fn covering(patterns: &[&str]) -> String {
        let patterns: Vec<Pattern> = patterns.iter().map(|text| text.parse().unwrap()).collect();
        names().covering(&patterns)
    }

    #[test]
    fn one_subject_covers_all_patterns() {
        assert_eq!(covering(&["a.*.b"]), "x.1.e.a.*.b.*");
        assert_eq!(covering(&["a.#"]), "x.1.e.a.>");
        assert_eq!(covering(&["#.b"]), "x.1.e.>");
        assert_eq!(covering(&["a.b", "a.c"]), "x.1.e.a.*.*");
        assert_eq!(covering(&["a.b", "a"]), "x.1.e.a.>");
        assert_eq!(covering(&["a.b.#", "a.b"]), "x.1.e.a.b.>");
        assert_eq!(covering(&["a.#", "b"]), "x.1.e.*.>");
        assert_eq!(covering(&["a._", "a"]), "x.1.e.a.>");
    }

    #[test]
    fn what_no_event_has_is_covered_all_the_same() {
        for (filter, subject) in [("x.1.e.a.*.b.*", "x.1.e.a.=.b.="), ("x.1.e.>", "x.1.e.=")] {
            assert_eq!(Names::no_event(filter), subject);
        }
    }

    #[test]
    fn a_filter_only_grows() {
        let filters = [
            ("a.*", "a.*", "a.*"),
            ("a.*", "a.b.*", "a.>"),
            ("a.b.*", "a.*.*", "a.*.*"),
            ("a.>", "a.*", "a.>"),
        ];
        for (one, two, both) in filters {
            let [one, two, both] = [one, two, both].map(|text| format!("x.1.e.{text}"));
            assert_eq!(wider(&one, &two), both);
            assert_eq!(wider(&two, &one), both);
            assert_eq!(wider(&both, &one), both);
        }
    }

    #[test]
    fn nobody_can_make_us_answer_elsewhere() {
        let names = names();
        let id = "0123456789abcdef0123456789abcdef";
        let back = format!("{}.1f-2", names.back("_INBOX_bob", id));
        assert_eq!(names.read_back(&back), Some(Back { prefix: "_INBOX_bob", word: "1f-2" }));
        for wrong in [
            "$JS.API.STREAM.PURGE.x=1=e",
            "$JS.API.STREAM.DELETE.x",
            &format!("_INBOX.y.1.m.{id}.1"),
            &format!("_INBOX.x.1.m.{id}.>"),
            &format!("_INBOX.x.1.m.{id}.1.2"),
            &format!("_INBOX.x.1.m.{id}"),
            &format!("INBOX.x.1.m.{id}.1"),
            &format!("x.x.1.m.{id}.1"),
            "",
        ] {
            assert_eq!(names.read_back(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn names_are_never_the_same_and_never_too_long() {
        let names = Names::new(&Token::new("e".repeat(64)).unwrap());
        let keys = ["a.b", "a", "a_b", "a-b", "A.b", "a._b"].map(|key| Key::new(key).unwrap());
        let streams: std::collections::BTreeSet<String> =
            keys.iter().map(|key| names.work_stream(&Origin::Queue(key.clone()))).collect();
        assert_eq!(streams.len(), keys.len());
        let long = Key::new(["k".repeat(64), "k".repeat(64), "k".repeat(64)].join(".")).unwrap();
        assert!(names.work_stream(&Origin::Queue(long)).len() <= MOST_NAME);
        assert!(names.work_stream(&Origin::Durable(Token::new("n".repeat(64)).unwrap())).len() <= MOST_NAME);
    }
}
