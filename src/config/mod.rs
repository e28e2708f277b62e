//! Configuration in layers: defaults, file, etcd, environment, command line, each over those before it.
//!
//! A file is one JSON object. Hyphens in member names equal underscores, at every depth. A member that nobody knows is an
//! error, and so is a file that was named and is not there; a default file that is not there is fine. Whatever is wrong is
//! told at once, each fault with its [`Place`], and [`Config::settings`] tells of every value where it was set and what it
//! overrode.

mod actors;
mod environment;
#[cfg(feature = "etcd")]
mod etcd;
#[cfg(not(feature = "etcd"))]
#[path = "no_etcd.rs"]
mod etcd;
mod explain;
mod faults;
mod file;
mod hidden;
mod json;
mod layer;
#[cfg(feature = "etcd")]
mod machines;
mod own;
mod place;
mod require;

use std::{fmt, num::NonZeroU64, path::PathBuf, sync::Arc, time::Duration};

use figment::{
    Figment,
    value::{Dict, Value},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    actor::{Access, Identity},
    address::Token,
    app::DEFAULT_GRACE,
    driver::{BusOptions, BusUri},
    error::Result,
    logging::{self, Level, Logging, LoggingSection},
};
pub use actors::{AccessSection, IdentitySection, Keys};
pub use etcd::EtcdKey;
pub use explain::{Former, Setting, write};
use faults::Reading;
pub use file::ConfigFile;
pub use hidden::Hidden;
use layer::Layer;
#[cfg(feature = "etcd")]
pub use machines::{EtcdMachines, EtcdNames};
pub use own::{NoMembers, OwnMembers};
pub use place::Place;
pub use require::{Requirement, Requirements};

/// The prefix of environment variables: `COMMISSAIRE_BUS_URI`, and `COMMISSAIRE_IDENTITY__NAME` for a member of a section.
pub const ENV_PREFIX: &str = "COMMISSAIRE_";

/// The members that all programs have.
const COMMON: [&str; 11] = [
    "bus_uri",
    "bus_exchange",
    "require",
    "admin",
    "grace_seconds",
    "data_dir",
    "subscription_expiry_seconds",
    "identity",
    "access",
    "logging",
    "debug",
];

/// The effective configuration of one service. `Debug` shows the common members only: others may be secret.
#[derive(Clone)]
pub struct Config {
    /// What holds, and who said so.
    members: Dict,
    layers: Arc<[Layer]>,
    /// The services whose own members stand in a section each.
    sections: Arc<[&'static str]>,
    /// Where the members of the service's own stand, if not beside the common ones.
    section: Option<&'static str>,
    common: Common,
    identity: Identity,
    access: Option<Arc<Access>>,
}

/// What all programs can be told.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Common {
    /// The bus; without one a program looks for the socket of a running `commissaire up`.
    #[serde(default)]
    pub bus_uri: Option<BusUri>,
    /// The name space on the bus.
    #[serde(default)]
    pub bus_exchange: Option<Token>,
    /// What the bus must give, or the program does not start.
    #[serde(default)]
    pub require: Requirements,
    /// Where health and metrics are served: `ADDRESS:PORT` or the path of a socket.
    #[serde(default)]
    pub admin: Option<String>,
    /// How long begun work may take when the program is told to end.
    #[serde(default)]
    pub grace_seconds: Option<u64>,
    /// After how many seconds without a reader a durable subscription may be removed.
    #[serde(default)]
    pub subscription_expiry_seconds: Option<NonZeroU64>,
    /// Where the program keeps its data.
    #[serde(default)]
    pub data_dir: Option<PathBuf>,
    /// Who the program is on the bus.
    #[serde(default)]
    pub identity: IdentitySection,
    /// Whom its services know, and what they let them ask for; without it everybody may ask for everything.
    #[serde(default)]
    pub access: Option<AccessSection>,
    /// Which events go where.
    #[serde(default)]
    pub logging: LoggingSection,
    /// Whether more is told than what matters, where `logging` does not say otherwise.
    #[serde(default)]
    pub debug: bool,
}

/// Collects the layers of a configuration. `Debug` shows none of their values.
#[derive(Clone, Default)]
pub struct Layers {
    layers: Vec<Layer>,
    /// The members that services have beside the common ones, some of them in a section each.
    own: Vec<(Option<&'static str>, OwnMembers)>,
}

impl Layers {
    /// What all programs have, with its defaults.
    pub fn new() -> Self {
        let options = BusOptions::default();
        let defaults = Dict::from([
            ("bus_exchange".to_owned(), Value::from(options.exchange.as_str())),
            ("grace_seconds".to_owned(), Value::from(DEFAULT_GRACE.as_secs())),
            ("subscription_expiry_seconds".to_owned(), Value::from(options.idle_expiry.as_secs())),
            ("debug".to_owned(), Value::from(false)),
        ]);
        Self { layers: vec![Layer::defaults(defaults)], own: Vec::new() }
    }

    /// What one service has beside that.
    #[must_use]
    pub fn own(mut self, members: OwnMembers) -> Self {
        self.layers.push(Layer::defaults(members.defaults()));
        self.own.push((None, members));
        self
    }

    /// What one service of several has beside that, in a section of its name.
    #[must_use]
    pub fn section(mut self, name: &'static str, members: OwnMembers) -> Self {
        let defaults = members.defaults();
        if !defaults.is_empty() {
            self.layers.push(Layer::defaults(Dict::from([(name.to_owned(), Value::from(defaults))])));
        }
        self.own.push((Some(name), members));
        self
    }

    /// The JSON file on top of what there is.
    pub fn file(mut self, file: &ConfigFile) -> Result<Self> {
        self.layers.extend(file.read()?);
        Ok(self)
    }

    /// The JSON text `name` on top.
    pub fn text(mut self, name: &str, text: &str) -> Result<Self> {
        self.layers.push(file::parse(name, text)?);
        Ok(self)
    }

    /// What the key in etcd sets on top, if there is a key. One that cannot be read is a warning, or an error where it was
    /// said that it must be.
    pub async fn etcd(mut self, key: Option<&EtcdKey>) -> Result<Self> {
        if let Some(key) = key {
            self.layers.extend(key.read().await?);
        }
        Ok(self)
    }

    /// The environment on top. A variable that is empty counts as not set.
    #[must_use]
    pub fn environment(mut self) -> Self {
        self.layers.extend(environment::layers(&self.known()));
        self
    }

    /// One member on top, from the option of its name on the command line.
    #[must_use]
    pub fn set(mut self, name: &str, value: Option<impl Serialize>) -> Self {
        if let Some(value) = value.and_then(|value| Value::serialize(value).ok()) {
            let place = Place::CommandLine { option: format!("--{}", name.replace('_', "-")) };
            self.layers.push(Layer::one(vec![name.to_owned()], value, place));
        }
        self
    }

    /// The effective configuration, keys of actors read. Fails with all that cannot be used.
    pub fn load(self) -> Result<Config> {
        let Self { layers, own } = self;
        let known = known(&own);
        let figment = layers.iter().cloned().fold(Figment::new(), Figment::merge);
        let mut members: Dict = figment.extract().map_err(|e| {
            let names: Vec<&str> = layers.iter().map(Layer::name).collect();
            crate::error::Error::config(format!("{} do not fit together", names.join(", "))).because(e)
        })?;
        let mut reading = Reading::new(&layers);
        let common = reading.read::<Common>(&mut members, None, &known);
        for (path, problem) in common.iter().flat_map(|common| common.logging.faults()) {
            reading.wrong(&within("logging", path), &problem);
        }
        for (section, own) in &own {
            match section {
                None => {
                    let mut rest = members.clone();
                    rest.retain(|name, _| !COMMON.contains(&name.as_str()));
                    own.check(&mut reading, &mut rest, None, &known);
                    members.extend(rest);
                }
                Some(_) => own.check(&mut reading, &mut members, *section, &known),
            }
        }
        if own.iter().any(|(section, _)| section.is_some()) {
            for name in members.keys().filter(|name| !known.contains(&name.as_str())) {
                reading.wrong(std::slice::from_ref(name), &faults::unknown(name, &known));
            }
        }
        let common = common.unwrap_or_default();
        let identity = reading.loaded("identity", common.identity.load());
        let access = common.access.as_ref().and_then(|access| reading.loaded("access", access.load()));
        reading.end()?;
        let (identity, access) = (identity.unwrap_or_default(), access.map(Arc::new));
        let sections = own.iter().filter_map(|(section, _)| *section).collect();
        Ok(Config { members, layers: layers.into(), sections, section: None, common, identity, access })
    }

    fn known(&self) -> Vec<&'static str> {
        known(&self.own)
    }
}

/// What `path` leads to in `section`, from the top.
fn within(section: &str, path: layer::Path) -> layer::Path {
    [vec![section.to_owned()], path].concat()
}

/// All names that may stand at the top.
fn known(own: &[(Option<&'static str>, OwnMembers)]) -> Vec<&'static str> {
    let own = own.iter().flat_map(|(section, members)| match section {
        Some(section) => std::slice::from_ref(section),
        None => members.names(),
    });
    COMMON.iter().chain(own).copied().collect()
}

impl Config {
    /// What all programs can be told.
    pub fn common(&self) -> &Common {
        &self.common
    }

    /// The same for the service `name`, whose members may stand in a section of its own.
    #[must_use]
    pub fn of(&self, name: &'static str) -> Self {
        Self { section: self.sections.contains(&name).then_some(name), ..self.clone() }
    }

    /// The log that it asks for, its files open. `usual` is the level of the root where it asks for none, and `others` that
    /// of libraries for whom it names no logger.
    pub fn logging(&self, usual: Level, others: Level) -> Result<Logging> {
        let usual = if self.common.debug { Level::DEBUG } else { usual };
        Logging::new(&self.common.logging, usual, others).map_err(|faults: logging::Faults| {
            let mut reading = Reading::new(&self.layers);
            for (path, problem) in faults {
                reading.wrong(&within("logging", path), &problem);
            }
            reading.end().err().unwrap_or_else(|| crate::error::Error::config("the log cannot be opened"))
        })
    }

    /// The members of the service's own among those that are `changed` at the top.
    pub(crate) fn own_of(&self, changed: &[String]) -> Vec<String> {
        let own = |name: &&String| match self.section {
            None => !COMMON.contains(&name.as_str()),
            Some(section) => *name == section,
        };
        changed.iter().filter(own).cloned().collect()
    }

    /// The same, but for these members at the top, which are as in `other`.
    pub(crate) fn but(mut self, other: &Self, names: &[String]) -> Self {
        for name in names {
            match other.members.get(name) {
                Some(value) => drop(self.members.insert(name.clone(), value.clone())),
                None => drop(self.members.remove(name)),
            }
            match name.as_str() {
                "data_dir" => self.common.data_dir.clone_from(&other.common.data_dir),
                "identity" => self.identity.clone_from(&other.identity),
                "access" => self.access.clone_from(&other.access),
                _ => {}
            }
        }
        self
    }

    /// The names at the top whose values are others in `new`, or the keys that they lead to.
    pub(crate) fn changes(&self, new: &Self) -> Vec<String> {
        let names: std::collections::BTreeSet<&String> =
            self.members.keys().chain(new.members.keys()).collect();
        let key = |config: &Self| config.identity.key.as_ref().map(|key| key.public());
        let (same_key, same_access) = (key(self) == key(new), self.access == new.access);
        let differs = |name: &&String| {
            let same = match name.as_str() {
                "identity" => same_key,
                "access" => same_access,
                _ => true,
            };
            !same || self.members.get(*name) != new.members.get(*name)
        };
        names.into_iter().filter(differs).cloned().collect()
    }

    /// The members of the service's own, as a `T`. With `deny_unknown_fields` on `T`, unknown members are errors.
    pub fn own<T: DeserializeOwned>(&self) -> Result<T> {
        let mut members = self.members.clone();
        if self.section.is_none() {
            members.retain(|name, _| !COMMON.contains(&name.as_str()));
        }
        let mut reading = Reading::new(&self.layers);
        let read = reading.read(&mut members, self.section, &COMMON);
        match (reading.end(), read) {
            (Ok(()), Some(read)) => Ok(read),
            (Err(error), _) => Err(error),
            (Ok(()), None) => Err(crate::error::Error::config("the service's members cannot be read")),
        }
    }

    /// Every value that holds, in the order of their names, with where it was set and what it overrode. Secrets are hidden.
    pub fn settings(&self) -> Vec<Setting> {
        explain::settings(&self.members, &self.layers)
    }

    /// With what the bus is connected, beside its URI.
    pub fn bus_options(&self, client_name: &str) -> BusOptions {
        let defaults = BusOptions::default();
        BusOptions {
            exchange: self.common.bus_exchange.clone().unwrap_or(defaults.exchange),
            client_name: client_name.to_owned(),
            idle_expiry: self.idle_expiry(),
            identity: self.identity.clone(),
            access: self.access.clone(),
        }
    }

    /// After how long without a reader a durable subscription may be removed.
    pub fn idle_expiry(&self) -> Duration {
        let told = self.common.subscription_expiry_seconds;
        told.map_or(BusOptions::default().idle_expiry, |seconds| Duration::from_secs(seconds.get()))
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config").field("common", &self.common).finish_non_exhaustive()
    }
}

impl fmt::Debug for Layers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.layers.iter().map(Layer::name)).finish()
    }
}
