//! The names of queues, bindings and keys: those that Kombu programs know, and our own beside them.

use commissaire::{Inbox, Key, Origin, Pattern, Token, What};

use crate::options::Layout;

/// The exchange whose queues have the names that the reference gives them.
const DEFAULT: &str = "commissaire";
/// Version of the layout of our own keys.
const LAYOUT: u32 = 1;
/// Before the name of a list of replies.
const REPLY: &str = "response-";
/// Queues that the reference names otherwise than by the key: what we call them, and what it does.
const NAMED: [(&str, &str); 2] = [("jobs.watcher", "watcher"), ("container", "containermgr")];

/// The names of one exchange. Words of keys hold no `:` and no `/`, so these keep names apart.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    layout: Layout,
    exchange: String,
    /// Before the names of queues: nothing in the default exchange.
    queues: String,
    /// Before our own keys.
    own: String,
    /// In the names of our queues: what a key cannot hold, and what is no part of the separator, for Kombu programs would
    /// take it for that.
    mark: char,
}

impl Names {
    pub(crate) fn new(exchange: &Token, layout: Layout) -> Self {
        let queues = if exchange.as_str() == DEFAULT { String::new() } else { format!("{exchange}/") };
        let own = format!("{}bus:{{{exchange}}}:k{LAYOUT}:", layout.prefix);
        let mark = if layout.sep.contains(':') { '~' } else { ':' };
        Self { layout, exchange: exchange.as_str().to_owned(), queues, own, mark }
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The exchange, as Kombu knows it.
    pub(crate) fn exchange(&self) -> &str {
        &self.exchange
    }

    /// The queue of calls to a service.
    pub(crate) fn service(&self, service: &Key) -> String {
        let name = named(service.as_str());
        // A service has the plain name, unless a work queue has it.
        let job = |(key, name): &(&str, &str)| key.starts_with("jobs.") && *name == service.as_str();
        if service.as_str().starts_with("jobs.") || NAMED.iter().any(job) {
            format!("{}call{}{service}", self.queues, self.mark)
        } else {
            format!("{}{name}", self.queues)
        }
    }

    /// The work queue of a key.
    pub(crate) fn queue(&self, key: &Key) -> String {
        if key.as_str().starts_with("jobs.") {
            return format!("{}{}", self.queues, named(key.as_str()));
        }
        format!("{}job{}{key}", self.queues, self.mark)
    }

    /// The queue of a durable subscription.
    pub(crate) fn durable(&self, name: &Token) -> String {
        format!("{}sub{}{name}", self.queues, self.mark)
    }

    /// A queue of one process, that ends with it.
    pub(crate) fn passing(&self, reader: &str) -> String {
        format!("{}tmp{}{reader}", self.queues, self.mark)
    }

    /// What `queue` is, if it is one that a survey tells of. Services and work queues of the same words cannot be told
    /// apart from foreign queues but by the key that they are bound to.
    pub(crate) fn what(&self, queue: &str, bound_to: &str) -> Option<What> {
        if let Some(name) = self.named(queue, "sub") {
            return Token::new(name).ok().map(What::Durable);
        }
        if let Some(key) = self.named(queue, "job").and_then(|name| Key::new(name).ok()) {
            return (self.queue(&key) == queue).then_some(What::Queue(key));
        }
        let service = bound_to.strip_suffix(".*").unwrap_or(bound_to);
        let key = Key::new(service).ok()?;
        if self.service(&key) == queue {
            return Some(What::Service(key));
        }
        (self.queue(&key) == queue).then_some(What::Queue(key))
    }

    /// Whether `queue` hears events for a subscription of ours.
    pub(crate) fn hears(&self, queue: &str) -> bool {
        self.named(queue, "sub").is_some() || self.is_passing(queue)
    }

    /// Whether `queue` is a passing one of ours.
    pub(crate) fn is_passing(&self, queue: &str) -> bool {
        self.named(queue, "tmp").is_some()
    }

    /// The name behind the mark, if `queue` is one of ours of this sort.
    fn named<'a>(&self, queue: &'a str, sort: &str) -> Option<&'a str> {
        queue.strip_prefix(self.queues.as_str())?.strip_prefix(sort)?.strip_prefix(self.mark)
    }

    /// The list of a queue where the priority is the highest.
    pub(crate) fn list(&self, queue: &str) -> String {
        format!("{}{queue}", self.layout.prefix)
    }

    /// The lists of a queue, the most urgent first.
    pub(crate) fn lists(&self, queue: &str) -> Vec<String> {
        let list = |step: &u8| self.list_of(queue, *step);
        self.layout.steps.iter().map(list).collect()
    }

    /// The list of a queue for messages of `priority`, which is clamped.
    pub(crate) fn list_of(&self, queue: &str, priority: u8) -> String {
        let step = self.layout.steps.iter().rev().find(|step| **step <= priority.min(9)).copied();
        match step.unwrap_or(0) {
            0 => self.list(queue),
            step => format!("{}{queue}{}{step}", self.layout.prefix, self.layout.sep),
        }
    }

    /// The routing table of an exchange, and that of its queues without an end.
    pub(crate) fn bindings(&self, exchange: &str) -> [String; 2] {
        ["binding", "binding_permanent"]
            .map(|table| format!("{}_kombu.{table}.{exchange}", self.layout.prefix))
    }

    /// What was delivered and is not acknowledged, and when that was.
    pub(crate) fn unacked(&self) -> [String; 2] {
        ["unacked", "unacked_index"].map(|name| format!("{}{name}", self.layout.prefix))
    }

    /// Who restores what was not acknowledged.
    pub(crate) fn mutex(&self) -> String {
        format!("{}unacked_mutex", self.layout.prefix)
    }

    /// A line of the routing table: `queue` wants what `pattern` covers.
    pub(crate) fn member(&self, pattern: &str, queue: &str) -> String {
        let sep = &self.layout.sep;
        format!("{pattern}{sep}{}{sep}{queue}", regex(pattern))
    }

    /// The name of the list of replies to `inbox`; with the correlation of a call, of the reply to that one.
    pub(crate) fn reply(&self, inbox: &Inbox, correlation: Option<&str>) -> String {
        match correlation {
            Some(correlation) => format!("{}{REPLY}{inbox}-{correlation}", self.queues),
            None => format!("{}{REPLY}{inbox}", self.queues),
        }
    }

    /// The name and the correlation that the key of a list of replies to `inbox` has.
    pub(crate) fn reply_of<'a>(&self, key: &'a str, inbox: &Inbox) -> Option<(&'a str, Option<&'a str>)> {
        let name = key.strip_prefix(self.layout.prefix.as_str())?;
        let name = name.split(self.layout.sep.as_str()).next()?;
        match name.strip_prefix(self.reply(inbox, None).as_str())? {
            "" => Some((name, None)),
            rest => rest.strip_prefix('-').filter(|text| is_correlation(text)).map(|text| (name, Some(text))),
        }
    }

    /// The beginning of all our own keys.
    pub(crate) fn prefix(&self) -> &str {
        &self.own
    }

    /// A key of our own.
    pub(crate) fn own(&self, kind: &str, name: &str) -> String {
        format!("{}{kind}:{name}", self.own)
    }

    /// The same as a queue of the anonymous exchange names it.
    pub(crate) fn without_prefix<'a>(&self, key: &'a str) -> &'a str {
        key.strip_prefix(self.layout.prefix.as_str()).unwrap_or(key)
    }

    /// The list of dead letters of `origin`.
    pub(crate) fn dead(&self, origin: &Origin) -> String {
        self.own("dead", &origin.to_string())
    }

    /// The queue that dead letters of `origin` come from.
    pub(crate) fn home(&self, origin: &Origin) -> String {
        match origin {
            Origin::Queue(key) => self.queue(key),
            Origin::Durable(name) => self.durable(name),
        }
    }
}

/// Whether `text` can be a correlation in the name of a list: 128 bits in hexadecimal.
pub(crate) fn is_correlation(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn named(key: &str) -> &str {
    NAMED.iter().find(|(known, _)| *known == key).map_or(key, |(_, name)| name)
}

/// What Kombu programs match routing keys with. For `#`, which Kombu itself would not let cover no word at all, ours says
/// what the contract does.
fn regex(pattern: &str) -> String {
    let mut words: Vec<&str> = pattern.split('.').collect();
    words.dedup_by(|next, word| *next == "#" && *word == "#");
    if words == ["#"] {
        return "^.*$".to_owned();
    }
    let mut regex = String::from("^");
    for (at, word) in words.iter().enumerate() {
        // The dot stands before each word but the first; for a `#` at the beginning behind each that it takes.
        let dot = if at == 0 || at == 1 && words[0] == "#" { "" } else { r"\." };
        match *word {
            "#" if at == 0 => regex.push_str(r"([^\.]+\.)*"),
            "#" => regex.push_str(r"(\.[^\.]+)*"),
            "*" => regex.extend([dot, r"[^\.]+"]),
            word => regex.extend([dot, word]),
        }
    }
    regex + "$"
}

/// Whether Kombu would let `key` through a binding to `pattern`: it takes `*` for one word and `#` for any text.
pub(crate) fn kombu_covers(pattern: &str, key: &str) -> bool {
    let Some((word, rest)) = pattern.split_once('.') else {
        return match pattern {
            "#" => true,
            "*" => !key.is_empty() && !key.contains('.'),
            word => word == key,
        };
    };
    match word {
        "#" => key.match_indices('.').any(|(at, _)| kombu_covers(rest, &key[at + 1..])),
        _ => key.split_once('.').is_some_and(|(first, others)| {
            (word == "*" && !first.is_empty() || word == first) && kombu_covers(rest, others)
        }),
    }
}

/// The patterns of a source, as they stand in the routing table.
pub(crate) fn texts(patterns: &[Pattern]) -> Vec<String> {
    let mut texts: Vec<String> = patterns.iter().map(|pattern| pattern.as_str().to_owned()).collect();
    texts.sort();
    texts.dedup();
    texts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        Names::new(&Token::new("commissaire").unwrap(), Layout::default())
    }

    #[test]
    fn bindings_are_written_as_the_reference_writes_them() {
        let names = names();
        let member = |pattern: &str, queue: &str| names.member(pattern, queue).replace("\x06\x16", " ");
        assert_eq!(member("storage.*", "storage"), r"storage.* ^storage\.[^\.]+$ storage");
        for (pattern, regex) in [
            ("#", "^.*$"),
            ("a.#", r"^a(\.[^\.]+)*$"),
            ("#.a", r"^([^\.]+\.)*a$"),
            ("#.*.#.#", r"^([^\.]+\.)*[^\.]+(\.[^\.]+)*$"),
            ("a.#.b", r"^a(\.[^\.]+)*\.b$"),
        ] {
            assert_eq!(super::regex(pattern), regex);
        }
        assert_eq!(member("jobs.watcher", "watcher"), r"jobs.watcher ^jobs\.watcher$ watcher");
    }

    #[test]
    fn names_are_those_of_the_reference_and_never_the_same() {
        let names = names();
        let key = |text: &str| Key::new(text).unwrap();
        for (service, name) in
            [("storage", "storage"), ("container", "containermgr"), ("watcher", "call:watcher")]
        {
            assert_eq!(names.service(&key(service)), name);
        }
        assert_eq!(names.service(&key("jobs.investigate")), "call:jobs.investigate");
        for (queue, name) in [("jobs.watcher", "watcher"), ("jobs.a", "jobs.a"), ("a.b", "job:a.b")] {
            assert_eq!(names.queue(&key(queue)), name);
            assert_eq!(names.what(name, queue), Some(What::Queue(key(queue))));
        }
        assert_eq!(names.what("storage", "storage.*"), Some(What::Service(key("storage"))));
        assert_eq!(names.what("sub:a", "x.#"), Some(What::Durable(Token::new("a").unwrap())));
        assert_eq!(names.what("amq.gen-1", "storage.*"), None);
        let other = Names::new(&Token::new("other").unwrap(), Layout::default());
        assert_eq!(other.service(&key("storage")), "other/storage");
        assert_eq!(other.what("storage", "storage.*"), None);
    }

    #[test]
    fn priorities_have_the_lists_that_kombu_gives_them() {
        let names = names();
        let list = |priority| names.list_of("q", priority).replace("\x06\x16", " ");
        assert_eq!([0, 2, 3, 5, 6, 9, 200].map(list), ["q", "q", "q 3", "q 3", "q 6", "q 9", "q 9"]);
    }

    #[test]
    fn kombu_takes_a_hash_for_any_text() {
        for (pattern, key, covers) in [
            ("a.#", "a", false),
            ("a.#", "a.b", true),
            ("a.#", "a.b.c", true),
            ("#", "a.b", true),
            ("#.b", "b", false),
            ("#.b", "a.x.b", true),
            ("a.#.c", "a.c", false),
            ("a.#.c", "a.b.b.c", true),
            ("a.*", "a.b", true),
            ("a.*", "a.b.c", false),
            ("*.b", "a.b", true),
            ("a.b", "a.b", true),
            ("a", "b", false),
        ] {
            assert_eq!(kombu_covers(pattern, key), covers, "{pattern} {key}");
        }
    }

    #[test]
    fn replies_are_known_by_their_names() {
        let (names, inbox) = (names(), Inbox::random());
        let correlation = "0123456789abcdef0123456789abcdef";
        for correlation in [None, Some(correlation)] {
            let name = names.reply(&inbox, correlation);
            assert_eq!(names.reply_of(&name, &inbox), Some((&*name, correlation)));
            assert_eq!(names.reply_of(&name, &Inbox::random()), None);
        }
        assert_eq!(names.reply_of(&format!("{}-x", names.reply(&inbox, None)), &inbox), None);
    }
}
