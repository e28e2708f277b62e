//! The log: which events go where, as the section `logging` of the configuration says.
//!
//! An event of the module `commissaire_storage::relay` belongs to the logger `commissaire.storage.relay`, below
//! `commissaire.storage`, below `commissaire`, below the root; in the section `storage.relay` and
//! `commissaire_storage::relay` name it as well. As in Python, the nearest logger that has a level says from which level on
//! an event counts, and it goes to the handlers of its logger and of all above it, up to one that does not propagate.
//!
//! Libraries beside ours are heard only where a logger is named for them: what matters of what they say we say ourselves,
//! and what they say may hold what must not be logged. With `-v` their errors are heard as well.

mod file;
mod format;
mod handler;
mod level;
mod plan;
mod record;
mod section;
mod syslog;

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Arc, LazyLock, OnceLock, PoisonError, RwLock},
};

use tracing::{Event, Metadata, Subscriber, level_filters::LevelFilter, subscriber::Interest};
use tracing_subscriber::{
    Layer, Registry,
    layer::{Context, SubscriberExt},
    reload,
    util::SubscriberInitExt,
};

use self::{format::Format, handler::Handler, record::Record};
pub use level::Level;
pub(crate) use plan::Faults;
pub use section::LoggingSection;

/// The log of this process.
static LOG: OnceLock<reload::Handle<Logging, Registry>> = OnceLock::new();

/// Which events go where. A layer of `tracing-subscriber`.
pub struct Logging {
    loggers: BTreeMap<String, Logger>,
    root: Logger,
    /// Where what matters goes that no handler takes.
    last_resort: Arc<Handler>,
    /// The level of the root.
    ours: Level,
    /// From which level on, if that of the root is not above it, libraries are heard for whom no logger is named.
    others: Level,
    /// What was found out about targets.
    routes: RwLock<HashMap<String, Arc<Route>>>,
}

#[derive(Default)]
struct Logger {
    level: Option<Level>,
    propagate: bool,
    handlers: Vec<Arc<Handler>>,
}

/// Where the events of one target go.
struct Route {
    name: String,
    level: Level,
    handlers: Vec<Arc<Handler>>,
}

impl Logging {
    /// What `section` says; where it says no level of the root, that is `usual`. Opens the files. Libraries beside ours for
    /// whom no logger is named are heard from `others` on.
    pub fn new(section: &LoggingSection, usual: Level, others: Level) -> Result<Self, Faults> {
        let plan = section.plan()?;
        let mut opened = BTreeMap::new();
        let mut faults = Faults::new();
        for (name, planned) in plan.handlers {
            match Handler::open(&name, planned) {
                Ok(handler) => drop(opened.insert(name, Arc::new(handler))),
                Err((member, why)) => faults.push((vec!["handlers".into(), name, member.into()], why)),
            }
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let logger = |planned: plan::PlannedLogger| Logger {
            level: planned.level,
            propagate: planned.propagate,
            handlers: planned.handlers.iter().filter_map(|name| opened.get(name).cloned()).collect(),
        };
        let mut root = logger(plan.root);
        root.handlers.extend(plan.usual.map(|format| Arc::new(Handler::stderr(Level::ALL, format))));
        let loggers =
            plan.loggers.into_iter().map(|(name, planned)| (logger_name(&name), logger(planned))).collect();
        let ours = root.level.unwrap_or(usual);
        LazyLock::force(&format::BEGAN);
        let last_resort = Arc::new(Handler::stderr(Level::WARNING, Arc::new(Format::message())));
        Ok(Self { loggers, root, last_resort, ours, others, routes: RwLock::default() })
    }

    /// The root at this level, whatever the section says.
    #[must_use]
    pub fn root_at(self, level: Level) -> Self {
        Self { ours: level, ..self }
    }

    /// The root at this level or, as the section says, below.
    #[must_use]
    pub fn root_at_least(self, level: Level) -> Self {
        Self { ours: self.ours.min(level), ..self }
    }

    fn route(&self, target: &str) -> Arc<Route> {
        let known = self.routes.read().unwrap_or_else(PoisonError::into_inner).get(target).cloned();
        known.unwrap_or_else(|| {
            let found = Arc::new(self.find(target));
            let mut routes = self.routes.write().unwrap_or_else(PoisonError::into_inner);
            routes.entry(target.to_owned()).or_insert(found).clone()
        })
    }

    fn find(&self, target: &str) -> Route {
        let name = logger_name(target);
        let ours = name == OURS || name.starts_with(WITHIN);
        let mut level = None;
        let mut named = false;
        let mut handlers: Vec<Arc<Handler>> = Vec::new();
        let mut propagate = true;
        let mut rest = Some(name.as_str());
        while let Some(one) = rest {
            let short = one.strip_prefix(WITHIN);
            for logger in [Some(one), short].into_iter().flatten().filter_map(|one| self.loggers.get(one)) {
                named = true;
                // As in Python, a level of 0 is none but at the root.
                level = level.or(logger.level.filter(|level| *level > Level::ALL));
                if propagate {
                    handlers.extend(logger.handlers.iter().cloned());
                    propagate = logger.propagate;
                }
            }
            rest = one.rsplit_once('.').map(|(above, _)| above);
        }
        if propagate {
            handlers.extend(self.root.handlers.iter().cloned());
        }
        let level = level.unwrap_or(if ours || named { self.ours } else { self.ours.max(self.others) });
        if handlers.is_empty() {
            // As in Python: what nobody takes is not lost if it matters.
            handlers.push(self.last_resort.clone());
        }
        Route { name, level, handlers }
    }
}

/// The name of the logger of all that is ours, and how those below it begin.
const OURS: &str = "commissaire";
const WITHIN: &str = "commissaire.";

/// The name of the logger for what a module tells.
fn logger_name(target: &str) -> String {
    let name = target.replace("::", ".");
    match name.strip_prefix("commissaire_") {
        Some(rest) => format!("{WITHIN}{rest}"),
        None => name,
    }
}

impl<S: Subscriber> Layer<S> for Logging {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        let heard = self.route(metadata.target()).level <= (*metadata.level()).into();
        if metadata.is_event() && heard { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        metadata.is_event() && self.route(metadata.target()).level <= (*metadata.level()).into()
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let level = (*event.metadata().level()).into();
        let route = self.route(event.metadata().target());
        if level < route.level {
            return;
        }
        let record = Record::new(event, &route.name);
        for handler in route.handlers.iter().filter(|handler| handler.level <= level) {
            handler.write(&record);
        }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        let named = self.loggers.values().filter_map(|logger| logger.level);
        let lowest = named.chain([self.ours, self.others]).min()?;
        Some(match lowest.number() {
            0..=5 => LevelFilter::TRACE,
            6..=10 => LevelFilter::DEBUG,
            11..=20 => LevelFilter::INFO,
            21..=30 => LevelFilter::WARN,
            31..=40 => LevelFilter::ERROR,
            _ => LevelFilter::OFF,
        })
    }
}

/// Makes `logging` the log of this process, instead of the one before, whose files are closed.
pub fn install(logging: Logging) {
    match LOG.get() {
        // It fails only where there is no log of ours.
        Some(log) => drop(log.reload(logging)),
        None => {
            let (layer, handle) = reload::Layer::new(logging);
            if tracing_subscriber::registry().with(layer).try_init().is_ok() {
                let _ = LOG.set(handle);
            }
        }
    }
}

impl fmt::Debug for Logging {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Logging").field("loggers", &self.loggers.keys()).finish_non_exhaustive()
    }
}
