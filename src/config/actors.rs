//! The sections that say who a program is and whom its services know.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::Deserialize;

use crate::{
    actor::{Access, Identity, PublicKey, SecretKey},
    address::Token,
    error::{Error, Result},
};

/// The member `identity`: who this program is on the bus.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdentitySection {
    /// The name; else that of the program: `storage`, `up`, `cli`.
    #[serde(default)]
    pub name: Option<Token>,
    /// The file of the secret key, of mode 0600; without one the name is not proved.
    #[serde(default)]
    pub key_file: Option<PathBuf>,
}

/// The member `access`: whom services know, and what they let them ask for. Names in it stand as they are: here a hyphen
/// is no underscore.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccessSection {
    /// Names, each with its public key, or with a list of keys that are all good, as while a key is replaced.
    #[serde(default)]
    pub actors: BTreeMap<String, Keys>,
    /// A directory of more: `NAME.pub` holds public keys, one a line.
    #[serde(default)]
    pub actors_dir: Option<PathBuf>,
    /// Patterns of routing keys, each with the names of those who may; see [`Access`].
    #[serde(default)]
    pub allow: Option<BTreeMap<String, Vec<String>>>,
}

/// One public key, or several.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum Keys {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

impl IdentitySection {
    /// Reads the key.
    pub(super) fn load(&self) -> Result<Identity> {
        let key = self.key_file.as_deref().map(SecretKey::load).transpose()?;
        Ok(Identity { name: self.name.clone(), key: key.map(Arc::new) })
    }
}

impl AccessSection {
    /// Reads all keys and rules.
    pub(super) fn load(&self) -> Result<Access> {
        let mut actors: HashMap<Token, Vec<PublicKey>> = HashMap::new();
        for (name, keys) in &self.actors {
            let keys = match keys {
                Keys::One(key) => std::slice::from_ref(key),
                Keys::Many(keys) => keys,
            };
            let place = format!("access.actors {name:?}");
            add(&mut actors, name, keys.iter().map(String::as_str), &place)?;
        }
        if let Some(dir) = &self.actors_dir {
            for path in key_files(dir)? {
                let place = format!("access.actors_dir: {}", path.display());
                let text = fs::read_to_string(&path).map_err(|e| wrong(&place, e))?;
                let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
                add(&mut actors, name, text.lines().filter(|line| !line.trim().is_empty()), &place)?;
            }
        }
        Access::new(actors, self.allow.as_ref())
    }
}

fn add<'a>(
    actors: &mut HashMap<Token, Vec<PublicKey>>,
    name: &str,
    keys: impl Iterator<Item = &'a str>,
    place: &str,
) -> Result<()> {
    let name = Token::new(name).map_err(|e| wrong(place, e))?;
    let known = actors.entry(name).or_default();
    for key in keys {
        known.push(key.parse().map_err(|e| wrong(place, e))?);
    }
    if known.is_empty() {
        return Err(wrong(place, "there is no key"));
    }
    Ok(())
}

/// The files `*.pub` of `dir`, in the order of their names.
fn key_files(dir: &Path) -> Result<Vec<PathBuf>> {
    let place = format!("access.actors_dir {}", dir.display());
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).map_err(|e| wrong(&place, e))? {
        let path = entry.map_err(|e| wrong(&place, e))?.path();
        if path.extension().is_some_and(|extension| extension == "pub") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn wrong(place: &str, why: impl std::fmt::Display) -> Error {
    Error::config(format!("{place}: {why}"))
}
