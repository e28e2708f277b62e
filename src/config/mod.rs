//! Configuration in layers: defaults, file, environment, command line, each over those before it.
//!
//! A file is one JSON object. Hyphens in member names equal underscores, at every depth. A member that nobody knows is an
//! error, and so is a file that was named and is not there; a default file that is not there is fine.

mod actors;
mod file;
mod hidden;
mod require;

use std::{fmt, num::NonZeroU64, path::PathBuf, sync::Arc, time::Duration};

use figment::{
    Figment, Profile,
    error::Kind,
    providers::Serialized,
    value::{Dict, Value},
};
use serde::{Deserialize, de::DeserializeOwned};

use crate::{
    actor::{Access, Identity},
    address::Token,
    driver::{BusOptions, BusUri},
    error::{Error, Result},
};
pub use actors::{AccessSection, IdentitySection, Keys};
use file::Members;
pub use file::{ConfigFile, parse_file};
pub use hidden::Hidden;
pub use require::{Requirement, Requirements};

/// The prefix of environment variables: `COMMISSAIRE_BUS_URI`.
pub const ENV_PREFIX: &str = "COMMISSAIRE_";

/// The members that all programs have.
const COMMON: [&str; 9] = [
    "bus_uri",
    "bus_exchange",
    "require",
    "admin",
    "grace_seconds",
    "data_dir",
    "subscription_expiry_seconds",
    "identity",
    "access",
];
/// Those of them that are objects.
const SECTIONS: [&str; 2] = ["identity", "access"];
/// What the environment can set within `identity`; a section as a whole it cannot.
const WITHIN: [(&str, &str); 2] = [("identity", "name"), ("identity", "key_file")];

/// The effective configuration of one service. `Debug` shows the common members only: others may be secret.
#[derive(Clone)]
pub struct Config {
    figment: Figment,
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
}

/// The members of a service that has none of its own: whatever else is set is an error.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoMembers {}

/// Collects the layers of a configuration. `Debug` shows none of their values.
#[derive(Clone, Default)]
pub struct Layers {
    figment: Figment,
}

impl Layers {
    /// No layers yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The JSON file on top of what there is.
    pub fn file(mut self, file: &ConfigFile) -> Result<Self> {
        if let Some(members) = file.read()? {
            self.figment = self.figment.merge(members);
        }
        Ok(self)
    }

    /// The environment on top: the members that all programs have. A variable that is empty counts as not set.
    #[must_use]
    pub fn environment(mut self) -> Self {
        for member in COMMON.into_iter().filter(|member| !SECTIONS.contains(member)) {
            let variable = format!("{ENV_PREFIX}{}", member.to_uppercase());
            let text = std::env::var(&variable).unwrap_or_default();
            if text.is_empty() {
                continue;
            }
            // A name may look like a number; only what is one is read as one.
            let number = member.ends_with("_seconds").then(|| text.parse::<u64>().ok()).flatten();
            let value = number.map_or_else(|| Value::from(text), Value::from);
            self.figment =
                self.figment.merge(Members::new(variable, Dict::from([(member.to_owned(), value)])));
        }
        for (section, member) in WITHIN {
            let variable = format!("{ENV_PREFIX}{}_{}", section.to_uppercase(), member.to_uppercase());
            let text = std::env::var(&variable).unwrap_or_default();
            if !text.is_empty() {
                let value = Value::from(Dict::from([(member.to_owned(), Value::from(text))]));
                self.figment =
                    self.figment.merge(Members::new(variable, Dict::from([(section.to_owned(), value)])));
            }
        }
        self
    }

    /// One member on top, from the command line.
    #[must_use]
    pub fn set(mut self, name: &str, value: Option<impl serde::Serialize>) -> Self {
        if let Some(value) = value {
            self.figment = self.figment.merge(Serialized::global(name, value));
        }
        self
    }

    /// The effective configuration, keys of actors read; fails when a common member cannot be used.
    pub fn load(self) -> Result<Config> {
        let common = self.figment.extract::<Common>().map_err(|e| faults(&e, &self.figment))?;
        let identity = common.identity.load()?;
        let access = common.access.as_ref().map(AccessSection::load).transpose()?.map(Arc::new);
        Ok(Config { figment: self.figment, common, identity, access })
    }
}

impl Config {
    /// What all programs can be told.
    pub fn common(&self) -> &Common {
        &self.common
    }

    /// The members of the service's own, as a `T`. With `deny_unknown_fields` on `T`, unknown members are errors.
    pub fn own<T: DeserializeOwned>(&self) -> Result<T> {
        let mut members: Dict = self.figment.extract().map_err(|e| faults(&e, &self.figment))?;
        members.retain(|name, _| !COMMON.contains(&name.as_str()));
        Figment::from(Serialized::from(Value::from(members), Profile::Default))
            .extract()
            .map_err(|e| faults(&e, &self.figment))
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
        let layers: Vec<String> = self.figment.metadata().map(|layer| layer.name.to_string()).collect();
        f.debug_tuple("Layers").field(&layers).finish()
    }
}

/// All faults that figment found, each with its member and the layer of `figment` that set it, never with the value.
fn faults(error: &figment::Error, figment: &Figment) -> Error {
    let texts: Vec<String> = error.clone().into_iter().map(|fault| text(&fault, figment)).collect();
    Error::config(format!("the configuration cannot be used: {}", texts.join("; ")))
}

fn text(fault: &figment::Error, figment: &Figment) -> String {
    let (member, problem) = match &fault.kind {
        Kind::UnknownField(name, []) => (name.clone(), "is not known here".to_owned()),
        Kind::UnknownField(name, known) => {
            (name.clone(), format!("is not known here: known are {}", known.join(", ")))
        }
        Kind::InvalidType(_, expected) | Kind::InvalidValue(_, expected) => {
            (fault.path.join("."), format!("must be {expected}"))
        }
        kind => (fault.path.join("."), kind.to_string()),
    };
    let layer = figment.find_metadata(&member).map(|found| format!(" ({})", found.name)).unwrap_or_default();
    if member.is_empty() { problem } else { format!("member {member:?}{layer}: {problem}") }
}
