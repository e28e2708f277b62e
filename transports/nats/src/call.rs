//! Calls on the wire. A call goes to the service's subject with a subject of ours to answer to, whose last word names
//! the call and the server's time when it was sent. What comes back there:
//!
//! | word | meaning |
//! |---|---|
//! | status 503 | nobody is there |
//! | `+` | an instance has taken it |
//! | `b` | it has too many waiting |
//! | `x` | it cannot be read |
//! | `?` | it comes late: does anybody still wait for it? The answer is `go MILLIS` (`go` without a limit) or `no` |
//!
//! An instance that replies soon sends no `+`: the reply says the same.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_nats::Message as Raw;
use commissaire::{Inbox, Message, header};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use crate::link::Link;

/// How long a call that was taken may be without a word: its reply may be one.
const SOON: Duration = Duration::from_millis(10);
/// The most callers whose inboxes stand elsewhere than ours that are remembered.
const MOST_PREFIXES: usize = 10_000;

pub(crate) const TAKEN: &str = "+";
pub(crate) const BUSY: &str = "b";
pub(crate) const UNREADABLE: &str = "x";

/// The correlation of a call or a reply, as a number.
pub(crate) fn correlation(message: &Message) -> Option<u128> {
    let text = message.headers().get(header::CORRELATION)?;
    u128::from_str_radix(text, 16).ok()
}

/// Answers who asks whether a call of ours is still of use.
pub(crate) async fn answer(link: &Link, word: &str, question: &Raw) {
    let Some(reply) = question.reply.as_ref().filter(|reply| link.names.read_back(reply).is_some()) else {
        return;
    };
    let text = match link.mux.left(word) {
        None => "no".to_owned(),
        Some(None) => "go".to_owned(),
        Some(Some(left)) if left.is_zero() => "no".to_owned(),
        Some(Some(left)) => format!("go {}", left.as_millis().max(1)),
    };
    link.post(reply.clone(), text).await;
}

/// Asks whether a call is still of use: `None` when not, else how long, where there is a limit.
pub(crate) async fn ask(link: &Link, subject: &str, deadline: Instant) -> Option<Option<Duration>> {
    let answer = link.request(subject.to_owned(), None, "?", deadline).await.ok()?;
    let text = std::str::from_utf8(&answer.payload).ok()?;
    match text.split_once(' ') {
        None if text == "go" => Some(None),
        Some(("go", millis)) => Some(Some(Duration::from_millis(millis.parse().ok()?))),
        _ => None,
    }
}

/// Calls that were taken here and whose callers do not know yet.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    open: Mutex<Open>,
    some: Notify,
}

#[derive(Debug, Default)]
struct Open {
    /// By correlation: the inbox that waits for the reply, and the subject that waits for a word.
    calls: HashMap<u128, (Inbox, String)>,
    order: VecDeque<(Instant, u128)>,
    /// Where inboxes stand that do not stand where ours do.
    prefixes: HashMap<Inbox, String>,
}

impl Taken {
    /// `message`, whose caller waits at `subject`, was taken. `false` when that must be said now.
    pub(crate) fn note(&self, link: &Link, message: &Message, subject: &str) -> bool {
        let (Some(correlation), Some(inbox)) = (correlation(message), message.reply_to()) else {
            return false;
        };
        let mut open = self.open();
        if let Some(back) = link.names.read_back(subject)
            && back.prefix != link.prefix
        {
            if open.prefixes.len() >= MOST_PREFIXES {
                open.prefixes.clear();
            }
            open.prefixes.insert(inbox, back.prefix.to_owned());
        }
        if open.calls.insert(correlation, (inbox, subject.to_owned())).is_none() {
            open.order.push_back((Instant::now() + SOON, correlation));
        }
        if open.order.len() == 1 {
            self.some.notify_one();
        }
        true
    }

    /// A reply goes out, which says that its call was taken.
    pub(crate) fn replied(&self, message: &Message, inbox: Inbox) {
        let Some(correlation) = correlation(message) else { return };
        let mut open = self.open();
        if open.calls.get(&correlation).is_some_and(|(waits, _)| *waits == inbox) {
            open.calls.remove(&correlation);
        }
    }

    /// Below what the inbox stands, if not where ours do.
    pub(crate) fn prefix(&self, inbox: Inbox) -> Option<String> {
        let open = self.open();
        if open.prefixes.is_empty() { None } else { open.prefixes.get(&inbox).cloned() }
    }

    /// The subjects that must be told now.
    fn due(&self) -> (Vec<String>, Option<Instant>) {
        let mut open = self.open();
        let now = Instant::now();
        let mut due = Vec::new();
        while let Some((at, correlation)) = open.order.front().copied() {
            if at > now {
                return (due, Some(at));
            }
            open.order.pop_front();
            due.extend(open.calls.remove(&correlation).map(|(_, subject)| subject));
        }
        (due, None)
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says of each call that was taken and not yet replied to that it was, until the bus ends.
pub(crate) async fn tell(link: Arc<Link>, taken: Arc<Taken>) {
    while !link.end.is_cancelled() {
        let (due, next) = taken.due();
        for subject in due {
            link.post(subject, TAKEN).await;
        }
        tokio::select! {
            () = link.end.cancelled() => {}
            () = taken.some.notified(), if next.is_none() => {}
            () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
        }
    }
}
