//! Channels: events, control messages, replies and presence, all on one connection.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use commissaire::{Feed, Inbox, Key, Pattern};
use futures_util::future::join_all;
use redis::{PushInfo, PushKind, Value};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep},
};

use crate::{
    bus::{BOUND, Core},
    keys::glob_matches,
    link::{DEAF, Link, Tenant},
    listen::listener::{Listener, Wants},
    value::{bytes, items},
    wire::{Fault, Wire},
};

pub(crate) struct PubSub {
    core: Arc<Core>,
    link: OnceLock<Link>,
    routes: Mutex<Routes>,
    /// One change of what is listened to at a time, so that the server's list never falls behind ours.
    changing: tokio::sync::Mutex<()>,
    stopping: AtomicBool,
}

#[derive(Default)]
struct Routes {
    channels: HashMap<String, Route>,
    globs: HashMap<String, Route>,
}

/// Who listens to one channel or glob; some only to be counted.
#[derive(Default)]
struct Route {
    count: usize,
    listeners: Vec<Arc<Listener>>,
}

impl PubSub {
    pub(crate) fn start(core: Arc<Core>) -> Arc<Self> {
        let pubsub = Arc::new(Self {
            link: OnceLock::new(),
            routes: Mutex::default(),
            changing: tokio::sync::Mutex::new(()),
            stopping: AtomicBool::new(false),
            core,
        });
        {
            let mut routes = pubsub.lock();
            for channel in
                [format!("{}{}", pubsub.core.keys.alive(), pubsub.core.id), pubsub.core.keys.back()]
            {
                routes.channels.entry(channel).or_default().count += 1;
            }
        }
        let core = &pubsub.core;
        let (after, end) = (Some(core.main.clone()), core.end.clone());
        let link = Link::keep("channels", core.dialer.clone(), pubsub.clone(), None, after, end);
        let _ = pubsub.link.set(link);
        pubsub
    }

    /// Events that any of `patterns` covers.
    pub(crate) async fn topic(
        self: &Arc<Self>,
        patterns: Vec<Pattern>,
        feed: Feed,
        deadline: Instant,
    ) -> Result<(), Fault> {
        let mut globs: Vec<String> = Vec::new();
        for glob in patterns.iter().map(|pattern| self.core.keys.glob(pattern)) {
            if !globs.contains(&glob) {
                globs.push(glob);
            }
        }
        // An ACL allows a glob only if it is the very one that it names.
        match self.listen(true, &globs, deadline).await {
            Err(fault) if fault.is("NOPERM") => globs = vec![self.core.keys.all_events()],
            Err(fault) => return Err(fault),
            Ok(()) => {}
        }
        self.add(Listener::new(Wants::Topic { patterns, globs }, feed), deadline).await
    }

    /// Control messages to all instances of `service`.
    pub(crate) async fn control(
        self: &Arc<Self>,
        service: &Key,
        feed: Feed,
        deadline: Instant,
    ) -> Result<(), Fault> {
        self.add(Listener::new(Wants::Channel(self.core.keys.control(service)), feed), deadline).await
    }

    /// Replies to `inbox`.
    pub(crate) async fn inbox(
        self: &Arc<Self>,
        inbox: Inbox,
        feed: Feed,
        deadline: Instant,
    ) -> Result<(), Fault> {
        let channel = self.core.keys.inbox(&inbox);
        self.add(Listener::new(Wants::Inbox { channel, inbox }, feed), deadline).await
    }

    /// Is counted on `channel` from now on, whatever comes of it, until it [leaves](Self::leave).
    pub(crate) async fn attend(&self, channel: &str, deadline: Instant) -> Result<(), Fault> {
        self.lock().channels.entry(channel.to_owned()).or_default().count += 1;
        let _changing = self.changing.lock().await;
        self.listen(false, &[channel.to_owned()], deadline).await
    }

    /// Is counted on `channel` no more.
    pub(crate) async fn leave(&self, channel: &str, deadline: Instant) {
        let _changing = self.changing.lock().await;
        if self.lock().release(false, channel, None) {
            self.unlisten(false, &[channel.to_owned()], deadline).await;
        }
    }

    /// Ends all subscriptions.
    pub(crate) async fn close(&self, _deadline: Instant) {
        self.stopping.store(true, Ordering::Release);
        let listeners = self.lock().listeners();
        for listener in listeners {
            listener.end();
        }
    }

    /// Returns when the server knows. Whoever gives up waiting for that leaves nothing behind.
    async fn add(self: &Arc<Self>, listener: Arc<Listener>, deadline: Instant) -> Result<(), Fault> {
        let (mut done, heard) = oneshot::channel();
        let pubsub = self.clone();
        tokio::spawn(async move {
            let (globs, names) = listener.wants.names();
            pubsub.lock().enter(globs, &names, &listener);
            let listened = tokio::select! {
                listened = pubsub.confirm(&listener, globs, &names, deadline) => listened,
                () = done.closed() => Err(Fault::NotSent),
            };
            let failed = listened.is_err();
            // Without anybody who waits for it the subscription has ended too.
            let _ = done.send(listened);
            if !failed {
                pubsub.core.end.run_until_cancelled(listener.run()).await;
            }
            listener.end();
            let _changing = pubsub.changing.lock().await;
            let unused: Vec<String> = {
                let mut routes = pubsub.lock();
                names.into_iter().filter(|name| routes.release(globs, name, Some(&listener))).collect()
            };
            pubsub.unlisten(globs, &unused, Instant::now() + BOUND).await;
        });
        heard.await.unwrap_or(Err(Fault::NotSent))
    }

    async fn confirm(
        &self,
        listener: &Listener,
        globs: bool,
        names: &[String],
        deadline: Instant,
    ) -> Result<(), Fault> {
        let _changing = self.changing.lock().await;
        self.listen(globs, names, deadline).await?;
        listener.confirmed();
        listener.consuming(true);
        Ok(())
    }

    /// Returns when the server has confirmed `names`, on whichever connection.
    async fn listen(&self, globs: bool, names: &[String], deadline: Instant) -> Result<(), Fault> {
        let link = self.link.get().ok_or(Fault::NotSent)?;
        loop {
            let wire = link.wire(deadline).await.ok_or(Fault::NotSent)?;
            match wire.listen(globs, names, DEAF).await {
                Ok(()) => return Ok(()),
                Err(fault @ Fault::Refused { .. }) if !fault.is("LOADING") => return Err(fault),
                Err(fault) if Instant::now() >= deadline => return Err(fault),
                Err(_) => sleep(Duration::from_millis(20)).await,
            }
        }
    }

    async fn unlisten(&self, globs: bool, names: &[String], deadline: Instant) {
        // A new connection does not listen to them in the first place.
        if let Some(wire) = self.link.get().and_then(Link::now) {
            let left = deadline.saturating_duration_since(Instant::now());
            let _ = wire.unlisten(globs, names, left).await;
        }
    }

    fn route(&self, channel: &[u8], message: Value) {
        let Ok(channel) = std::str::from_utf8(channel) else { return };
        let Some(raw) = bytes(message).map(Bytes::from) else { return };
        let listeners = match self.lock().channels.get(channel) {
            Some(route) => route.listeners.clone(),
            None => return,
        };
        if listeners.is_empty() && channel == self.core.keys.back() {
            self.core.nudge.notify_one();
        }
        for listener in listeners {
            listener.hear(&raw);
        }
    }

    fn route_event(&self, glob: &[u8], channel: &[u8], message: Value) {
        let (Ok(glob), Ok(channel)) = (std::str::from_utf8(glob), std::str::from_utf8(channel)) else {
            return;
        };
        let Some(key) = self.core.keys.event_of(channel).and_then(|key| Key::new(key).ok()) else { return };
        let Some(raw) = bytes(message).map(Bytes::from) else { return };
        let listeners = match self.lock().globs.get(glob) {
            Some(route) => route.listeners.clone(),
            None => return,
        };
        for listener in listeners {
            // The server says it once for each glob that lets it through: the first of a listener's own counts.
            if listener.wants.first_glob(channel) == Some(glob) && listener.covers(&key) {
                listener.hear(&raw);
            }
        }
    }

    /// Hands over the replies that came while nobody listened.
    async fn drain(&self, listener: &Listener) {
        let Wants::Inbox { inbox, .. } = &listener.wants else { return };
        let mut command = redis::cmd("LPOP");
        command.arg(self.core.keys.missed(inbox)).arg(100);
        while let Some(wire) = self.core.main.wire(Instant::now() + BOUND).await {
            match wire.ask(&command, DEAF).await.map(items) {
                Ok(missed) if missed.is_empty() => return,
                Ok(missed) => missed.into_iter().filter_map(bytes).for_each(|raw| listener.hear(&raw.into())),
                // What was popped and lost is lost: a reply is delivered at most once.
                Err(Fault::Refused { .. }) => return,
                Err(_) => {}
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Routes> {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The tenant of the connection for channels. It is the `PubSub` itself.
#[async_trait::async_trait]
impl Tenant for PubSub {
    fn heard(&self, push: PushInfo) {
        let mut data = push.data.into_iter();
        match (push.kind, data.next(), data.next(), data.next()) {
            (PushKind::Message, Some(Value::BulkString(channel)), Some(message), None) => {
                self.route(&channel, message);
            }
            (
                PushKind::PMessage,
                Some(Value::BulkString(glob)),
                Some(Value::BulkString(channel)),
                Some(message),
            ) => {
                self.route_event(&glob, &channel, message);
            }
            _ => {}
        }
    }

    async fn up(&self, wire: &Wire) -> Result<(), Fault> {
        let (channels, globs, listeners) = {
            let routes = self.lock();
            let names = |table: &HashMap<String, Route>| table.keys().cloned().collect::<Vec<String>>();
            (names(&routes.channels), names(&routes.globs), routes.listeners())
        };
        // The gap stands before whatever the new connection brings.
        for listener in &listeners {
            listener.again();
        }
        for names in channels.chunks(500) {
            wire.listen(false, names, DEAF).await?;
        }
        for names in globs.chunks(500) {
            wire.listen(true, names, DEAF).await?;
        }
        listeners.iter().for_each(|listener| listener.consuming(true));
        join_all(listeners.iter().map(|listener| self.drain(listener))).await;
        Ok(())
    }

    fn down(&self) {
        for listener in self.lock().listeners() {
            listener.consuming(false);
        }
    }
}

impl Routes {
    fn table(&mut self, globs: bool) -> &mut HashMap<String, Route> {
        if globs { &mut self.globs } else { &mut self.channels }
    }

    fn listeners(&self) -> Vec<Arc<Listener>> {
        let mut all: Vec<Arc<Listener>> = Vec::new();
        for listener in self.channels.values().chain(self.globs.values()).flat_map(|route| &route.listeners) {
            if !all.iter().any(|known| Arc::ptr_eq(known, listener)) {
                all.push(listener.clone());
            }
        }
        all
    }

    fn enter(&mut self, globs: bool, names: &[String], listener: &Arc<Listener>) {
        for name in names {
            let route = self.table(globs).entry(name.clone()).or_default();
            route.count += 1;
            route.listeners.push(listener.clone());
        }
    }

    /// One listens less; whether nobody is left.
    fn release(&mut self, globs: bool, name: &str, listener: Option<&Arc<Listener>>) -> bool {
        let table = self.table(globs);
        let Some(route) = table.get_mut(name) else { return false };
        if let Some(listener) = listener {
            route.listeners.retain(|known| !Arc::ptr_eq(known, listener));
        }
        route.count = route.count.saturating_sub(1);
        if route.count == 0 {
            table.remove(name);
            return true;
        }
        false
    }
}

impl Wants {
    /// What to listen to: whether as globs, and the names.
    fn names(&self) -> (bool, Vec<String>) {
        match self {
            Self::Topic { globs, .. } => (true, globs.clone()),
            Self::Channel(channel) | Self::Inbox { channel, .. } => (false, vec![channel.clone()]),
        }
    }

    /// The first of the globs that lets `channel` through.
    fn first_glob(&self, channel: &str) -> Option<&str> {
        match self {
            Self::Topic { globs, .. } => {
                globs.iter().map(String::as_str).find(|glob| glob_matches(glob, channel))
            }
            _ => None,
        }
    }
}
