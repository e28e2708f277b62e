//! The configuration of the container managers' service.

use std::fmt;

use commissaire::{Error, Result};
use commissaire_api::{ContainerManagerConfig, ContainerManagerKind};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer},
};
use serde_json::{Map, Value};

use crate::options;

/// What a handler may have before its name, as the first Commissaire wrote it.
const MODULE: &str = "commissaire.containermgr.";
const KINDS: [(&str, ContainerManagerKind); 3] = [
    ("kubernetes", ContainerManagerKind::Kubernetes),
    ("openshift", ContainerManagerKind::Openshift),
    ("trivial", ContainerManagerKind::Trivial),
];

/// The members that only this service has.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Members {
    /// Container managers beside those whose records are in storage; a record of the same name goes over one of these.
    pub container_handlers: Handlers,
    /// How long a container manager may be away before a call fails, in seconds; never longer than the call's deadline.
    pub patience_seconds: u64,
    /// How many nodes are drained at one time.
    pub drains: usize,
}

impl Default for Members {
    fn default() -> Self {
        Self { container_handlers: Handlers::default(), patience_seconds: 30, drains: 32 }
    }
}

/// Container managers as the first Commissaire configured them: an object or a list of objects, each with `name`, `handler`
/// (or `type`), and the options. As JSON it shows no secret.
#[derive(Clone, Default)]
pub struct Handlers(Vec<ContainerManagerConfig>);

impl Handlers {
    /// The container managers.
    pub fn all(&self) -> &[ContainerManagerConfig] {
        &self.0
    }

    fn new(given: Vec<Map<String, Value>>) -> Result<Self> {
        let mut all: Vec<ContainerManagerConfig> = Vec::new();
        for (at, one) in given.into_iter().enumerate() {
            let which = one.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
            let read = read(one).and_then(|config| {
                if all.iter().any(|other| other.name == config.name) {
                    return Err(Error::config("another has this name already"));
                }
                options::check(&config).map_err(|failure| Error::config(failure.text))?;
                Ok(config)
            });
            let which = if which.is_empty() { which } else { format!(" ({which:?})") };
            all.push(read.map_err(|e| Error::config(format!("[{at}]{which}: {e}")))?);
        }
        Ok(Self(all))
    }
}

fn read(mut given: Map<String, Value>) -> Result<ContainerManagerConfig> {
    let mut text = |name: &str| match given.remove(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(Error::config(format!("{name} must be text"))),
    };
    let name = text("name")?.filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| Error::config("name is missing"))?;
    if let Some(bad) = name.chars().find(|c| c.is_control() || *c == '/') {
        return Err(Error::config(format!("name must not hold {bad:?}")));
    }
    let word = match (text("handler")?, text("type")?) {
        (Some(word), None) | (None, Some(word)) => word,
        (None, None) => {
            return Err(Error::config("handler is missing: it takes kubernetes, openshift or trivial"));
        }
        (Some(_), Some(_)) => return Err(Error::config("handler and type are both set: they mean the same")),
    };
    let word = word.strip_prefix(MODULE).unwrap_or(&word);
    let kind = KINDS.iter().find(|(name, _)| *name == word).map(|(_, kind)| *kind);
    let kind = kind.ok_or_else(|| {
        let near = commissaire::nearest(word, KINDS.map(|(name, _)| name));
        let near = near.map_or_else(String::new, |near| format!(": did you mean {near}?"));
        Error::config(format!("handler {word:?} is unknown{near} (known are kubernetes, openshift, trivial)"))
    })?;
    Ok(ContainerManagerConfig { name, kind, options: given })
}

impl<'de> Deserialize<'de> for Handlers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMany;
        impl<'de> Visitor<'de> for OneOrMany {
            type Value = Vec<Map<String, Value>>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object, or a list of objects")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                Map::deserialize(MapAccessDeserializer::new(map)).map(|one| vec![one])
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut all = Vec::new();
                while let Some(one) = list.next_element()? {
                    all.push(one);
                }
                Ok(all)
            }
        }
        let given = deserializer.deserialize_any(OneOrMany)?;
        Self::new(given).map_err(serde::de::Error::custom)
    }
}

impl Serialize for Handlers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let shown = self.0.iter().map(|config| {
            let word = KINDS.iter().find(|(_, kind)| *kind == config.kind).map_or("", |(word, _)| word);
            let mut shown = config.options.clone();
            for secret in commissaire_api::record::CONTAINER_MANAGER_CONFIG.secrets_of("options") {
                if let Some(value) = shown.get_mut(*secret) {
                    *value = "***".into();
                }
            }
            shown.insert("name".to_owned(), config.name.as_str().into());
            shown.insert("handler".to_owned(), word.into());
            shown
        });
        serializer.collect_seq(shown)
    }
}

impl fmt::Debug for Handlers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
