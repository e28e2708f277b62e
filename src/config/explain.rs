//! What holds, and who said so.

use std::io::{self, Write};

use figment::value::{Dict, Value};
use serde::Serialize;

use super::{
    Place,
    layer::{Layer, Path},
};
use crate::driver::BusUri;

/// What is shown in place of a secret.
const HIDDEN: &str = "***";
/// What the name of a member says that holds a secret.
const SECRET: [&str; 4] = ["password", "passphrase", "secret", "token"];

/// One member, its value, and where it was set. Secrets are hidden.
#[derive(Debug, Clone, Serialize)]
pub struct Setting {
    /// The names that lead to it.
    pub member: Vec<String>,
    /// Its value.
    pub value: serde_json::Value,
    /// Where that was set.
    pub from: Place,
    /// What it would be if it were not set there, the nearest first.
    pub overrode: Vec<Former>,
}

/// A value that does not hold.
#[derive(Debug, Clone, Serialize)]
pub struct Former {
    /// It.
    pub value: serde_json::Value,
    /// Where it was set.
    pub from: Place,
}

/// All members of `members`, as `layers` set them.
pub(super) fn settings(members: &Dict, layers: &[Layer]) -> Vec<Setting> {
    let mut leaves = Vec::new();
    for (name, value) in members {
        collect(&mut vec![name.clone()], value, &mut leaves);
    }
    leaves.into_iter().filter_map(|(path, value)| setting(path, value, layers)).collect()
}

/// What is no object of more members.
fn collect<'v>(path: &mut Path, value: &'v Value, leaves: &mut Vec<(Path, &'v Value)>) {
    match value {
        Value::Dict(_, members) if !members.is_empty() => {
            for (name, value) in members {
                path.push(name.clone());
                collect(path, value, leaves);
                path.pop();
            }
        }
        leaf => leaves.push((path.clone(), leaf)),
    }
}

fn setting(path: Path, value: &Value, layers: &[Layer]) -> Option<Setting> {
    let set =
        layers.iter().rev().filter_map(|layer| Some((layer.value(&path)?, layer.place(&path)?.clone())));
    let mut set = set.map(|(value, from)| Former { value: shown(&path, value), from });
    let from = set.next()?.from;
    Some(Setting { value: shown(&path, value), from, overrode: set.collect(), member: path })
}

/// `value`, as far as everybody may see it.
fn shown(path: &[String], value: &Value) -> serde_json::Value {
    let mut json = serde_json::to_value(value).unwrap_or_default();
    hide(path.last().map_or("", String::as_str), &mut json);
    json
}

fn hide(name: &str, value: &mut serde_json::Value) {
    use serde_json::Value;
    let name = name.to_lowercase();
    match value {
        Value::Object(members) => members.iter_mut().for_each(|(name, value)| hide(name, value)),
        Value::Array(items) => items.iter_mut().for_each(|item| hide(&name, item)),
        Value::Null => {}
        secret if SECRET.iter().any(|word| name.contains(word)) => *secret = HIDDEN.into(),
        Value::String(text) if text.contains("://") => *text = without_password(text),
        _ => {}
    }
}

/// A URI without its password; one that cannot be read, not at all.
fn without_password(text: &str) -> String {
    if let Ok(uri) = text.parse::<BusUri>() {
        return uri.to_string();
    }
    let Ok(mut url) = url::Url::parse(text) else { return HIDDEN.to_owned() };
    if url.password().is_none() {
        return text.to_owned();
    }
    if url.set_password(Some(HIDDEN)).is_ok() { url.into() } else { HIDDEN.to_owned() }
}

/// Writes `settings` for people: each member with its value, and below it where it was set and what it overrode.
pub fn write(settings: &[Setting], out: &mut impl Write) -> io::Result<()> {
    for Setting { member, value, from, overrode } in settings {
        writeln!(out, "{} = {value}\n    from {from}", member.join("."))?;
        for Former { value, from } in overrode {
            writeln!(out, "    over {value} from {from}")?;
        }
    }
    Ok(())
}
