//! Reading values as types, with all that is wrong at once, each fault with its place.

use figment::{
    error::Kind,
    value::{Dict, Value},
};
use serde::de::DeserializeOwned;
use serde_path_to_error::{Path as Where, Segment};

use super::{
    Place,
    layer::{Layer, Path},
};
use crate::{
    error::{Error, Result},
    nearest,
};

/// More faults than this are not told.
const MOST: usize = 100;

/// Members on their way into types.
pub(super) struct Reading<'l> {
    layers: &'l [Layer],
    faults: Vec<String>,
}

impl<'l> Reading<'l> {
    pub(super) fn new(layers: &'l [Layer]) -> Self {
        Self { layers, faults: Vec::new() }
    }

    /// Reads what is in `members` below `section` as a `T`, without what is at fault in it. A text from the environment that
    /// is to be something else is read as JSON, and stands as that in `members` from then on. `None` where nothing can be
    /// read.
    pub(super) fn read<T: DeserializeOwned>(
        &mut self,
        members: &mut Dict,
        section: Option<&str>,
        known: &[&str],
    ) -> Option<T> {
        // What is wrong is taken out, so that what else is wrong comes to light.
        let mut rest = members.clone();
        loop {
            let value = Value::from(rest.clone());
            let found = match section {
                None => serde_path_to_error::deserialize(&value),
                Some(section) => {
                    let nothing = Value::from(Dict::new());
                    let value = value.find_ref(section).unwrap_or(&nothing);
                    serde_path_to_error::deserialize(value)
                }
            };
            let error: serde_path_to_error::Error<figment::Error> = match found {
                Ok(read) => return Some(read),
                Err(error) => error,
            };
            let mut path: Path = section.map(str::to_owned).into_iter().collect();
            path.extend(names(error.path()));
            let kind = error.into_inner().kind;
            if let Kind::UnknownField(name, _) | Kind::UnknownVariant(name, _) = &kind
                && path.last() != Some(name)
                && find(&mut rest, &path).is_some_and(|value| matches!(value, Value::Dict(..)))
            {
                path.push(name.clone());
            }
            if let Some(read) = find(&mut rest, &path).and_then(|value| self.as_json(&path, value)) {
                set(&mut rest, &path, Some(read.clone()));
                set(members, &path, Some(read));
                continue;
            }
            self.fault(&path, &kind, known);
            if !set(&mut rest, &path, None) || self.faults.len() >= MOST {
                return None;
            }
        }
    }

    /// What was `loaded` from where the section `name` says; what fails is one more fault.
    pub(super) fn loaded<T>(&mut self, name: &str, loaded: Result<T>) -> Option<T> {
        let path = [name.to_owned()];
        let place = self.place(&path).map(|place| format!("{place}: ")).unwrap_or_default();
        loaded.map_err(|error| self.faults.push(format!("{place}{}", in_one_line(&error.to_string())))).ok()
    }

    /// One more fault, of the member at `path`.
    pub(super) fn wrong(&mut self, path: &[String], problem: &str) {
        let place = self.place(path).map(|place| format!("{place}: ")).unwrap_or_default();
        self.faults.push(match path {
            [] => format!("{place}{}", in_one_line(problem)),
            _ => format!("{place}member {:?} {}", path.join("."), in_one_line(problem)),
        });
    }

    /// Fails if anything was wrong.
    pub(super) fn end(self) -> Result<()> {
        match self.faults.as_slice() {
            [] => Ok(()),
            [one] => Err(Error::config(format!("the configuration cannot be used: {one}"))),
            all => {
                let lines: String = all.iter().map(|fault| format!("\n  {fault}")).collect();
                Err(Error::config(format!(
                    "the configuration cannot be used, for {} faults:{lines}",
                    all.len()
                )))
            }
        }
    }

    fn fault(&mut self, path: &[String], kind: &Kind, known: &[&str]) {
        let problem = match kind {
            Kind::UnknownField(name, here) => {
                let all: Vec<&str> = if path.len() == 1 { known.to_vec() } else { here.to_vec() };
                unknown(name, &all)
            }
            Kind::UnknownVariant(_, here) => format!("must be one of {}", here.join(", ")),
            Kind::InvalidType(_, expected) | Kind::InvalidValue(_, expected) => {
                format!("must be {}", in_words(&expected.to_string()))
            }
            Kind::MissingField(name) => format!("lacks {name:?}"),
            Kind::Message(text) => text.clone(),
            kind => kind.to_string(),
        };
        self.wrong(path, &problem);
    }

    /// Where the value at `path` was set that holds.
    fn place(&self, path: &[String]) -> Option<&'l Place> {
        let layers = self.layers;
        let sets = |path: &[String]| layers.iter().rev().find(|layer| layer.value(path).is_some());
        (1..=path.len()).rev().find_map(|length| sets(&path[..length])?.place(path))
    }

    /// `value`, which cannot be used as it stands at `path`, as the JSON that it holds, if the environment set it.
    fn as_json(&self, path: &[String], value: &Value) -> Option<Value> {
        let Some(Place::Environment { .. }) = self.place(path) else { return None };
        let json: serde_json::Value = serde_json::from_str(value.as_str()?).ok()?;
        let read = Value::serialize(json).ok()?;
        read.as_str().is_none().then_some(read)
    }
}

/// `text`, in which something of the configuration may stand, without characters that would move the cursor.
fn in_one_line(text: &str) -> String {
    text.chars().fold(String::new(), |mut line, c| {
        if c.is_control() {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
        line
    })
}

/// What serde calls a type, as people do.
fn in_words(expected: &str) -> &str {
    match expected {
        "u8" => "a whole number from 0 to 255",
        "u16" => "a whole number from 0 to 65535",
        "u32" | "u64" | "usize" => "a whole number, not below 0",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        "f32" | "f64" => "a number",
        "a boolean" => "true or false",
        "a string" | "str" | "path string" => "a text",
        "a sequence" => "a list",
        "a map" => "an object",
        other => other.strip_prefix("struct ").map_or(other, |_| "an object"),
    }
}

/// What to say of a name that is not among those that are known.
pub(super) fn unknown(name: &str, known: &[&str]) -> String {
    match nearest(name, known.iter().copied()) {
        Some(meant) => format!("is not known here: did you mean {meant:?}?"),
        None if known.is_empty() => "is not known here".to_owned(),
        None => format!("is not known here: known are {}", known.join(", ")),
    }
}

fn names(path: &Where) -> impl Iterator<Item = String> {
    path.iter().filter_map(|segment| match segment {
        Segment::Map { key } => Some(key.clone()),
        Segment::Seq { index } => Some(index.to_string()),
        Segment::Enum { .. } | Segment::Unknown => None,
    })
}

fn find<'v>(members: &'v mut Dict, path: &[String]) -> Option<&'v mut Value> {
    let (first, rest) = path.split_first()?;
    rest.iter().try_fold(members.get_mut(first)?, |value, name| match value {
        Value::Dict(_, members) => members.get_mut(name),
        Value::Array(_, items) => items.get_mut(name.parse::<usize>().ok()?),
        _ => None,
    })
}

/// Sets the value at `path`, or takes it out. Returns whether it was there.
fn set(members: &mut Dict, path: &[String], value: Option<Value>) -> bool {
    let Some((last, around)) = path.split_last() else { return false };
    if let Some(value) = value {
        return find(members, path).is_some_and(|found| {
            *found = value;
            true
        });
    }
    if around.is_empty() {
        return members.remove(last).is_some();
    }
    match find(members, around) {
        Some(Value::Dict(_, members)) => members.remove(last).is_some(),
        Some(Value::Array(_, items)) => match last.parse::<usize>() {
            Ok(at) if at < items.len() => {
                items.remove(at);
                true
            }
            _ => false,
        },
        _ => false,
    }
}
