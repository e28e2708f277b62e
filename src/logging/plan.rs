//! What a section comes to: names looked up, and all that cannot be honoured found.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use super::{
    file::Turn,
    format::Format,
    level::Level,
    logger_name,
    section::{LoggerSection, LoggingSection},
    syslog::Address,
};
use crate::nearest;

/// A section that can be honoured.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) handlers: BTreeMap<String, PlannedHandler>,
    /// How lines on standard error look, where the root has a handler for them because nobody says anything.
    pub(super) usual: Option<Arc<Format>>,
    pub(super) loggers: BTreeMap<String, PlannedLogger>,
    pub(super) root: PlannedLogger,
}

#[derive(Debug)]
pub(super) struct PlannedHandler {
    pub(super) level: Level,
    pub(super) format: Arc<Format>,
    pub(super) target: Target,
}

/// Where lines go to.
#[derive(Debug)]
pub(super) enum Target {
    Nowhere,
    Stderr,
    Stdout,
    File { path: PathBuf, empty: bool, turn: Turn },
    Syslog { address: Address, facility: u8 },
}

#[derive(Debug, Default)]
pub(super) struct PlannedLogger {
    pub(super) level: Option<Level>,
    pub(super) propagate: bool,
    pub(super) handlers: Vec<String>,
}

/// What cannot be honoured: the names that lead to it within the section, and what is wrong with it.
pub(crate) type Faults = Vec<(Vec<String>, String)>;

/// The formatter of the handler that the root has where nobody says anything.
const USUAL: &str = "default";

impl LoggingSection {
    /// What of it cannot be honoured. Files are not opened yet.
    pub(crate) fn faults(&self) -> Faults {
        self.plan().err().unwrap_or_default()
    }

    /// What is to be done.
    pub(super) fn plan(&self) -> Result<Plan, Faults> {
        let mut faults = Faults::new();
        let mut wrong = |path: &[&str], why: String| {
            faults.push((path.iter().map(|name| (*name).to_owned()).collect(), why));
        };
        if self.version.is_some_and(|version| version != 1) {
            wrong(&["version"], "must be 1".into());
        }
        if self.incremental {
            wrong(
                &["incremental"],
                "must be false: the whole section holds, and is read again as a whole".into(),
            );
        }
        if !self.filters.is_empty() {
            wrong(&["filters"], "must be empty: filters are classes of Python".into());
        }
        let mut formats = BTreeMap::new();
        for (name, formatter) in &self.formatters {
            match formatter.format() {
                Ok(format) => drop(formats.insert(name.as_str(), Arc::new(format))),
                Err((member, why)) => wrong(&["formatters", name, member], why),
            }
        }
        let mut handlers = BTreeMap::new();
        for (name, handler) in &self.handlers {
            let at = |member| ["handlers", name.as_str(), member];
            let format = match &handler.formatter {
                None => Arc::new(Format::message()),
                Some(wanted) => match formats.get(wanted.as_str()) {
                    Some(format) => format.clone(),
                    None if self.formatters.contains_key(wanted) => Arc::new(Format::message()),
                    None => {
                        wrong(&at("formatter"), undefined(wanted, "formatters", self.formatters.keys()));
                        continue;
                    }
                },
            };
            if !handler.filters.is_empty() {
                wrong(&at("filters"), "must be empty: filters are classes of Python".into());
            }
            match handler.target() {
                Ok(target) => {
                    let level = handler.level.unwrap_or(Level::ALL);
                    handlers.insert(name.clone(), PlannedHandler { level, format, target });
                }
                Err((member, why)) => wrong(&at(member), why),
            }
        }
        let mut spelt = BTreeMap::new();
        for name in self.loggers.keys() {
            if let Some(other) = spelt.insert(logger_name(name), name) {
                wrong(&["loggers", name], format!("is {other:?} by another name"));
            }
        }
        let mut logger = |path: &[&str], logger: &LoggerSection| {
            let at = |member| [path, &[member]].concat();
            for (number, name) in logger.handlers.iter().flatten().enumerate() {
                if !self.handlers.contains_key(name) {
                    let number = number.to_string();
                    wrong(
                        &[path, &["handlers", &number]].concat(),
                        undefined(name, "handlers", self.handlers.keys()),
                    );
                }
            }
            if !logger.filters.is_empty() {
                wrong(&at("filters"), "must be empty: filters are classes of Python".into());
            }
            PlannedLogger {
                level: logger.level,
                propagate: logger.propagate.unwrap_or(true),
                handlers: logger.handlers.clone().unwrap_or_default(),
            }
        };
        let loggers: BTreeMap<String, PlannedLogger> =
            self.loggers.iter().map(|(name, one)| (name.clone(), logger(&["loggers", name], one))).collect();
        let root = self.root.as_ref().map(|root| logger(&["root"], root)).unwrap_or_default();
        let silent = self.root.as_ref().is_none_or(|root| root.handlers.is_none());
        let usual = silent.then(|| formats.get(USUAL).cloned().unwrap_or_else(|| Arc::new(Format::usual())));
        if faults.is_empty() { Ok(Plan { handlers, usual, loggers, root }) } else { Err(faults) }
    }
}

/// What to say of a name that is not defined.
fn undefined<'n>(name: &str, section: &str, defined: impl Iterator<Item = &'n String> + Clone) -> String {
    let known: Vec<&str> = defined.map(String::as_str).collect();
    match nearest(name, known.iter().copied()) {
        Some(meant) => format!("names {name:?}, which is not among {section}: did you mean {meant:?}?"),
        None if known.is_empty() => format!("names {name:?}, but there are no {section}"),
        None => format!("names {name:?}, which is not among {section}: {}", known.join(", ")),
    }
}
