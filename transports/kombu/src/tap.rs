//! One subscription, as its queue: which lists it reads, which lines of the routing table lead there, who reads.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use commissaire::{Feed, Origin, Source};
use redis::Cmd;
use tokio::sync::Notify;

use crate::{
    names::{Names, texts},
    script::Script,
};

/// See the module.
#[derive(Debug)]
pub(crate) struct Tap {
    pub(crate) source: Source,
    /// The name of its queue, without the prefix of keys.
    pub(crate) queue: String,
    /// The keys of its lists, the most urgent first.
    pub(crate) lists: Vec<String>,
    /// Its lines of the routing table.
    lines: Vec<String>,
    /// Who reads: the process and a number.
    reader: String,
    feed: Mutex<Option<Arc<Feed>>>,
    /// Something may be there to read.
    pub(crate) news: Notify,
    /// Something may be in another list than the most urgent.
    pub(crate) less_urgent: AtomicBool,
    /// Of an inbox: the lists where something may be.
    pub(crate) replies: Mutex<BTreeSet<String>>,
    /// It was there before, so that making it again means a gap.
    known: AtomicBool,
}

impl Tap {
    pub(crate) fn new(source: Source, feed: Feed, names: &Names, reader: String) -> Self {
        let (queue, lines) = match &source {
            Source::Service(service) => {
                let pattern = match service.as_str().starts_with("jobs.") {
                    true => service.to_string(),
                    false => format!("{service}.*"),
                };
                (names.service(service), vec![pattern])
            }
            Source::Queue(key) => (names.queue(key), vec![key.to_string()]),
            Source::Durable(name, patterns) => (names.durable(name), texts(patterns)),
            Source::Topic(patterns) => (names.passing(&reader), texts(patterns)),
            Source::Control(_) => (names.passing(&reader), Vec::new()),
            Source::Inbox(inbox) => (names.reply(inbox, None), Vec::new()),
            Source::DeadLetters(origin) => (names.without_prefix(&names.dead(origin)).to_owned(), Vec::new()),
        };
        let lists = match &source {
            Source::Service(_) | Source::Queue(_) | Source::Durable(..) | Source::Topic(_) => {
                names.lists(&queue)
            }
            Source::Control(_) | Source::Inbox(_) | Source::DeadLetters(_) => vec![names.list(&queue)],
        };
        let lines = lines.iter().map(|pattern| names.member(pattern, &queue)).collect();
        Self {
            source,
            queue,
            lists,
            lines,
            reader,
            feed: Mutex::new(Some(Arc::new(feed))),
            news: Notify::new(),
            less_urgent: AtomicBool::new(true),
            replies: Mutex::default(),
            known: AtomicBool::new(false),
        }
    }

    /// Something may be in any of its lists.
    pub(crate) fn stir(&self) {
        self.less_urgent.store(true, Ordering::Release);
        self.news.notify_one();
    }

    /// Where its messages come from that become dead letters; those of calls and events on their way become none.
    pub(crate) fn origin(&self) -> Option<Origin> {
        match &self.source {
            Source::Queue(key) => Some(Origin::Queue(key.clone())),
            Source::Durable(name, _) => Some(Origin::Durable(name.clone())),
            Source::DeadLetters(origin) => Some(origin.clone()),
            _ => None,
        }
    }

    /// Whether messages are in hand until they are settled.
    pub(crate) fn is_kept(&self) -> bool {
        self.origin().is_some()
    }

    /// Whether it ends with its process.
    fn is_passing(&self) -> bool {
        matches!(self.source, Source::Topic(_) | Source::Control(_))
    }

    /// Whether it needs nothing at the server but its lists.
    fn is_plain(&self) -> bool {
        matches!(self.source, Source::Inbox(_) | Source::DeadLetters(_))
    }

    /// The sign of life of the service that it is.
    pub(crate) fn life(&self, names: &Names) -> Option<String> {
        match &self.source {
            Source::Service(service) => Some(names.own("svc", service.as_str())),
            _ => None,
        }
    }

    fn hearing(&self, names: &Names) -> String {
        match &self.source {
            Source::Control(service) => names.own("ctl", service.as_str()),
            _ => String::new(),
        }
    }

    /// What its name and patterns are, if it is a durable subscription.
    fn durable(&self) -> (&str, String) {
        match &self.source {
            Source::Durable(name, patterns) => (name.as_str(), texts(patterns).join(" ")),
            _ => ("", String::new()),
        }
    }

    /// What makes it, and notes that it is read; with `keep`, patterns that are there already hold.
    pub(crate) fn declaring(
        &self,
        names: &Names,
        digests: &[String],
        process: &str,
        keep: bool,
        expiry: u64,
    ) -> Option<Cmd> {
        if self.is_plain() {
            return None;
        }
        let ends = if self.is_passing() { names.own("ends", process) } else { String::new() };
        let hearing = self.hearing(names);
        let [table, permanent] = names.bindings(names.exchange());
        let keys = [
            table,
            permanent,
            names.own("v", ""),
            names.own("readers", &self.queue),
            names.own("made", ""),
            names.own("subs", ""),
            names.own("seen", ""),
            ends,
            hearing.clone(),
        ];
        let mut command = Script::Declare.over(digests, &keys);
        let (name, patterns) = self.durable();
        command
            .arg(&self.reader)
            .arg(format!("{}{}", names.layout().sep, self.queue))
            .arg(name)
            .arg(patterns);
        command.arg(if keep { "1" } else { "0" }).arg(expiry);
        command.arg(if hearing.is_empty() { "" } else { &self.lists[0] }).arg(&self.lines);
        Some(command)
    }

    /// What notes that it is read no more.
    pub(crate) fn leaving(&self, names: &Names, digests: &[String], process: &str) -> Option<Cmd> {
        if self.is_plain() {
            return None;
        }
        let [table, permanent] = names.bindings(names.exchange());
        let hearing = self.hearing(names);
        let mut keys = vec![
            names.own("readers", &self.queue),
            self.life(names).unwrap_or_default(),
            table,
            permanent,
            names.own("v", ""),
            names.own("made", ""),
            names.own("seen", ""),
            hearing.clone(),
            names.own("ends", process),
        ];
        keys.extend(self.lists.iter().cloned());
        let mut command = Script::Leave.over(digests, &keys);
        let sort = match &self.source {
            Source::Service(_) => "service",
            _ if self.is_passing() => "passing",
            _ => "kept",
        };
        command.arg(&self.reader).arg(names.own("live", "")).arg(sort).arg(self.durable().0).arg(60_000);
        if hearing.is_empty() {
            command.arg("").arg(&self.lines);
        } else {
            command.arg(&self.lists[0]).arg(format!("\u{1}{hearing}{}{}", names.layout().sep, self.queue));
        }
        Some(command)
    }

    /// It was made, or made again: then events may have passed.
    pub(crate) fn made(&self, again: bool) {
        let known = self.known.swap(true, Ordering::AcqRel);
        if let Some(feed) = self.feed()
            && known
            && again
            && matches!(self.source, Source::Topic(_))
        {
            feed.gap("the subscription had gone from redis and was made again");
        }
    }

    /// The subscription's end, while more may come.
    pub(crate) fn feed(&self) -> Option<Arc<Feed>> {
        self.feed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Says whether the subscription really consumes.
    pub(crate) fn consuming(&self, consuming: bool) {
        if let Some(feed) = self.feed() {
            feed.consuming().set(consuming);
        }
    }

    /// Nothing more comes.
    pub(crate) fn end(&self) {
        let feed = self.feed.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(feed);
    }
}
