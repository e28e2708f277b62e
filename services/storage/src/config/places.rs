//! The member `storage_handlers`: an object or a list of objects, each of which is a place where records are kept.

use std::{collections::HashSet, fmt, path::PathBuf};

use commissaire::{
    Error, Result,
    config::{EtcdMachines, EtcdNames},
};
use commissaire_api::model::{Kept, MODELS, Model};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer},
};
use serde_json::{Map, Value};

/// Where an etcd is when nobody says so.
const ETCD: &str = "http://127.0.0.1:2379";
/// What a type may have before its name, as the first Commissaire wrote it.
const MODULE: &str = "commissaire.storage.";
/// What a place may be.
const TYPES: [&str; 2] = ["embedded", "etcd"];

static NAMES: EtcdNames = EtcdNames {
    machines: "server_url",
    certificate: "certificate_path",
    key: "certificate_key_path",
    authority: "certificate_ca_path",
    username: "username",
    password: "password",
};

/// The places, in the order in which they were configured; one embedded store for everything when none was.
#[derive(Debug, Clone, Serialize)]
#[serde(transparent)]
pub struct Places {
    given: Vec<Given>,
    #[serde(skip)]
    places: Vec<PlaceConfig>,
}

/// A place where records are kept.
#[derive(Debug, Clone)]
pub struct PlaceConfig {
    /// What it is called: in `Host.source`, and in errors.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// The models that are kept there.
    pub models: Vec<&'static Model>,
    /// Its settings, without secrets.
    pub shown: Map<String, Value>,
}

/// What sort of place.
#[derive(Debug, Clone)]
pub enum Kind {
    /// An embedded store in this directory; `None`: the service's own.
    Embedded(Option<PathBuf>),
    /// An etcd.
    Etcd(EtcdMachines),
}

/// A place as it was written down.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Given {
    r#type: String,
    name: Option<String>,
    models: Option<Vec<String>>,
    data_dir: Option<PathBuf>,
    server_url: Option<String>,
    certificate_path: Option<String>,
    certificate_key_path: Option<String>,
    certificate_ca_path: Option<String>,
    username: Option<String>,
    password: Option<String>,
}

impl Places {
    /// The places.
    pub fn all(&self) -> &[PlaceConfig] {
        &self.places
    }

    fn new(given: Vec<Given>) -> Result<Self> {
        if given.is_empty() {
            return Ok(Self::default());
        }
        let mut places: Vec<PlaceConfig> = Vec::new();
        for (at, one) in given.iter().enumerate() {
            let name = one.name.clone().unwrap_or_else(|| free_name(one.word(), &places, &given));
            let place = one.place(name).and_then(|place| {
                if places.iter().any(|other| other.name == place.name) {
                    return Err(Error::config(format!("another has the name {:?} already", place.name)));
                }
                for model in &place.models {
                    if let Some(other) = places.iter().find(|other| other.models.contains(model)) {
                        return Err(Error::config(format!(
                            "{} is kept by {:?} already",
                            model.name, other.name
                        )));
                    }
                }
                Ok(place)
            });
            let which = one.name.as_ref().map_or(String::new(), |name| format!(" ({name:?})"));
            places.push(place.map_err(|e| Error::config(format!("[{at}]{which}: {e}")))?);
        }
        keep_ours(&mut places);
        let mut dirs = HashSet::new();
        for place in &places {
            if let Kind::Embedded(dir) = &place.kind
                && !dirs.insert(dir)
            {
                return Err(Error::config(format!(
                    "{:?} is a second embedded store in one directory: give each its data_dir",
                    place.name
                )));
            }
        }
        Ok(Self { given, places })
    }
}

impl Default for Places {
    fn default() -> Self {
        let models = MODELS.into_iter().filter(|model| model.kept == Kept::Plain).collect();
        let name = "embedded".to_owned();
        Self {
            given: Vec::new(),
            places: vec![PlaceConfig { name, kind: Kind::Embedded(None), models, shown: Map::new() }],
        }
    }
}

impl Given {
    /// The type. The file that came with the first Commissaire has it as the name alone.
    fn word(&self) -> &str {
        let given =
            if self.r#type.is_empty() { self.name.as_deref().unwrap_or_default() } else { &self.r#type };
        let word = given.strip_prefix(MODULE).unwrap_or(given);
        if self.r#type.is_empty() && !TYPES.contains(&word) { "" } else { word }
    }

    fn place(&self, name: String) -> Result<PlaceConfig> {
        if let Some(bad) = name.chars().find(|c| c.is_control() || *c == '/') {
            return Err(Error::config(format!("name must not hold {bad:?}")));
        }
        let models = self.models()?;
        let kind = match self.word() {
            "" => return Err(Error::config("type is missing: it takes embedded or etcd")),
            "embedded" => self.embedded()?,
            "etcd" => self.etcd()?,
            other => {
                let near = commissaire::nearest(other, TYPES);
                let near = near.map_or_else(String::new, |near| format!(": did you mean {near}?"));
                return Err(Error::config(format!(
                    "type {other:?} is unknown{near} (known are {})",
                    TYPES.join(", ")
                )));
            }
        };
        let shown = match &kind {
            Kind::Embedded(_) => Map::new(),
            Kind::Etcd(machines) => {
                let mut shown = Map::from_iter([("server_url".to_owned(), machines.urls().join(",").into())]);
                for (name, value) in [
                    (NAMES.certificate, &self.certificate_path),
                    (NAMES.key, &self.certificate_key_path),
                    (NAMES.authority, &self.certificate_ca_path),
                    (NAMES.username, &self.username),
                ] {
                    if let Some(value) = value {
                        shown.insert(name.to_owned(), value.as_str().into());
                    }
                }
                if self.password.is_some() {
                    shown.insert(NAMES.password.to_owned(), "***".into());
                }
                shown
            }
        };
        Ok(PlaceConfig { name, kind, models, shown })
    }

    fn embedded(&self) -> Result<Kind> {
        let others = [
            (NAMES.machines, &self.server_url),
            (NAMES.certificate, &self.certificate_path),
            (NAMES.key, &self.certificate_key_path),
            (NAMES.authority, &self.certificate_ca_path),
            (NAMES.username, &self.username),
            (NAMES.password, &self.password),
        ];
        if let Some((name, _)) = others.into_iter().find(|(_, value)| value.is_some()) {
            return Err(Error::config(format!("{name} is no setting of an embedded store")));
        }
        Ok(Kind::Embedded(self.data_dir.clone()))
    }

    fn etcd(&self) -> Result<Kind> {
        if self.data_dir.is_some() {
            return Err(Error::config("data_dir is no setting of an etcd"));
        }
        let setting = |name: &str| {
            let value = match name {
                "server_url" => self.server_url.clone().or_else(|| Some(ETCD.to_owned())),
                "certificate_path" => self.certificate_path.clone(),
                "certificate_key_path" => self.certificate_key_path.clone(),
                "certificate_ca_path" => self.certificate_ca_path.clone(),
                "username" => self.username.clone(),
                "password" => self.password.clone(),
                _ => None,
            };
            value.filter(|value| !value.is_empty())
        };
        let nothing_said = self.server_url.is_none()
            && [NAMES.certificate, NAMES.key, NAMES.authority, NAMES.username, NAMES.password]
                .iter()
                .all(|name| setting(name).is_none());
        if nothing_said && let Some(machines) = EtcdMachines::from_env()? {
            return Ok(Kind::Etcd(machines));
        }
        EtcdMachines::new(&NAMES, setting).map(Kind::Etcd)
    }

    /// The models that are meant, each once.
    fn models(&self) -> Result<Vec<&'static Model>> {
        let all = ["*".to_owned()];
        let mut models: Vec<&'static Model> = Vec::new();
        for glob in self.models.as_deref().unwrap_or(&all) {
            let meant: Vec<_> = MODELS.into_iter().filter(|model| matches(glob, model.name)).collect();
            let kept = meant.iter().filter(|model| model.kept == Kept::Plain);
            if let [only] = meant[..]
                && only.kept != Kept::Plain
            {
                let why = match only.kept {
                    Kept::Sealed => "is secret, so that no such place may keep it",
                    _ => "is never stored",
                };
                return Err(Error::config(format!("models: {glob:?}: {} {why}", only.name)));
            }
            if kept.clone().next().is_none() {
                let known: Vec<_> =
                    MODELS.iter().filter(|model| model.kept == Kept::Plain).map(|model| model.name).collect();
                return Err(Error::config(format!(
                    "models: {glob:?} is no model (known are {})",
                    known.join(", ")
                )));
            }
            for model in kept {
                if !models.contains(model) {
                    models.push(model);
                }
            }
        }
        if models.is_empty() {
            return Err(Error::config("models: names none"));
        }
        Ok(models)
    }
}

/// Models that the first Commissaire did not have, and whose records belong to hosts.
const OF_HOSTS: [&str; 6] =
    ["HostState", "Investigation", "NodeDrain", "Operation", "OperationHost", "WatchShard"];

/// Puts those that nobody names where hosts are: a configuration may be older than they are.
fn keep_ours(places: &mut [PlaceConfig]) {
    for model in OF_HOSTS.into_iter().filter_map(Model::find) {
        if places.iter().any(|place| place.models.contains(&model)) {
            continue;
        }
        let at = places.iter().position(|place| place.models.iter().any(|kept| kept.name == "Host"));
        if let Some(place) = places.get_mut(at.unwrap_or_default()) {
            place.models.push(model);
        }
    }
}

/// A name made of a type: itself, or with the first number that nobody has.
fn free_name(word: &str, places: &[PlaceConfig], wanted: &[Given]) -> String {
    let taken = |name: &str| {
        places.iter().any(|place| place.name == name)
            || wanted.iter().any(|given| given.name.as_deref() == Some(name))
    };
    let numbered = (1..).map(|number| format!("{word}-{number}"));
    std::iter::once(word.to_owned()).chain(numbered).find(|name| !taken(name)).unwrap_or_default()
}

/// Whether `glob`, in which `*` is any text and `?` any character, is the whole of `name`.
fn matches(glob: &str, name: &str) -> bool {
    match glob.chars().next() {
        None => name.is_empty(),
        Some('*') => {
            let rest = &glob[1..];
            matches(rest, name) || name.chars().next().is_some_and(|c| matches(glob, &name[c.len_utf8()..]))
        }
        Some(wanted) => name.chars().next().is_some_and(|c| {
            (wanted == '?' || wanted == c) && matches(&glob[wanted.len_utf8()..], &name[c.len_utf8()..])
        }),
    }
}

impl<'de> Deserialize<'de> for Places {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMany;
        impl<'de> Visitor<'de> for OneOrMany {
            type Value = Vec<Given>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object, or a list of objects")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                Given::deserialize(MapAccessDeserializer::new(map)).map(|one| vec![one])
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

impl fmt::Debug for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Given").field("type", &self.r#type).field("name", &self.name).finish_non_exhaustive()
    }
}
