//! Configuration files.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use figment::{
    Metadata, Profile, Provider,
    value::{Dict, Map},
};
use serde_json::Value;

use crate::error::{Error, Result};

/// Which file to read.
#[derive(Debug, Clone)]
pub enum ConfigFile {
    /// Read if it is there.
    Default(PathBuf),
    /// Must be there; `-` is standard input.
    Named(PathBuf),
}

/// The members that one file or variable sets.
#[derive(Clone)]
pub(super) struct Members {
    name: String,
    members: Dict,
}

impl Members {
    /// What `name`, a file or a variable, sets.
    pub(super) fn new(name: String, members: Dict) -> Self {
        Self { name, members }
    }
}

impl ConfigFile {
    /// The file of the service `name`: the one that was named, else `/etc/commissaire/NAME.conf`.
    pub fn of(name: &str, named: Option<PathBuf>) -> Self {
        match named {
            Some(path) => Self::Named(path),
            None => Self::Default(PathBuf::from(format!("/etc/commissaire/{name}.conf"))),
        }
    }

    pub(super) fn read(&self) -> Result<Option<Members>> {
        let (path, must) = match self {
            Self::Default(path) => (path, false),
            Self::Named(path) => (path, true),
        };
        let name =
            if path == Path::new("-") { "standard input".to_owned() } else { path.display().to_string() };
        let text =
            if path == Path::new("-") { io::read_to_string(io::stdin()) } else { fs::read_to_string(path) };
        match text {
            Ok(text) => Ok(Some(Members { members: parse_file(&name, &text)?, name })),
            Err(e) if e.kind() == io::ErrorKind::NotFound && !must => Ok(None),
            Err(e) => Err(Error::config(format!("cannot read configuration file {name}: {e}")).because(e)),
        }
    }
}

/// Reads the text of a file called `name`: one JSON object, hyphens in names taken as underscores, but for the names
/// within the members of `access`: there they are those of actors and of routing keys.
pub fn parse_file(name: &str, text: &str) -> Result<Dict> {
    crate::jsonrpc::check(text.as_bytes()).map_err(|e| {
        let what =
            e.message.trim_start_matches("parse error: ").trim_start_matches("invalid request: ").to_owned();
        Error::config(format!("configuration file {name}: {what}"))
    })?;
    let value: Value = serde_json::from_str(text).map_err(|e| {
        Error::config(format!("configuration file {name}, line {} column {}", e.line(), e.column()))
    })?;
    if !value.is_object() {
        return Err(Error::config(format!(
            "configuration file {name}, line 1 column 1: must be one JSON object"
        )));
    }
    let value = underscored(value, &["access"]);
    figment::value::Value::serialize(value)
        .ok()
        .and_then(figment::value::Value::into_dict)
        .ok_or_else(|| Error::config(format!("configuration file {name} holds what cannot be configured")))
}

fn underscored(value: Value, verbatim: &[&str]) -> Value {
    match value {
        Value::Object(members) => {
            let member = |(name, value): (String, Value)| {
                let name = name.replace('-', "_");
                let value = match value {
                    Value::Object(section) if verbatim.contains(&&*name) => Value::Object(
                        section.into_iter().map(|(name, value)| (name.replace('-', "_"), value)).collect(),
                    ),
                    value => underscored(value, &[]),
                };
                (name, value)
            };
            Value::Object(members.into_iter().map(member).collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(|item| underscored(item, &[])).collect()),
        other => other,
    }
}

impl Provider for Members {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name.clone())
    }

    fn data(&self) -> figment::Result<Map<Profile, Dict>> {
        Ok(Profile::Default.collect(self.members.clone()))
    }
}
