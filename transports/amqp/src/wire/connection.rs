//! A connection to the broker and its channels.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use futures_util::StreamExt;
use lapin::Event;
use tokio::{sync::watch, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{
    begin,
    channel::{Channel, Inner},
    ears::Ears,
    fault::Fault,
};

/// The most that the broker is waited for at the end.
const GOOD_BYE: Duration = Duration::from_secs(2);
/// How often it is asked whether the connection is still there, whatever was said of it.
const LOOK: Duration = Duration::from_millis(500);

/// A connection that is up, or was. Cheap to clone; it ends when [`cut`](Self::cut) or [closed](Self::close).
#[derive(Clone)]
pub(crate) struct Connection(Arc<Shared>);

struct Shared {
    lapin: lapin::Connection,
    channels: Mutex<Vec<Weak<Inner>>>,
    down: CancellationToken,
    why: Mutex<Option<String>>,
    blocked: watch::Sender<Option<String>>,
    broker: String,
}

impl Connection {
    /// Takes over what lapin has made.
    pub(super) fn start(lapin: lapin::Connection, broker: String) -> Self {
        let events = lapin.events_listener();
        let shared = Arc::new(Shared {
            lapin,
            channels: Mutex::default(),
            down: CancellationToken::new(),
            why: Mutex::default(),
            blocked: watch::Sender::new(None),
            broker,
        });
        tokio::spawn(follow(Arc::downgrade(&shared), shared.down.clone(), events));
        Self(shared)
    }

    /// Opens a channel whose deliveries go to `ears`.
    pub(crate) async fn channel(&self, ears: Arc<dyn Ears>) -> Result<Channel, Fault> {
        if self.is_down() {
            return Err(Fault::NotSent);
        }
        let channel = tokio::select! {
            opened = Channel::open(&self.0.lapin, ears) => opened?,
            () = self.0.down.cancelled() => return Err(Fault::Lost),
        };
        let mut channels = self.0.channels.lock().unwrap_or_else(PoisonError::into_inner);
        channels.retain(|channel| channel.strong_count() > 0);
        channels.push(Arc::downgrade(channel.inner()));
        drop(channels);
        if self.is_down() {
            channel.inner().lose(Fault::Lost);
        }
        Ok(channel)
    }

    /// Closes every channel and says farewell; all that was said before is known to the broker when this returns, or it
    /// is an error.
    pub(crate) async fn close(&self) -> Result<(), Fault> {
        let closing: Vec<_> = self.0.channels().iter().map(Inner::close).collect();
        let mut closed = Ok(());
        for channel in closing {
            closed = closed.and(channel.await);
        }
        // If it does not answer it is cut off.
        let _ = timeout(GOOD_BYE, self.0.lapin.close(200, "OK".into())).await;
        self.cut("closed");
        closed
    }

    /// Gives it up; whoever waits on it is told.
    pub(crate) fn cut(&self, why: &str) {
        self.0.end(why);
    }

    /// Is cancelled when it is down.
    pub(crate) fn down(&self) -> &CancellationToken {
        &self.0.down
    }

    pub(crate) fn is_down(&self) -> bool {
        self.0.down.is_cancelled()
    }

    /// Why it went down.
    pub(crate) fn why(&self) -> String {
        let why = self.0.why.lock().unwrap_or_else(PoisonError::into_inner);
        why.clone().unwrap_or_else(|| "the connection to rabbitmq broke".to_owned())
    }

    /// Why the broker takes no messages for the time being, if it does not.
    pub(crate) fn blocked(&self) -> watch::Receiver<Option<String>> {
        self.0.blocked.subscribe()
    }

    /// Product and version of the broker.
    pub(crate) fn broker(&self) -> &str {
        &self.0.broker
    }

    /// Whether the broker is of a version that may forget in a crash which quorum queues it has just made.
    pub(crate) fn writes_queues_late(&self) -> bool {
        let version = self.0.broker.rsplit(' ').next().and_then(|version| version.split('.').next());
        version.and_then(|major| major.parse::<u32>().ok()).is_none_or(|major| major < 4)
    }

    /// Whether both are the same.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Shared {
    fn channels(&self) -> Vec<Arc<Inner>> {
        let channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        channels.iter().filter_map(Weak::upgrade).collect()
    }

    fn end(&self, why: &str) {
        self.why.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| why.to_owned());
        self.down.cancel();
        for channel in self.channels() {
            channel.lose(Fault::Lost);
        }
        // lapin is told that we want no more; nobody waits for the answer.
        let _ = begin(std::pin::pin!(self.lapin.close(200, "OK".into())));
    }
}

/// Follows what becomes of the connection until it is down.
async fn follow(
    shared: Weak<Shared>,
    down: CancellationToken,
    events: impl futures_util::Stream<Item = Event> + Send + 'static,
) {
    let mut events = std::pin::pin!(events);
    let mut listening = true;
    loop {
        let event = tokio::select! {
            () = down.cancelled() => return,
            event = events.next(), if listening => event,
            () = tokio::time::sleep(LOOK) => Some(Event::Connected),
        };
        let Some(shared) = shared.upgrade() else { return };
        let mut why = "the connection to rabbitmq broke".to_owned();
        match event {
            Some(Event::ConnectionBlocked(reason)) => drop(shared.blocked.send_replace(Some(reason))),
            Some(Event::ConnectionUnblocked) => drop(shared.blocked.send_replace(None)),
            Some(Event::Error(error)) => {
                if let Fault::Refused { code, text } = Fault::of(&error) {
                    why = format!("rabbitmq closed the connection: {code} {text}");
                }
            }
            Some(_) => {}
            None => listening = false,
        }
        if !shared.lapin.status().connected() {
            return shared.end(&why);
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "connection to {}", self.0.broker)
    }
}
